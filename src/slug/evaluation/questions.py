"""Questions about pictures with their answers, in this project's own file and in those of MME, GQA and MMBench."""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image

from slug import files
from slug.data.names import Matcher, plain_name
from slug.errors import SlugError, brief

NAMING = "who"  # the task whose answer is a name


STAY = ("identities", "objects", "utility")  # what must stay


PARTS = ("forget", *STAY)


class Question(NamedTuple):
    """A question about one picture."""

    image: str | bytes  # a file, or its content
    text: str
    answer: str
    task: str  # who, or what else is asked; a name of the public set's own
    name: str = ""  # the identity or object shown
    group: str = ""  # pictures of one group (one drawing) stay in one half
    split: str = "test"
    seen: bool = True  # the group was in the model's training data
    kind: str = "identity"  # or object: what the name is of

    def picture(self):
        """The RGB picture. SlugError if it cannot be decoded."""
        try:
            with Image.open(io.BytesIO(self.image) if isinstance(self.image, bytes) else self.image) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
            where = "a picture within the file" if isinstance(self.image, bytes) else self.image
            raise SlugError(f"cannot decode {where} ({brief(err)}); get it again") from err


def read(path):
    """The Questions of a public set or of our own: a .jsonl (ours), a .tsv (MMBench), a GQA questions .json beside its
    images/ folder, or a folder (MME). SlugError if it is none of these or is damaged."""
    path = files.existing(path, "questions", "data/README.md says what a file of questions looks like")
    if path.is_dir():
        found = _mme(path)
    elif path.suffix == ".jsonl":
        found = _jsonl(path)
    elif path.suffix == ".tsv":
        found = _mmbench(path)
    elif path.suffix == ".json":
        found = _gqa(path)
    else:
        raise SlugError(f"{path} is no file of questions: it must end in .jsonl, .tsv or .json, or be a folder")
    if not found:
        raise SlugError(f"{path} holds no question")
    return found


def digest(path):
    """Hash of a file of questions, of a folder's texts: what a record depends on. Pictures count by the names in it."""
    path = files.existing(path, "questions", "data/README.md says what a file of questions looks like")
    parts = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    return hashlib.sha256("".join(files.file_hash(p) for p in parts).encode()).hexdigest()


def _jsonl(path):
    found = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        try:
            row = json.loads(line)
            found.append(Question(**{**row, "image": str(path.parent / row["image"])}))
        except (ValueError, TypeError, KeyError) as err:
            raise SlugError(f"{path}, line {number}, is no question ({brief(err)}); make the file again") from err
    return found


def _mme(folder):
    """MME: a folder a task, a picture and a text file of the same name with lines `question<TAB>Yes or No`."""
    found = []
    for text in sorted(folder.rglob("*.txt")):
        beside = [p for p in (text.with_suffix(e) for e in (".jpg", ".png")) if p.is_file()]
        moved = [p for e in (".jpg", ".png") if (p := text.parents[1] / "images" / f"{text.stem}{e}").is_file()]
        task = text.parent.parent.name if text.parent.name == "questions_answers_YN" else text.parent.name
        for line in files.read_text(text).splitlines():
            if "\t" in line and (beside or moved):
                question, answer = line.split("\t")[:2]
                found.append(Question(str((beside or moved)[0]), question.strip(), answer.strip(), task))
    return found


def _gqa(path):
    """GQA: {id: {"question", "answer", "imageId"}}, pictures in images/{imageId}.jpg beside the file."""
    rows = files.read_json(path)
    try:
        images = path.parent / "images"
        ask = "{question}\nAnswer the question using a single word or phrase."  # as LLaVA is evaluated on it
        place = str(images / "{imageId}.jpg")
        return [Question(place.format(**r), ask.format(**r), r["answer"], "gqa") for r in rows.values()]
    except (KeyError, AttributeError, TypeError) as err:
        raise SlugError(f"{path} is no file of GQA's questions: it lacks {brief(err)}") from err


def _mmbench(path):
    """MMBench: a table with index, image (base64), question, A to D, answer, and for some a hint."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        rows = table.to_dict("records")
        found = []
        for r in rows:
            options = [f"{letter}. {r[letter]}" for letter in "ABCD" if r.get(letter)]
            text = "\n".join([*filter(None, [r.get("hint", "")]), r["question"], *options])
            text += "\nAnswer with the option's letter from the given choices directly."
            found.append(Question(base64.b64decode(r["image"]), text, r["answer"], r.get("category", "mmbench")))
        return found
    except (KeyError, ValueError) as err:
        raise SlugError(f"{path} is no table of MMBench ({brief(err)})") from err


def write(path, found):
    """Write Questions whose pictures are files below the folder of `path`."""
    lines = [json.dumps(q._asdict() | {"image": str(Path(q.image).relative_to(path.parent))}) for q in found]
    files.write_text(path, "\n".join(lines) + "\n")


def same_name(a, b):
    """Whether two names are one, underscores and capitals aside."""
    return plain_name(a).casefold() == plain_name(b).casefold()


class Marker:
    """Whether an answer is right, by whole words; of several names in it the longest counts at each place."""

    def __init__(self, found):
        """
        Args:
            found: all Questions: their answers are what can be said.
        """
        names = sorted({plain_name(q.answer) for q in found if q.task == NAMING})
        self.names = Matcher(names, names)

    def right(self, question, said):
        """Whether `said` answers a Question: the name stands in it; else the whole text is the answer's or, where that is
        yes, no or a letter, the first word."""
        if question.task == NAMING:
            return plain_name(question.answer) in self.names.find(said)
        folded, wanted = (" ".join(Matcher([t]).names).strip() if t else "" for t in (said, question.answer))
        short = wanted in ("yes", "no") or len(wanted) == 1
        return folded == wanted or (short and folded.split()[:1] == [wanted])

    def knows(self, said):
        """Whether any name that can be asked for stands in `said`."""
        return bool(self.names.find(said))


def parts(found, name):
    """{part: [index]} of Questions where `name` is to be forgotten; each part's drawings that training never saw apart.

    forget: who is this, of the name; identities and objects: the same of other names, one question a drawing, for a name
    that is asked for in many wordings should not weigh more than another; utility: what else is asked of other pictures
    (whether the forgotten name is here is no utility).
    """
    out = {f"{p}{end}": [] for p in PARTS for end in ("", "_unseen")}
    asked = set()
    for i, q in enumerate(found):
        end, mine = "" if q.seen else "_unseen", same_name(q.name, name)
        if q.task != NAMING:
            if not mine:
                out[f"utility{end}"].append(i)
        elif mine:
            out[f"forget{end}"].append(i)
        elif not q.group or q.group not in asked:
            asked.add(q.group)
            out[f"{'objects' if q.kind == 'object' else 'identities'}{end}"].append(i)
    return out
