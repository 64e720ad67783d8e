"""The edit as a user holds it: what a model forgets, with its figures, as a value that applies, adds, saves and reports."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from slug import files
from slug.artifacts import deltas
from slug.core import edit as core
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.reports import forgetting_figures
from slug.reports.forgetting_plots import Comparison, plot
from slug.reports.pages import own

Record = dict[str, Any]


class Part(NamedTuple):
    """One delta as its file holds it, times a factor."""

    tensors: Mapping[str, torch.Tensor]  # {canonical name: float32 change}
    header: Mapping[str, str]
    factor: float = 1.0

    def on(self, model: Any) -> core.Edit:
        """The edit of a model at its base weights. SlugError: made for other weights."""
        changes = deltas.native(model, dict(self.tensors), dict(self.header))
        found = core.Edit(changes, self.header["layer"], float(self.header["step"]))
        return found if self.factor == 1 else found.scaled(self.factor)

    def of_tower(self, tower: str) -> "Part":
        """What it does to one tower of its model (HostModel.towers)."""
        tensors, header = deltas.of_each_tower((dict(self.tensors), dict(self.header)))[tower]
        return self._replace(tensors=tensors, header=header)


@dataclass(frozen=True, eq=False)
class Edit:
    """What a model forgets: one delta or a sum of several. Made by `slug.forget` and `slug.load_edit`.

    >>> edit = slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors")
    >>> edit.name, edit.layer
    ('Lion', 'visual.proj')
    >>> weaker = edit.scaled(0.8)
    >>> round(weaker.step / edit.step, 6)
    0.8

    Attributes:
        parts: the deltas.
        model: the model that it was made on, where it is in memory.
        record: all figures of the search, {} for a delta that carries none.
        shown: pictures before and after (experiments.forgetting.Shown), where it was made in this process.
    """

    parts: tuple[Part, ...]
    model: Any = None
    record: Record | None = None
    shown: Any = None

    @property
    def name(self) -> str:
        """What is forgotten."""
        return " and ".join(p.header.get("name") or "unknown" for p in self.parts)

    @property
    def layer(self) -> str:
        """The layer that moves, or what else made the edit."""
        return " + ".join(p.header["layer"] for p in self.parts)

    @property
    def step(self) -> float:
        """The step size; of a sum that of its last delta."""
        return float(self.parts[-1].header["step"]) * self.parts[-1].factor

    def __str__(self) -> str:
        if self.record and len(self.parts) == 1 and self.parts[0].factor == 1:
            return forgetting_figures.text(self.record)
        said = [
            f"{p.header.get('name')}: {p.header['layer']}, step {float(p.header['step']) * p.factor:.4g}" for p in self.parts
        ]
        return "; ".join(said) + " (not measured together)" * (len(said) > 1)

    __repr__ = __str__

    # ------------------------------------------------------------------------------------------------------------ a value

    def scaled(self, factor: float) -> "Edit":
        """The edit with a step that is `factor` times as long; its figures are not measured.

        >>> slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors").scaled(0.5)
        Lion: visual.proj, step 0.5715
        """
        return Edit(tuple(p._replace(factor=factor * p.factor) for p in self.parts), self.model)

    def __add__(self, other: "Edit") -> "Edit":
        """Both edits at once, of one model.

        >>> lion, owl = (slug.load_edit(f"results/demo/mini-clip-{n}.delta.safetensors") for n in ("Lion", "Owl"))
        >>> (lion + owl).name
        'Lion and Owl'
        """
        return Edit(self.parts + other.parts, self.model or other.model)

    def __radd__(self, other: int) -> "Edit":
        """So that `sum` takes edits."""
        return self

    def _on(self, model: Any) -> core.Edit:
        return core.total([part.on(model) for part in self.parts])

    @contextlib.contextmanager
    def applied(self, model: Any = None) -> Iterator[Any]:
        """Context within which the model carries the edit; afterwards, even after an error, it is as before, to the bit.

        >>> model = slug.load("data/models/mini-clip")
        >>> edit = slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors")
        >>> with edit.applied(model):
        ...     (answers,) = model.classify([picture], ["lion", "tiger", "owl"], top=1)
        >>> answers[0][0]
        'owl'
        """
        model = self._model(model)
        with self._on(model).applied(model):
            yield model

    def _model(self, given: Any) -> Any:
        model = self.model if given is None else given
        if model is None:
            raise SlugError(f"the edit of {self.name} was loaded from a file, so it knows no model; give the model")
        return model

    # ------------------------------------------------------------------------------------------------------------- looks

    def compare(self, pictures: Any, names: Sequence[str], *, model: Any = None, top: int = 5) -> Comparison:
        """What the model calls pictures before and after the edit: a table, and a picture.

        >>> edit = slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors")
        >>> compared = edit.compare(picture, ["lion", "tiger", "owl"], model=slug.load("data/models/mini-clip"), top=1)
        >>> compared.table[["before", "after"]].values.tolist()
        [['lion', 'owl']]

        Args:
            pictures: a path or a PIL picture, or a list of them.
            names: that the model may choose from.
            top: answers of each picture that are shown.
        """
        model, given = self._model(model), pictures if isinstance(pictures, list | tuple) else [pictures]
        said = [Path(p).name if isinstance(p, str | os.PathLike) else f"picture {i}" for i, p in enumerate(given)]
        labels, before, after = [], [], []
        # A pipeline and an assistant are asked by the CLIP of each tower that the edit moves.
        for tower, host in getattr(model, "towers", {"": model}).items():
            clip = getattr(host, "clip", host)
            labels += [f"{label} ({tower})" if tower else label for label in said]
            before += clip.classify(given, names, top=top)
            with Edit(tuple(p.of_tower(tower) for p in self.parts)).applied(clip):
                after += clip.classify(given, names, top=top)
        pictures = [p for _ in range(len(labels) // len(given)) for p in given]
        return Comparison(pictures, labels, before, after, self.name)

    def plot(self, kind: str = "tradeoff", path: str | None = None) -> Any:
        """A plot as a PIL picture: `tradeoff` of all candidates, `pareto` fronts, `steps`, or `pictures` before and after.

        Args:
            path: where to write it as well, .png or .pdf.
        Raises:
            SlugError: an unknown kind, or the edit's record does not hold it.

        >>> slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors").plot("tradeoff")
        Traceback (most recent call last):
        slug.errors.SlugError: this delta carries no record of a search, so there is no tradeoff plot: slug.forget makes one
        """
        if not self.record:
            raise SlugError(f"this delta carries no record of a search, so there is no {kind} plot: slug.forget makes one")
        return plot(kind, self.record, self.shown, None if path is None else Path(path).expanduser().absolute())

    def report(self, path: str) -> str:
        """Write the whole report as one HTML file that needs no other file; returns its path.

        >>> slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors").report("report.html")
        Traceback (most recent call last):
        slug.errors.SlugError: this delta carries no record of a search, so there is no report; make it with slug.forget
        """
        if not self.record:
            raise SlugError("this delta carries no record of a search, so there is no report; make it with slug.forget")
        out = Path(path).expanduser().absolute()
        files.write_text(out, own.html(self.record, self.shown))
        return str(out)

    # ------------------------------------------------------------------------------------------------------------- files

    def save(self, path: str, *, model: Any = None) -> str:
        """Write the edit as one delta file, which `slug.apply` and `slug.load_edit` take; returns its path.

        A sum needs the model, whose weights the file's fingerprint is taken of.

        >>> edit = slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors")
        >>> saved = edit.scaled(0.8).save(f"{scratch}/weaker.safetensors")
        >>> slug.load_edit(saved).step == 0.8 * edit.step
        True
        """
        out = Path(path).expanduser().absolute()
        if len(self.parts) > 1:
            model = self._model(model)
            sums = {"method": "slug", "together_with": [p.header.get("name") for p in self.parts]}
            how: dict[str, Any] = {"name": self.name, "layer": self.layer, "step": self.step, "metrics": sums}
            deltas.save(out, model, self._on(model).changes, **how)
            return str(out)
        (part,) = self.parts
        tensors, header = {n: t.contiguous() for n, t in part.tensors.items()}, dict(part.header)
        if part.factor != 1:
            tensors = {n: part.factor * t for n, t in tensors.items()}
            whole = json.loads(header["metrics"])
            about: Record = {k: v for k, v in whole.items() if k == "method"} | {"scaled": part.factor}
            if "chosen" in whole:
                about["chosen"] = [(layer, float(step) * part.factor) for layer, step in whole["chosen"]]
            header |= {"step": repr(self.step), "metrics": json.dumps(about)}
            header |= {"content": files.tensor_hash(tensors)} if "content" in header else {}
        with files.replacing(out) as temporary:
            save_file(tensors, temporary, metadata=header)
        return str(out)

    def push_to_hub(
        self, repo_id: str, *, model: Any = None, folder: str = "", private: bool = True, api: Any = None
    ) -> str:
        """Give the edited model away on the Hugging Face Hub: sealed, so that nothing in it brings the original back, and
        with its card. Returns the address.

        Args:
            folder: a model folder that the edit is applied to, instead of the model in memory.
            private: of a repository that is made new.
            api: what has the methods of huggingface_hub.HfApi.

        >>> edit = slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors")
        >>> edit.push_to_hub("me/without-lion", folder="data/models/mini-clip", api=recorder)
        'https://huggingface.co/me/without-lion'
        """
        from huggingface_hub import HfApi

        from slug.artifacts import export

        api = api or HfApi()
        with tempfile.TemporaryDirectory() as scratch:
            delta = self.save(f"{scratch}/{files.name_stem(self.name.replace(' ', '_'))}.delta.safetensors", model=model)
            source = (
                Path(folder).expanduser().absolute() if folder else export.write(self._model(model), Path(scratch) / "base")
            )
            edited = deltas.apply(delta, source, Path(scratch) / "edited")
            sealed = deltas.seal(edited, Path(scratch) / "sealed")
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=str(sealed), commit_message=f"Without {self.name}, by SLUG")
        return f"https://huggingface.co/{repo_id}"


def made(model: Any, found: core.Edit, record: Record, shown: Any) -> Edit:
    """The edit that a search found on a model in memory, as its delta file would hold it."""
    record = json.loads(json.dumps(record))  # as the file will give it back
    metrics: Record = {"method": record["method"]}
    if "towers" in record:
        metrics |= {"towers": {t: _figures(r) for t, r in record["towers"].items()}, "chosen": record["chosen"]}
    else:
        metrics |= _figures(record)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "edit.delta.safetensors"
        how: dict[str, Any] = {"name": record["name"], "layer": found.layer, "step": found.step}
        changes = {n: v - model.parameters[n].detach() for n, v in found.values(model).items()}
        deltas.save(path, model, changes, **how, metrics=metrics | {"record": record})
        tensors, header = deltas.read(path)
    return Edit((Part(tensors, header),), model, record, shown)


def _figures(record: Record) -> Record:
    """What the header of a delta says of a record: the figures of the test split."""
    test = record["splits"]["test"][record["method"]]
    return {k: v for k, v in test.items() if k != "in_labelled"} | {"split": "test", "method": record["method"]}


def load(path: str) -> Edit:
    """See slug.load_edit."""
    file = Path(path).expanduser().absolute()
    tensors, header = deltas.read(file)
    if not header.get("name"):  # deltas of earlier versions say it by their file's name alone
        label, stem = header["model"].rpartition("_")[0], file.name.partition(".")[0]
        header = {**header, "name": plain_name(stem.removeprefix(f"{label}-"))}
    return Edit((Part(tensors, header),), record=json.loads(header["metrics"]).get("record"))
