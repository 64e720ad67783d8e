"""The one set-up of every experiment on a pipeline: the pipeline, the prompts, and what judges its pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slug import files, system
from slug.artifacts import canvas_records, deltas
from slug.artifacts.records import Record
from slug.core.edit import Edit
from slug.evaluation import canvas_prompts
from slug.evaluation.canvas_classifiers import ClipClassifiers, Judge, Judged, correct, load_classifiers
from slug.evaluation.canvas_prompts import Concept, Request
from slug.models import diffusion
from slug.settings import Judging, Pipeline, Run


def concept_of(record: Record) -> Concept:
    """What a record forgot."""
    return Concept(record["kind"], record["name"])


def precision(run: Run, device: Any) -> str:
    """In which pictures are made: half precision on a GPU where the protocol says so and --precision is not given."""
    half = run.rules.canvas_half and str(device).startswith("cuda") and run.precision == Run.precision
    return "fp16" if half else run.precision


class Canvas:
    """A pipeline at its original weights with its prompts and its judge.

    Attributes:
        requests: of both splits.
        results: the result folder.
        base: hash of the pipeline's weights and settings.
        weights_hash: hash of its weights alone.
        marks: what every record depends on.
    """

    def __init__(self, run: Run, pipeline: Pipeline, judging: Judging, judge: str = "classifiers") -> None:
        """
        Args:
            judge: "classifiers", or "clip" for the unedited CLIP.
        """
        self.run, self.prompts = run, files.resolve(judging.prompts)
        self.requests = canvas_prompts.read_requests(self.prompts, run.rules.canvas_prompt)
        self.device = system.settle(run.device, run.seed)
        self.results = files.check_writable(run.result_dir)
        self.pipeline = diffusion.from_settings(pipeline, precision(run, self.device), self.device)
        self.base, self.weights_hash = self.pipeline.hash(), self.pipeline.weights_hash()
        self.judge: Judge = (
            ClipClassifiers(self.pipeline.clip, canvas_prompts.labels_of(self.requests))
            if judge == "clip"
            else load_classifiers(judging.classifiers, self.device, run.rules.canvas_input)
        )
        self.marks = {"pipeline_hash": self.base, "prompts_hash": files.file_hash(self.prompts)}
        self.marks["judge_hash"] = self.judge.hash()

    def split(self, name: str) -> list[Request]:
        """The Requests of one split."""
        return [r for r in self.requests if r.split == name]

    def records(self) -> list[Record]:
        """All records of this pipeline with these prompts. SlugError if there is none."""
        folder, protocol = self.results / "sd", self.run.protocol
        return canvas_records.read_records(folder, self.pipeline.tag, self.base, self.prompts, protocol)

    def delta(self, record: Record) -> Path:
        """The delta file of a record."""
        return self.results / "sd" / record["delta"]

    def edit(self, record: Record) -> Edit:
        """The edit of a record. SlugError if it was made for other weights."""
        return Edit(dict(sorted(deltas.of_model(self.pipeline, self.delta(record)).items())))  # in the file's order

    def out(self, folder: str) -> Path:
        """The folder that a report is written to: results/uncanvas, where none is given."""
        return files.check_writable(folder or self.results / "uncanvas")

    def draw(self, asked: Sequence[Request], stem: str, mark: Any) -> list[Path]:
        """Paths of the pictures of Requests under the present weights; they are kept for later runs.

        Args:
            stem: what the pipeline is called, for people.
            mark: tells states of the pipeline apart, anything JSON can hold; empty for the original weights.
        """
        wanted = [(r.prompt, r.seed) for r in asked]
        folder = self.results / "uncanvas/pictures"
        return diffusion.kept_pictures(self.pipeline, wanted, folder, stem, [self.base, mark])

    def correct(self, asked: Sequence[Request], pictures: torch.Tensor | Sequence[Path], what: str) -> Judged:
        """Whether the judge takes each of these pictures for what was asked for. Black ones are left out, and counted.

        Args:
            pictures: (N, 3, H, W) uint8, or N image files.
            what: whose pictures they are.
        """
        places = diffusion.sound(pictures, what)
        drawn = torch.zeros(len(asked), dtype=torch.bool)
        drawn[places] = True
        right = {kind: torch.zeros_like(drawn) for kind in self.judge.labels}
        if places:
            shown = [asked[i] for i in places]
            if isinstance(pictures, torch.Tensor):
                logits = self.judge.logits(pictures[places])
            else:
                logits = diffusion.look_at(self.judge.logits, [pictures[i] for i in places])
            for kind, found in correct(shown, logits, self.judge.labels).items():
                right[kind][places] = found
        return Judged(right, drawn)
