"""The prompts of the UnlearnCanvas protocol: every style and object in several seeds."""

import csv
import io
import itertools
from typing import NamedTuple

from slug import files
from slug.data.canvas import KINDS
from slug.data.names import plain_name
from slug.errors import SlugError

OTHER = {"style": "object", "object": "style"}


SPLITS = ("validation", "test")


TEST_SEEDS, VALIDATION_SEEDS = (0, 1, 2, 3, 4), (1000, 1001, 1002, 1003, 1004, 1005)


APART = 10_000  # between the seeds of one cell and those of the next


class Request(NamedTuple):
    """A picture that is asked for."""

    split: str  # select or report
    style: str  # names as people write them; a style may be empty: the object's name alone is asked for
    object: str
    seed: int

    @property
    def prompt(self):
        """The protocol's prompt; underscores of folder names become spaces (trap 7)."""
        style, thing = plain_name(self.style), plain_name(self.object)
        return f"An {thing} image in {style} style." if style else thing


FIELDS = (*Request._fields, "prompt")


def add_concept_flags(parser, what="names to forget"):
    """--style and --object."""
    parser.add_argument("--style", nargs="*", default=[], help=f"styles: {what}")
    parser.add_argument("--object", nargs="*", default=[], help=f"objects, characters or people: {what}")


def concepts(asked):
    """[(kind, name)] of settings.Concepts, each once."""
    return list(dict.fromkeys([("style", s) for s in asked.style] + [("object", o) for o in asked.object]))


def grid(folder):
    """([style], [object]) of a folder of <Style>/<Object>/<n>.jpg, as their folders are called. SlugError if it has none."""
    cells = [p.relative_to(folder).parts for p in sorted(folder.glob("*/*")) if p.is_dir()]
    if not cells:
        raise SlugError(f"{folder} has no <Style>/<Object> folders; data/README.md says how UnlearnCanvas is laid out")
    return tuple(sorted({cell[i] for cell in cells}) for i in (0, 1))


def among(given, known, kind):
    """The names of `known` that were given, spaces or underscores alike, each once; all where none was. SlugError for
    another one."""
    plain = {plain_name(n): n for n in known}
    missing = next((n for n in given if plain_name(n) not in plain), None)
    if missing:
        raise SlugError(
            f"there is no {kind} {missing!r}; there are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
        )
    return list(dict.fromkeys(plain[plain_name(n)] for n in given)) or list(known)


def requests(styles, objects, *, report=TEST_SEEDS, select=VALIDATION_SEEDS, shared=False):
    """Requests for every cell of a grid, in both splits.

    Args:
        report, select: seeds of the first cell, below APART; those of each further cell lie APART higher. What is forgotten
            in one noise may show in the next, so that a few noises shared by all cells would say little about others.
        shared: all cells have the same seeds, as published.
    """
    if set(report) & set(select):
        raise SlugError("a seed cannot both choose a step and report it; give other seeds")
    if not all(0 <= s < APART for s in (*report, *select)):
        raise SlugError(f"seeds are whole numbers below {APART}; give other ones")
    cells = [
        (style, thing, 0 if shared else APART * i) for i, (style, thing) in enumerate(itertools.product(styles, objects))
    ]
    seeds = [("validation", s) for s in select] + [("test", s) for s in report]
    return [Request(split, style, thing, first + seed) for split, seed in seeds for style, thing, first in cells]


def write_requests(path, found):
    """Write requests as CSV, with the prompt beside each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([(*r, r.prompt) for r in found])
    files.write_text(path, out.getvalue())


def read_requests(path):
    """The requests of a CSV. SlugError if it is missing or no such file, or if a seed stands in both splits."""
    path = files.existing(path, "prompts", "make them with src/clip/a0_create_prompts_uncanvas.py")
    found = []
    for number, row in enumerate(files.read_csv(path, FIELDS, "make it again"), 2):
        if row["split"] not in SPLITS or not row["seed"].isdigit():
            raise SlugError(f"{path}, line {number}: split must be validation or test, and seed a whole number")
        found.append(Request(row["split"], row["style"], row["object"], int(row["seed"])))
    seeds = {split: {r.seed for r in found if r.split == split} for split in SPLITS}
    if seeds["validation"] & seeds["test"]:
        raise SlugError(f"{path}: seed {min(seeds['validation'] & seeds['test'])} stands in both splits; use other seeds")
    return found


def shows(kind, name, asked):
    """[bool]: whether each Request asks for the concept `name` of a kind."""
    return [plain_name(getattr(r, kind)) == plain_name(name) for r in asked]


def names_of(asked):
    """{kind: [name]} of Requests, in their order."""
    return {k: [n for n in dict.fromkeys(plain_name(getattr(r, k)) for r in asked) if n] for k in KINDS}


def without(request: Request, kind: str) -> str:
    """The prompt of a Request with its style or its object left out: what a forgotten concept may become.

    Args:
        kind: what is left out.
    """
    rest = plain_name(getattr(request, OTHER[kind]))
    if kind == "style":
        return f"An {rest} image."
    return f"An image in {rest} style." if rest else "An image."
