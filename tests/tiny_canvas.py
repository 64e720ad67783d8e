"""An untrained pipeline with the classifiers that judge its pictures, and a run of the stages on it: shared by several test
files. The fixture `canvas_run` of tests/stages is a finished run."""

import contextlib
import copy
import itertools
import json
import shutil

import tiny
import torch
import torch.nn.functional as F

from slug.data.names import plain_name
from slug.evaluation import canvas_prompts
from slug.models import diffusion

STYLES, OBJECTS = ["Noto", "Blob_Old"], ["bell", "key", "palm_tree"]


def write_classifiers(folder):
    """Write classifiers/ into a folder of `tiny_pipeline`: of the pipeline's pictures they say now this, now that."""
    asked = canvas_prompts.requests(STYLES, OBJECTS, test=[])
    images = tiny.load_pipeline(folder).generate([r.prompt for r in asked], [r.seed for r in asked])
    tiny.write_classifiers(folder / "classifiers", {"style": STYLES, "object": OBJECTS}, images)


def break_pictures(monkeypatch, seed):
    """Every picture with this seed is NaN, whichever pipeline draws it."""
    run = diffusion.Diffusion._run

    def broken(self, prompts, seeds, kind, desc, strict=True):
        images = run(self, prompts, seeds, kind, desc, strict)
        images[[i for i, s in enumerate(seeds) if s == seed]] = float("nan")
        return images

    monkeypatch.setattr(diffusion.Diffusion, "_run", broken)


class Painted:
    """A pipeline whose pictures say what a classifier shall read: (style, object) of a prompt and seed.

    Its edits change nothing; `says` does.
    """

    def __init__(self, says):
        self.says, self.made, self.parameters = says, 0, {}

    def changing(self, names):
        return contextlib.nullcontext()

    def generate(self, prompts, seeds, desc=None):
        self.made += len(prompts)
        return torch.tensor([self.says(p, s) for p, s in zip(prompts, seeds, strict=True)])


class Reader:
    """Says what was painted."""

    def __init__(self):
        self.labels = {"style": STYLES, "object": OBJECTS}

    def logits(self, images):
        return {k: F.one_hot(images[:, i], len(self.labels[k])).float() for i, k in enumerate(("style", "object"))}


def sound(prompt, seed):
    """What a sound pipeline paints."""
    return [prompt.find("Noto") < 0, next((i for i, o in enumerate(OBJECTS) if plain_name(o) in prompt), 0)]


class Run:
    """Folders and flags of a run of all stages.

    Attributes:
        sd: folder of the pipeline, its CLIP and its classifiers.
    """

    def __init__(self, sd, folder):
        self.sd, self.folder = sd, folder
        self.canvas, self.tars, self.results = folder / "canvas", folder / "tars", folder / "results"
        self.prompts, self.train = folder / "prompts.csv", folder / "train.tar"
        self.clip = ["--clip-model-id", sd / "hugging_face"]
        self.common = ["--result-dir", self.results, "--device", "cpu", "--workers", 0]
        how = ["--denoising-steps", 2, "--guidance", 2, "--generate-batch-size", 8]
        self.pipeline = ["--pipeline", sd / "pipeline", *self.clip, *how]
        self.judged = ["--prompts", self.prompts, "--classifiers", sd / "classifiers"]
        for i, (style, thing) in enumerate(itertools.product(STYLES, OBJECTS)):
            cell = self.canvas / style / thing
            cell.mkdir(parents=True)
            for n in (1, 2, 3):
                (cell / f"{n}.jpg").write_bytes(tiny.jpeg(10 * i + n, size=16))
        tiny.write_pairs(self.train, ["a dog", "a cat", "Noto", "tree", "a key", "a house", "a car", "a boat"])

    def another(self, results):
        """A run on the same data with a result folder of its own, which has a copy of the gradients."""
        run = copy.copy(self)
        run.results, run.common = results, ["--result-dir", results, *self.common[2:]]
        shutil.copytree(self.results / "grads", results / "grads", symlinks=True)
        return run

    def run(self, stage, *more):
        tiny.run(stage, *more, *self.common)

    def prepare(self):
        """The prompts and the forget sets."""
        self.run("a0_create_prompts_uncanvas", "--canvas", self.canvas, "--out", self.prompts, "--test-seeds", 0, 1)
        self.run("a0_create_tar_ucanvas", "--canvas", self.canvas, "--tar-dir", self.tars)

    def b1(self, *names, method="slug"):
        data = ["--tar-dir", self.tars, "--train-data", self.train, "--batch-size", 4]
        self.run("b1_compute_grad", "--celeb-name", *names, "--unlearn-method", method, *self.clip, *data)

    def b2(self, *more):
        """The stage and its flags."""
        data = ["--tar-dir", self.tars, "--train-data", self.train, "--batch-size", 4, "--evaluations", 3]
        # The untrained classifier sees a palm tree nowhere: only a margin that grows makes a step better than none.
        return ["b2_unlearn_sd", *self.pipeline, *self.judged, *data, "--wanted", 0.95, "--keep", 0.1, *more]

    def b3(self, *more):
        """The stage and its flags."""
        return ["b3_eval_uncanvas", *self.pipeline, *self.judged, "--reference", self.canvas, *more]

    def record(self, stem):
        """A record, e.g. of slug-style-Noto."""
        return json.loads((self.results / f"sd/pipeline-{stem}.json").read_text())

    def delta(self, stem):
        """The delta file of a record."""
        return self.results / f"sd/pipeline-{stem}.delta.safetensors"

    def steps(self, stem):
        """The CSV of a record's candidates."""
        return self.results / f"sd/pipeline-{stem}-steps.csv"

    def load(self):
        """The Diffusion as the stages have it."""
        return tiny.load_pipeline(self.sd, steps=2, guidance=2.0, batch_size=8)

    def asked(self, split):
        """The Requests of a split."""
        return [r for r in canvas_prompts.read_requests(self.prompts) if r.split == split]
