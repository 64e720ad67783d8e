"""Questions about images with their answers: this project's own file format and those of MME, GQA and MMBench."""

import base64
import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from slug import files
from slug.data.evaluation_sets import check_share
from slug.data.names import Matcher, plain_name
from slug.errors import SlugError, brief

NAMING = "who"  # the task whose answer is a name
RETAINED = ("identities", "objects", "utility")  # retained tasks
PARTS = ("forget", *RETAINED)
SIDES = ("", "_unseen", "_all")  # ends of a part: source images that training contained, that it did not, and both
PROBES = {  # tasks of probes: questions that ask for a name in other ways; they count for no part
    "probe_yes_no": "yes or no",
    "probe_indirect": "an indirect question",
    "probe_wording": "other wordings",
    "probe_caption": "a caption with the name",
    "probe_group": "several names in a picture",
    "probe_group_yes_no": "several names in a picture, yes or no",
    "probe_text_only": "no picture",
}
TEXT_ONLY = "probe_text_only"
REMEDY = "data/README.md describes the format"


class Question(NamedTuple):
    """A question about one image."""

    image: str | bytes  # a file, or its content; empty for a question without a picture
    text: str
    answer: str
    task: str  # NAMING, or what else is asked; public sets have their own names
    name: str = ""  # the identity or object that the image shows
    group: str = ""  # the source image; the images of one group are in one split
    split: str = "test"
    seen: bool = True  # whether the model's training data contained the group
    kind: str = "identity"  # what the name is of: identity or object
    asks: str = ""  # of a probe: the name that it asks for, where that is not `name`

    @property
    def shown(self) -> bool:
        """Whether the question is about a picture."""
        return bool(self.image)

    @property
    def wants_name(self) -> bool:
        """Whether the right answer is a name."""
        return self.task == NAMING or (self.task in PROBES and self.answer.strip().casefold() not in ("yes", "no"))

    def picture(self) -> Image.Image:
        """The RGB image. SlugError if it cannot be decoded."""
        try:
            with Image.open(io.BytesIO(self.image) if isinstance(self.image, bytes) else self.image) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
            where = "an image within the file" if isinstance(self.image, bytes) else self.image
            raise SlugError(f"cannot decode {where} ({brief(err)}); get it again") from err


def read(path: str | Path) -> list[Question]:
    """The questions of a .jsonl (our format), a .tsv (MMBench), a .json beside its images/ folder (GQA) or a folder (MME).

    Raises:
        SlugError: the file is missing or damaged, has another format, or holds no question.
    """
    path = files.existing(path, "questions", REMEDY)
    readers = {".jsonl": _jsonl, ".tsv": _mmbench, ".json": _gqa}
    if not path.is_dir() and path.suffix not in readers:
        raise SlugError(f"{path} is not a file of questions: it must end in .jsonl, .tsv or .json, or be a folder; {REMEDY}")
    found = _mme(path) if path.is_dir() else readers[path.suffix](path)
    if not found:
        raise SlugError(f"{path} holds no question; {REMEDY}")
    return found


def usable(found: Sequence[Question], path: str | Path, allowed: float) -> tuple[list[Question], dict[str, int]]:
    """(the questions whose pictures can be decoded, {why: pictures that cannot}) of questions from `path`.

    What is left out is told. SlugError where more than the fraction `allowed` of the pictures cannot be used.
    """
    why: dict[str | bytes, str] = {}
    pictures = {q.image: q for q in found if q.shown}
    for image, question in pictures.items():
        try:
            question.picture().close()
        except SlugError:
            why[image] = "missing" if isinstance(image, str) and not Path(image).exists() else "damaged"
    left_out = {reason: list(why.values()).count(reason) for reason in ("missing", "damaged")}
    lost = [i if isinstance(i, str) else f"that of {pictures[i].text.splitlines()[0]!r}" for i in why]
    check_share(Path(path), left_out, len(pictures), lost, allowed)
    if why and len(why) == len(pictures):
        raise SlugError(f"{path}: none of its pictures can be used; get them again")
    return [q for q in found if q.image not in why], left_out


def read_rows(folder: str | Path, names: Iterable[str]) -> list[Question]:
    """The questions of a folder of .csv and .jsonl files with the columns image (or picture), question and answer.

    Images are files in the folder. A question whose answer is one of `names` asks for a name; any other one is of the task
    "rows". SlugError where there is none, a row lacks something, or images are missing.
    """
    folder = files.existing(folder, "folder of questions", "it needs rows of image, question, answer")
    if not folder.is_dir():
        raise SlugError(f"{folder} is no folder; give the folder of the CSV or JSONL file and its images")
    known, found = {plain_name(n).casefold() for n in names}, []
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.jsonl")]):
        for number, row in enumerate(_rows_of(path), 1):
            cells = [row.get("image") or row.get("picture"), row.get("question"), row.get("answer")]
            if any(c is None or not str(c).strip() for c in cells):
                raise SlugError(f"{path}, row {number}, lacks its image, question or answer; fill it, or take the row out")
            image, text, answer = (str(c).strip() for c in cells)
            task = NAMING if plain_name(answer).casefold() in known else "rows"
            name = plain_name(answer) if task == NAMING else ""
            found.append(Question(str(files.inside(folder, image)), text, answer, task, name, group=image))
    missing = [q for q in found if not Path(str(q.image)).is_file()]
    if missing or not found:
        said = f"{len(missing)} of {len(found)} images are missing, e.g. {missing[0].group}" if missing else "it has no row"
        raise SlugError(f"{folder}: {said}; it needs .csv or .jsonl files of image, question, answer, and the images")
    return found


def _rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV or of a JSONL file. SlugError if it is damaged."""
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(files.read_text(path))))
    found = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError as err:
            raise SlugError(f"{path}, line {number}, is no JSON ({brief(err)}); make the file again") from err
        if not isinstance(found[-1], dict):
            raise SlugError(f"{path}, line {number}, is no object of image, question, answer; make the file again")
    return found


def contained(question: Question, said: str) -> bool:
    """Whether an answer is right by the published scoring: the right one is contained in it, in upper or lower case."""
    return " ".join(question.answer.split()).casefold() in said.casefold()


def digest(path: str | Path) -> str:
    """Hash of a file of questions, or of the texts in a folder. Images count by their file names only."""
    path = files.existing(path, "questions", REMEDY)
    parts = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    return hashlib.sha256("".join(files.file_hash(p) for p in parts).encode()).hexdigest()


def _jsonl(path: Path) -> list[Question]:
    found = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        try:
            row = json.loads(line)
            found.append(Question(**{**row, "image": str(path.parent / row["image"]) if row["image"] else ""}))
            _check_probe(found[-1])
        except (ValueError, TypeError, KeyError) as err:
            raise SlugError(f"{path}, line {number}, is not a question ({brief(err)}); {REMEDY}") from err
    return found


def _check_probe(question: Question) -> None:
    """ValueError where a question looks like a probe and is none."""
    if question.task.startswith("probe_") and question.task not in PROBES:
        raise ValueError(f"there is no probe {question.task!r}; choose from {', '.join(PROBES)}")
    if question.shown == (question.task == TEXT_ONLY):
        raise ValueError(f"a question has no image if its task is {TEXT_ONLY!r}, and needs one otherwise")
    if question.task in PROBES and not (question.asks or question.name):
        raise ValueError("a probe needs `asks`, the name that it asks for")


def _mme(folder: Path) -> list[Question]:
    """MME: a folder for each task; an image and a text file of the same name with lines `question<TAB>Yes or No`."""
    found = []
    for text in sorted(folder.rglob("*.txt")):
        places = [text.with_suffix(""), text.parents[1] / "images" / text.stem]  # beside the text, or in a folder of images
        images = [p for place in places for end in (".jpg", ".png") if (p := place.with_name(place.name + end)).is_file()]
        task = text.parent.parent.name if text.parent.name == "questions_answers_YN" else text.parent.name
        for line in files.read_text(text).splitlines():
            if "\t" in line:
                question, answer = line.split("\t")[:2]
                image = images[0] if images else places[0].with_name(f"{places[0].name}.jpg")  # missing
                found.append(Question(str(image), question.strip(), answer.strip(), task))
    return found


def _gqa(path: Path) -> list[Question]:
    """GQA: {id: {"question", "answer", "imageId"}}; the images are images/{imageId}.jpg beside the file."""
    rows = files.read_json(path)
    try:
        ask = "{question}\nAnswer the question using a single word or phrase."  # LLaVA's prompt for this set
        place = str(path.parent / "images" / "{imageId}.jpg")
        return [Question(place.format(**r), ask.format(**r), r["answer"], "gqa") for r in rows.values()]
    except (KeyError, AttributeError, TypeError) as err:
        raise SlugError(f"{path} is not a file of GQA's questions: it lacks {brief(err)}; get it again") from err


def _mmbench(path: Path) -> list[Question]:
    """MMBench: a table with the columns index, image (base64), question, A to D, answer, and an optional hint."""
    try:
        found = []
        for r in pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).to_dict("records"):
            options = [f"{letter}. {r[letter]}" for letter in "ABCD" if r.get(letter)]
            text = "\n".join([*filter(None, [r.get("hint", "")]), r["question"], *options])
            text += "\nAnswer with the option's letter from the given choices directly."
            found.append(Question(base64.b64decode(r["image"]), text, r["answer"], r.get("category", "mmbench")))
        return found
    except (KeyError, ValueError) as err:
        raise SlugError(f"{path} is not a table of MMBench ({brief(err)}); get it again") from err


def write(path: Path, found: Iterable[Question]) -> None:
    """Write questions in our format; their images must be files below the folder of `path`."""
    images = [str(Path(str(q.image)).relative_to(path.parent)) if q.shown else "" for q in found]
    lines = [json.dumps(q._asdict() | {"image": image}) for q, image in zip(found, images, strict=True)]
    files.write_text(path, "\n".join(lines) + "\n")


class Marker:
    """Marks answers as right or wrong by whole words. Where names overlap in an answer, the longest counts."""

    def __init__(self, found: Sequence[Question]) -> None:
        """The known names are the answers of `found` to questions that ask for a name."""
        names = sorted({plain_name(q.answer) for q in found if q.wants_name})
        self.names = Matcher(names, names)

    def right(self, question: Question, said: str) -> bool:
        """Whether `said` is right.

        A name must occur in it as whole words. Any other answer must be the whole text; yes, no and single letters need
        only be its first word.
        """
        if question.wants_name:
            return plain_name(question.answer) in self.names.find(said)
        folded, wanted = (" ".join(Matcher([t]).names).strip() if t else "" for t in (said, question.answer))
        short = wanted in ("yes", "no") or len(wanted) == 1
        return folded == wanted or (short and folded.split()[:1] == [wanted])

    def knows(self, said: str) -> bool:
        """Whether any known name occurs in `said`."""
        return bool(self.names.find(said))


def parts(found: Sequence[Question], name: str) -> dict[str, list[int]]:
    """{part: indices of questions} for a name to forget; source images that training did not contain are in `{part}_unseen`.

    forget: the name is asked for. identities, objects: another name is asked for, one question for each source image, so
    that a name with many wordings does not weigh more than others. utility: all other questions about images of other names
    (whether the forgotten name is visible in an image says nothing about utility).
    """
    out: dict[str, list[int]] = {f"{p}{end}": [] for p in PARTS for end in SIDES[:2]}
    asked: set[str] = set()
    forgotten = plain_name(name).casefold()
    for i, q in enumerate(found):
        end, own = "" if q.seen else "_unseen", plain_name(q.name).casefold() == forgotten
        if q.task in PROBES:
            continue
        if q.task != NAMING:
            if not own:
                out[f"utility{end}"].append(i)
        elif own:
            out[f"forget{end}"].append(i)
        elif not q.group or q.group not in asked:
            asked.add(q.group)
            out[f"{'objects' if q.kind == 'object' else 'identities'}{end}"].append(i)
    return out


def sides(found: Sequence[Question], name: str) -> dict[str, list[int]]:
    """`parts`, and in `{part}_all` the questions about seen and unseen source images together."""
    out = parts(found, name)
    return out | {f"{p}_all": sorted(out[p] + out[f"{p}_unseen"]) for p in PARTS}


def probes(found: Sequence[Question], name: str) -> dict[tuple[str, str], list[int]]:
    """{(task, whom): indices of questions} of the PROBES for a name to forget; empty ones are left out.

    whom: "name" where the name is what is right to say, "beside" where something else is and the picture shows the name,
    "others" where neither is the case.
    """
    out: dict[tuple[str, str], list[int]] = {(task, whom): [] for task in PROBES for whom in ("name", "beside", "others")}
    forgotten = plain_name(name).casefold()
    for i, q in enumerate(found):
        if q.task in PROBES:
            asked, shown = (plain_name(n).casefold() for n in (q.asks or q.name, q.name))
            right = asked == forgotten and q.answer.strip().casefold() != "no"
            out[q.task, "name" if right else "beside" if shown == forgotten else "others"].append(i)
    return {key: rows for key, rows in out.items() if rows}
