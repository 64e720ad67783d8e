"""The prompts of the UnlearnCanvas protocol: every style and object, with seeds of their own for each split."""

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slug import files, settings
from slug.data.canvas import KINDS
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.protocols import OURS, Protocol

OTHER = {"style": "object", "object": "style"}
SPLITS = ("validation", "test")
TEST_SEEDS, VALIDATION_SEEDS = (0, 1, 2, 3, 4), (1000, 1001, 1002, 1003, 1004, 1005)
APART = 10_000  # between the seeds of one cell and those of the next
PHOTOGRAPHS = "Seed_Images"  # the folder of UnlearnCanvas's photographs, from which its styles were made
PAINTINGS = {"object": "A painting of {object}", "style": "A painting in {style} style"}  # published CRA is of these two


class Request(NamedTuple):
    """One picture to generate.

    Attributes:
        style, object: plain names; an empty style asks for the object by its name alone.
        wording: of the prompt, by default UnlearnCanvas's own.
    """

    split: str
    style: str
    object: str
    seed: int
    wording: str = OURS.canvas_prompt

    @property
    def prompt(self) -> str:
        """The prompt. Underscores of folder names become spaces: the pipeline learned names with spaces."""
        style, thing = plain_name(self.style), plain_name(self.object)
        return self.wording.format(object=thing, style=style) if style or "{style}" not in self.wording else thing


class Concept(NamedTuple):
    """What is forgotten: a style or an object."""

    kind: str
    name: str

    @property
    def plain(self) -> "Concept":
        """The concept by its name as people write it, which records hold."""
        return Concept(self.kind, plain_name(self.name))

    def shown_by(self, asked: Iterable[Request]) -> list[bool]:
        """Whether each Request asks for the concept."""
        return [plain_name(getattr(r, self.kind)) == plain_name(self.name) for r in asked]

    def left_out_of(self, request: Request) -> str:
        """The prompt of a Request without its style, or without its object: what a forgotten concept may become."""
        other = plain_name(getattr(request, OTHER[self.kind]))
        if self.kind == "style":
            return f"An {other} image." if other else "An image."
        return f"An image in {other} style." if other else "An image."


def concepts(asked: settings.Concepts) -> list[Concept]:
    """The concepts of the settings, each once, styles first."""
    named = {"style": asked.style, "object": asked.object}
    return list(dict.fromkeys(Concept(kind, name) for kind, names in named.items() for name in names))


def concepts_of(asked: Iterable[Request]) -> list[Concept]:
    """All concepts that Requests ask for, by their plain names and in their order, styles first."""
    asked = list(asked)
    found = dict.fromkeys(Concept(kind, getattr(r, kind)).plain for kind in KINDS for r in asked)
    return [c for c in found if c.name]


def to_forget(asked: Iterable[Request], protocol: Protocol) -> list[Concept]:
    """`concepts_of` that are forgotten where none is named."""
    return [c for c in concepts_of(asked) if protocol.canvas_photographs or c != Concept("style", PHOTOGRAPHS).plain]


def paintings(concept: Concept, asked: Sequence[Request]) -> list[Request]:
    """The two Requests that the published CRA of a concept is of: its first other object, and its first other style.

    Args:
        asked: Requests of one split, whose names and first seed are taken.
    """
    found = []
    for kind, wording in PAINTINGS.items():
        names = [n for r in asked if (n := getattr(r, kind)) and Concept(kind, n).plain != concept.plain]
        if names:
            words = {"style": "", "object": "", kind: names[0]}
            found.append(Request(asked[0].split, words["style"], words["object"], asked[0].seed, wording))
    return found


def labels_of(asked: Iterable[Request]) -> dict[str, list[str]]:
    """{kind: plain names} of `concepts_of`."""
    found = concepts_of(asked)
    return {kind: [c.name for c in found if c.kind == kind] for kind in KINDS}


def check_known(asked: Iterable[Request], labels: Mapping[str, Sequence[str]]) -> None:
    """SlugError where Requests ask for a name that a classifier has no label for.

    Args:
        labels: {kind: labels of its classifier}.
    """
    asked = list(asked)
    for kind, names in labels.items():
        known = dict.fromkeys(plain_name(n) for n in names)
        missing = sorted({plain_name(getattr(r, kind)) for r in asked} - set(known) - {""})
        if missing:
            some = ", ".join(list(known)[:8])
            raise SlugError(f"the {kind} classifier does not know {missing[0]!r}; ask for what it knows: {some}, ...")


def grid(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(styles, objects) of a folder of <Style>/<Object>/<n>.jpg, as its folders are called. SlugError if it has none."""
    cells = [p.relative_to(folder).parts for p in sorted(folder.glob("*/*")) if p.is_dir()]
    if not cells:
        raise SlugError(f"{folder} has no <Style>/<Object> folders; data/README.md says how UnlearnCanvas is laid out")
    styles, objects = (tuple(sorted({cell[i] for cell in cells})) for i in (0, 1))
    return styles, objects


def among(given: Iterable[str], known: Sequence[str], kind: str) -> list[str]:
    """The given names as `known` spells them, each once; all known names if none is given. SlugError for an unknown name.

    Spaces and underscores count as the same.
    """
    plain, given = {plain_name(n): n for n in known}, list(given)
    missing = next((n for n in given if plain_name(n) not in plain), None)
    if missing:
        more = ", ..." if len(known) > 8 else ""
        raise SlugError(f"there is no {kind} {missing!r}; there are {', '.join(known[:8])}{more}")
    return list(dict.fromkeys(plain[plain_name(n)] for n in given)) or list(known)


def requests(
    styles: Iterable[str],
    objects: Iterable[str],
    *,
    test: Sequence[int] = TEST_SEEDS,
    validation: Sequence[int] = VALIDATION_SEEDS,
    shared: bool = False,
    wording: str = OURS.canvas_prompt,
) -> list[Request]:
    """Requests for every cell (style and object) of a grid, in both splits.

    Args:
        test, validation: seeds of the first cell, below APART. Each further cell has seeds APART higher: a concept that is
            forgotten in one noise may show in the next, so a few noises shared by all cells would say little about others.
        shared: all cells have the same seeds, as published.
        wording: see Request.
    """
    seeds = [("validation", s) for s in validation] + [("test", s) for s in test]
    if set(test) & set(validation):
        raise SlugError("a seed is in both splits; give other seeds")
    if not all(0 <= s < APART for _, s in seeds):
        raise SlugError(f"seeds are whole numbers below {APART}; give other ones")
    cells = list(enumerate(itertools.product(styles, objects)))
    return [
        Request(split, style, thing, seed + (0 if shared else APART * i), wording)
        for split, seed in seeds
        for i, (style, thing) in cells
    ]


FIELDS = ("split", "style", "object", "seed", "prompt")


def write_requests(path: Path, found: Iterable[Request]) -> None:
    """Write Requests as CSV, each with its prompt."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([(r.split, r.style, r.object, r.seed, r.prompt) for r in found])
    files.write_text(path, out.getvalue())


def read_requests(path: str | Path, wording: str = OURS.canvas_prompt) -> list[Request]:
    """The Requests of a CSV, in a wording (see Request) of their own: that of the file is for people.

    SlugError if it is missing or damaged, or if both splits have a seed in common.
    """
    path = files.existing(path, "prompts", "make them with src/clip/a0_create_prompts_uncanvas.py")
    found = []
    for number, row in enumerate(files.read_csv(path, FIELDS, "make it again"), 2):
        if row["split"] not in SPLITS or not row["seed"].isdigit():
            raise SlugError(f"{path}, line {number}: split must be validation or test, and seed a whole number")
        found.append(Request(row["split"], row["style"], row["object"], int(row["seed"]), wording))
    validation, test = ({r.seed for r in found if r.split == split} for split in SPLITS)
    if validation & test:
        raise SlugError(f"{path}: seed {min(validation & test)} is in both splits; use other seeds")
    return found
