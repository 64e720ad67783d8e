"""Gradients of the first N pairs, beside those of all pairs: how many pictures are enough?

Beside a gradient file lie `forget_grads_samples_N.pt` and `train_grads_samples_N.pt`, as later versions of the published
code write them; here a positive step adds both. In a name's folder, samples.csv has their cosines with the gradients of all
pairs, and samples-fronts.csv the figures and Pareto fronts that they give.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from slug import cli, distributed, files
from slug.artifacts import gradient_files, retain_gradient
from slug.artifacts.gradient_files import GradientFiles
from slug.core import gradients, layers, losses
from slug.core.variants import Variant
from slug.data.names import plain_name
from slug.schema import ALL_LAYERS, SAMPLE_FRONTS, SAMPLE_FRONTS_COLUMNS, SAMPLES, SAMPLES_COLUMNS

Gradient = Mapping[str, torch.Tensor]


def sample_file(path: Path, count: int) -> Path:
    """The gradient of the first `count` pairs beside the gradient file `path`."""
    return path.with_name(f"{path.stem}_samples_{count}{path.suffix}")


def cosines(partial: Gradient, final: Gradient) -> dict[str, float]:
    """{parameter name: cosine of two gradients}, and under ALL_LAYERS that of both as one vector; 0 beside a zero."""
    products, squares, found = 0.0, [0.0, 0.0], {}
    for name, b in final.items():
        a, b = partial[name].double().flatten(), b.double().flatten()
        parts = (a @ b).item(), (a @ a).item(), (b @ b).item()
        products, squares = products + parts[0], [squares[0] + parts[1], squares[1] + parts[2]]
        found[name] = parts[0] / (parts[1] * parts[2]) ** 0.5 if parts[1] * parts[2] > 0 else 0.0
    whole = (squares[0] * squares[1]) ** 0.5
    return {ALL_LAYERS: products / whole if whole > 0 else 0.0, **found}


class SampleGradients:
    """The gradients of a model's first pairs, for the names of some GradientFiles."""

    def __init__(self, found: GradientFiles, counts: Sequence[int], settings: Mapping[str, Any], workers: int) -> None:
        """`counts` are pairs; `settings` are noted in fingerprints."""
        self.files, self.counts, self.settings, self.workers = found, sorted(set(counts)), settings, workers
        # By our rules the partial retain gradients serve all names as well: no name is left out, nor in what they tend to.
        shared = found.protocol.all_names_left_out
        self.left_out = found.left_out_of_all
        own = found.path(found.names[0], "train", Variant()).resolve()
        self.retain = own if shared else found.retain_folder / Variant().file("train")

    def write(self, *, force: bool = False) -> list[Path]:
        """Write the files and both tables of every name, and keep valid files; returns the tables' folders.

        A count that a set does not exceed is left out, and named.
        """
        clip_files, variant = self.files, Variant()
        sides = {name: (clip_files.path(name, "forget", variant), clip_files.tar(name)) for name in clip_files.names}
        made = self._side(self.retain, "retain set", clip_files.retain_tar, losses.contrastive, self.left_out, force)
        folders = []
        for name, (path, tar) in sides.items():
            own = self._side(path, name, tar, losses.cosine_embedding, [], force)
            if self._writes:
                for count, file in made.items():
                    for end in (".pt", ".json"):
                        target = sample_file(clip_files.path(name, "train", variant), count).with_suffix(end)
                        retain_gradient.link(file.with_suffix(end), target)
                self._tables(name, own, made)
                folders.append(path.parent)
        return folders

    def _side(self, path: Path, subject: str, tar: Path, loss: Any, left_out: list[str], force: bool) -> dict[int, Path]:
        """{count: file} of one set, whose whole gradient is at `path`."""
        mark = self.files.mark(tar, loss, Variant(), left_out)
        there = {n: sample_file(path, n) for n in self.counts}
        wanted = [n for n, f in there.items() if force or not gradient_files.is_valid(f, mark | {"samples": n})]
        pairs = self.files.pairs(tar, left_out, self.workers)
        size = len(pairs.captions)
        if short := [n for n in self.counts if n >= size]:
            self._say(f"{subject}: {size} pairs; left out, since they are no fewer: the first {', '.join(map(str, short))}")
        wanted = [n for n in wanted if n not in short]
        how: dict[str, Any] = {"batch_size": self.files.batch_size, "protocol": self.files.protocol}
        how |= {"encoder": self.files.encoder, "desc": f"{subject}: gradients by pairs"}
        for n, (found, seen) in zip(wanted, gradients.of_first(self.files.clip, pairs, loss, wanted, **how), strict=True):
            if self._writes:
                about = {"samples": n, "pairs": seen, "convention": gradient_files.CONVENTION, "settings": self.settings}
                gradient_files.save(there[n], found, {**mark, **about, "versions": cli.versions()})
                print(f"{subject}: gradient of the first {seen} pairs -> {there[n]}")
        return {n: f for n, f in there.items() if n not in short}

    @property
    def _writes(self) -> bool:
        """Whether this process is the one that writes."""
        return distributed.mine()[0] == 0

    def _say(self, text: str) -> None:
        if self._writes:
            print(text)

    def _tables(self, name: str, own: Mapping[int, Path], retain: Mapping[int, Path]) -> None:
        """Write both tables of a name."""
        whole, remedy = self.files.load(name, Variant()), self.files.remedy(Variant())
        every = gradient_files.load(self.retain, {"left_out": self.left_out}, remedy)
        common = {"name": plain_name(name), "protocol": self.files.protocol.name}
        held: dict[str, dict[int, Gradient]] = {"forget": {}, "train": {}}
        rows: list[dict[str, Any]] = []
        for side, made, final in (("forget", own, whole.forget), ("train", retain, every)):
            for count, path in made.items():
                held[side][count] = gradient_files.load(path, {"samples": count}, remedy)
                about = {**common, "side": side, "samples": count}
                about["pairs"] = files.read_object(path.with_suffix(".json"))["pairs"]
                rows += [{**about, "layer": k, "cosine": c} for k, c in cosines(held[side][count], final).items()]
        fronts: list[dict[str, Any]] = []
        # A set that has no more pairs than that counts with all of them.
        counts = sorted({*held["forget"], *held["train"]})
        states = {n: (held["forget"].get(n, whole.forget), held["train"].get(n, whole.retain)) for n in counts}
        for count, gradient in [*states.items(), (0, (whole.forget, whole.retain))]:
            ranked = layers.figures(self.files.clip, *gradient)
            front = {r.name for part in layers.fronts(ranked).values() for r in part}
            about = {**common, "samples": count}
            for r in ranked:
                figures = {k: v for k, v in r._asdict().items() if k != "name"}
                fronts.append({**about, "layer": r.name, **figures, "on_front": r.name in front})
        for table, file, columns in ((rows, SAMPLES, SAMPLES_COLUMNS), (fronts, SAMPLE_FRONTS, SAMPLE_FRONTS_COLUMNS)):
            frame = pd.DataFrame(table, columns=list(columns))
            text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
            files.write_text(self.files.folder(name) / file, text)
