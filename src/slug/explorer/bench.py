"""A model, the edits that fit it, and what it says with them: all that the explorer's page asks for, without the page."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

from PIL import Image
from torchvision.transforms.functional import to_pil_image

from slug import edits, face
from slug.edits import Edit
from slug.errors import SlugError
from slug.explorer import samples
from slug.explorer.samples import Picture
from slug.models.clip import Clip

Answers = list[tuple[str, float]]  # [(name, probability among the names)], the best first
STRENGTHS = tuple(i / 4 for i in range(9))  # of the curve


class Point(NamedTuple):
    """A strength of the curve. Of a picture counts whether its own name comes first."""

    strength: float
    recognised: int  # pictures of forgotten names
    n_recognised: int
    retained: int  # pictures of other names
    n_retained: int


class Bench:
    """One model at its original weights, with edits that come and go.

    Attributes:
        model: what slug.load or slug.load_pipeline returned.
        edits: {what a reader calls it: edit} of those that were made for the model.
        left_out: {delta file: why} of the others.
    """

    def __init__(self, folder: str, results: Sequence[str], *, clip: str = "", **how: Any) -> None:
        """`clip` is the CLIP of a pipeline's text tower; `how` goes to slug.load_pipeline.

        SlugError: no model folder, no deltas, or none that was made for the model.
        """
        place = Path(face.here(folder))
        if (place / "model_index.json").is_file():
            self.model: Any = face.load_pipeline(folder, clip, **how)
        elif place.is_dir():
            self.model = face.load(folder)
        else:
            raise SlugError(f"model folder not found: {folder}; check the path")
        self.edits: dict[str, Edit] = {}
        self.left_out: dict[str, str] = {}
        self._lock = threading.Lock()  # one edit at a time is in the model
        self._plain: dict[tuple, list[Answers]] = {}
        for path in (path for place in results for path in samples.deltas(face.here(place))):
            try:
                found = edits.load(str(path))
                with found.applied(self.model):
                    pass
            except SlugError as err:
                self.left_out[path.name] = str(err)
                continue
            label = f"{found.name}: {found.layer}"
            self.edits[f"{label} ({path.name})" if label in self.edits else label] = found
        if not self.edits:
            name, why = next(iter(self.left_out.items()))
            raise SlugError(f"none of {len(self.left_out)} deltas was made for {folder}; {name}: {why}")

    @property
    def draws(self) -> bool:
        """Whether the model makes pictures of prompts."""
        return not isinstance(self.model, Clip)

    def forgotten(self, chosen: Sequence[str]) -> set[str]:
        """The names that edits forget, as `samples.key` spells them."""
        return {samples.key(p.header.get("name") or "") for c in chosen for p in self.edits[c].parts}

    @contextlib.contextmanager
    def carrying(self, strengths: Mapping[str, float]) -> Iterator[Any]:
        """The model with edits in it, {label: strength}; the only one at this moment."""
        scaled = [self.edits[c].scaled(s) for c, s in strengths.items() if s]
        with self._lock, sum(scaled[1:], scaled[0]).applied(self.model) if scaled else contextlib.nullcontext():
            yield self.model

    def answers(self, strengths: Mapping[str, float], images: Sequence[Any], names: Sequence[str]) -> list[Answers]:
        """For each picture (a path, or a PIL picture) the five names that it is most likely taken for."""
        if not images:
            return []
        known = (tuple(images), tuple(names)) if all(isinstance(i, str) for i in images) else None
        plain = not any(strengths.values())
        if plain and known in self._plain:
            return self._plain[known]
        with self.carrying(strengths) as model:
            found = model.classify(images, names)
        if plain and known:  # a slider moves many times over the same pictures
            self._plain = dict([*self._plain.items(), (known, found)][-8:])
        return found

    def curve(self, chosen: Sequence[str], pictures: Sequence[Picture], names: Sequence[str]) -> list[Point]:
        """Recognised and retained pictures with all `chosen` edits at each of STRENGTHS. SlugError: nothing to count.

        Only pictures whose own name is among `names` are counted.
        """
        known, gone = {samples.key(n) for n in names}, self.forgotten(chosen)
        counted = [p for p in pictures if samples.key(p.name) in known]
        if not counted or not chosen:
            raise SlugError("choose an edit, and names of which there are evaluation pictures")
        mine = [samples.key(p.name) in gone for p in counted]
        points = []
        for strength in STRENGTHS:
            found = self.answers(dict.fromkeys(chosen, strength), [p.path for p in counted], names)
            right = [samples.key(a[0][0]) == samples.key(p.name) for a, p in zip(found, counted, strict=True)]
            forgets = sum(r and m for r, m in zip(right, mine, strict=True))
            points.append(Point(strength, forgets, sum(mine), sum(right) - forgets, len(mine) - sum(mine)))
        return points

    def drawn(self, strengths: Mapping[str, float], prompt: str, seed: int) -> tuple[Image.Image, Image.Image]:
        """What a pipeline draws without and with edits. SlugError: no prompt, or no seed."""
        if not prompt.strip() or not 0 <= seed < 2**63:
            raise SlugError("give a prompt, and a seed of at least 0")
        pictures = []
        for carried in ({}, strengths):
            with self.carrying(carried) as model:
                pictures.append(to_pil_image(model.generate([prompt], [seed])[0]))
        return pictures[0], pictures[1]
