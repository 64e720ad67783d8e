"""A run of the stages on the tiny world: paths, flags and files. The fixture `done` of tests/stages is a finished one."""

import csv
import json
import os

import tiny

NAMES = ("Alien", "Bento_Box")
# What no two runs share.
CHANGING = {"seconds", "gradient_s", "shared_s", "search_s", "peak_mem_mb"}


def rel(path):
    """A path relative to the repository's root, wherever the test runs."""
    return os.path.relpath(path, tiny.ROOT)


class Run:
    """Paths and flags of one run of all stages; every path is relative to the repository's root."""

    def __init__(self, world, model, folder, result="results"):
        self.world, self.folder, self.results = world, folder, folder / result
        self.shards = world / "laion" / "laion400m"
        self.model = ["--model", f"local-dir:{rel(model)}"]
        self.tars = ["--tar-dir", rel(folder / "tars")]
        self.train = ["--train-data", rel(self.shards / "00000.tar")]
        self.evaluation = ["--val-data", rel(world / "celeba"), "--imagenet-val", rel(world / "ImageNet" / "val")]
        self.out = ["--result-dir", rel(self.results), "--workers", "0", "--device", "cpu"]

    def a0(self):
        images = ["--image-dir", rel(self.folder / "pictures"), "--known-names", rel(self.world / "names.txt")]
        return ["--name", *NAMES, "--laion-dir", rel(self.shards), *self.tars, *images, *self.out]

    def a1(self):
        return ["--celeb-name", *NAMES, *self.tars, *self.train, *self.model, *self.out]

    def a2(self):
        return [*self.a1(), *self.evaluation, "--evaluations", "6"]

    def a3(self):
        """Two baselines, of which salun reads gradients."""
        few = ["--lr", "1e-3", "--epochs", "2"]
        return [*self.a1(), *self.evaluation, "--unlearn-method", "ft", "salun", *few]

    def a6(self):
        return [*self.a1(), *self.evaluation, "--laion-dir", rel(self.shards)]

    def a7(self):
        """With synonyms of Alien and of a name that is not asked for."""
        aliases = self.folder / "aliases.csv"
        aliases.write_text("name,alias\nalien,extraterrestrial\nghost,spectre\nbento box,\n")
        relearning = ["--relearn-lr", "1e-3", "--relearn-steps", "1", "3", "--relearn-pictures", "2", "0"]
        return [*self.a1(), *self.evaluation, "--aliases", rel(aliases), *relearning]

    def record(self, name):
        """The record of a name's SLUG run."""
        return json.loads(next((self.results / "clip").glob(f"*-{name}.json")).read_text())

    def steps(self, name):
        """The rows of {model}-{name}-steps.csv."""
        with next((self.results / "clip").glob(f"*-{name}-steps.csv")).open(newline="") as f:
            return list(csv.DictReader(f))

    def another(self, result, *, link=True):
        """A run with a result folder of its own; `link` gives it the gradients of this one."""
        run = Run(self.world, self.folder, self.folder, result)
        run.model = self.model
        run.results.mkdir()
        if link:
            (run.results / "grads").symlink_to(self.results / "grads")
        return run


def prepare(world, model, folder):
    """A Run whose forget sets and gradients are there, made in this process."""
    run = Run(world, model, folder)
    tiny.run("a0_create_tar", *run.a0())
    tiny.run("a1_compute_grad", *run.a1())
    return run


def comparable(record):
    """A record without what no two runs share."""
    winner = dict(record["winner_validation"], seconds=0)
    return {k: v for k, v in record.items() if k not in CHANGING} | {"winner_validation": winner}


def without_times(rows):
    """Rows of a table of candidates without their seconds."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
