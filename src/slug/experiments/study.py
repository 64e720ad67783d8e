"""A study of the method's choices: runs that each forget one name in one way, and the table they are kept in.

A run is a (name, variant); it starts from the original weights, chooses on one split and reports on the other.
The standard variant is what a2_unlearn_slug.py does; each other one differs from it in one choice. `slug.claims` reads the
table and says what became of the paper's claims.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from slug import cli, files, models
from slug.artifacts import gradient_files, records
from slug.core import gradients, layers, losses, search, selection, slug
from slug.core.edit import applied, edit_of, edited_by, union
from slug.data import evaluation_sets
from slug.data.names import Matcher, plain_name
from slug.data.pairs import load_pairs, some, source_images
from slug.errors import SlugError, brief
from slug.evaluation import clip_judge, clip_tasks, outcome
from slug.schema import STANDARD


class Variant(NamedTuple):
    """One way to forget a name. The defaults are the standard's."""

    name: str
    ranking: str = "front"  # which layers of an encoder: its front; as many by one figure, importance or alignment; or all
    encoders: tuple[str, ...] = ("vision", "language")
    together: bool = False  # all these layers by one step, instead of the best one
    scale: float = 1.0  # of the first step
    evaluations: int = 10  # steps a layer
    renderings: int = 0  # of each drawing in the forget set, at most; 0: all
    drawings: int = 0  # in the forget set, at most; 0: all
    retain_share: float = 1.0  # part of the retain set
    draw: int = 0  # which draw of parts
    choose: str = "retain"  # or deepest: see unlearn.search_all
    rounds: int = 1  # layers moved one after the other, gradients taken anew
    quick: bool = True  # whether a quick study has it


VARIANTS = {
    v.name: v
    for v in (
        Variant(STANDARD),
        Variant("front_together", together=True),
        Variant("all_together", ranking="all", together=True, quick=False),
        Variant("importance", ranking="importance"),
        Variant("alignment", ranking="alignment"),
        Variant("vision", encoders=("vision",)),
        Variant("language", encoders=("language",)),
        Variant("first_tenth", scale=0.1, quick=False),
        Variant("first_tenfold", scale=10.0, quick=False),
        Variant("evaluations_5", evaluations=5),
        Variant("evaluations_20", evaluations=20, quick=False),
        Variant("renderings_1", renderings=1),
        Variant("renderings_5", renderings=5, quick=False),
        Variant("drawings_1", drawings=1),
        Variant("drawings_2", drawings=2, quick=False),
        Variant("retain_10", retain_share=0.1),
        Variant("retain_30", retain_share=0.3, quick=False),
        Variant("retain_30_again", retain_share=0.3, draw=1, quick=False),
        Variant("deepest", choose="deepest", quick=False),
        Variant("rounds_3", rounds=3, quick=False),
    )
}
NO_SETTINGS = ("name", "quick")  # of a Variant, change no result
SHARED = "seed precision batch_size imagenet_share select_pictures fa_k".split()  # flags that every run depends on
QUICK_NAMES = {"identity": 2, "object": 1}
METHOD = "slug"

FIGURES = (  # of the test split, see unlearn.figures and unlearn.changes
    "forget_acc1 forget_acc5 forget_upper forget_seen_acc1 forget_unseen_acc1 identities_acc1 identities_acc5 objects_acc1 "
    "objects_acc5 identities_change identities_change_low identities_change_high objects_change objects_change_low "
    "objects_change_high forget_vision_acc1 forget_language_acc1"
).split()
COUNTS = "n_forget n_forget_unseen n_drawings n_identities n_objects".split()
BEFORE = "forget_acc1 identities_acc1 objects_acc1".split()  # of the unedited model, as original_*
SCHEMA = pa.schema(
    [(c, pa.string()) for c in "name kind variant model layer".split()]
    + [(c, pa.float64()) for c in "step params_share".split()]
    + [(c, pa.int64()) for c in "n_moved n_layers n_candidates n_pairs n_pair_drawings".split()]
    + [(c, pa.float64()) for c in "seconds gradient_s search_s run_s validation_forget_acc1".split()]
    + [("validation_forgets", pa.bool_())]
    + [(c, pa.float64()) for c in FIGURES]
    + [(c, pa.int64()) for c in COUNTS]
    + [(f"original_{c}", pa.float64()) for c in BEFORE]
    + [(c, pa.int64()) for c in "seed process".split()]
    + [(c, pa.string()) for c in "settings versions shared fingerprint error".split()]
)


# -------------------------------------------------------------------------------------------------------------- world


class World:
    """What the runs of one process share: the model at its original weights, the evaluation, the gradients' files."""

    def __init__(self, args):
        """
        Args:
            args: flags of cli.add_model_flags and cli.add_data_flags, and `laion_dir`.
        """
        self.args = args
        self.clip = models.from_args(args, cli.settle(args))
        self.model_hash = gradient_files.model_hash(self.clip)
        identities, objects, self.split = evaluation_sets.load_evaluation(args, args, self.clip.transform)
        self.pictures = (identities, objects)
        self._known = (None, {})

    def evaluation_now(self):
        """zeroshot.Evaluation whose unedited model is the one at the present weights."""
        how = {"batch_size": self.args.eval_batch_size, "cache_gb": self.args.cache_gb}
        return clip_tasks.Evaluation(self.clip, *self.pictures, **how)

    @functools.cached_property
    def evaluation(self):
        """zeroshot.Evaluation of the original weights."""
        return self.evaluation_now()

    def judge(self, evaluation, target, *, report=False):
        """Judge of the validation split, on at most --select-pictures a task, or of the whole test split; it infers no
        membership."""
        args = self.args
        split = {task: ~mask for task, mask in self.split.items()} if report else self.split
        k = args.fa_k or selection.fa_rank(len(self.pictures[0].names))
        limit = None if report else args.select_pictures
        return clip_judge.Judge(self.clip, evaluation, target, None, split, k=k, seed=args.seed, limit=limit, mia=False)

    def gradients(self, name):
        """(forget gradient, retain gradient, path of the forget set, names left out of the retain set): a1's files."""
        return gradient_files.load_both(self.args, self.clip, name, self.model_hash, "calc_grad", self.args.batch_size)

    def known(self, name, forget):
        """{(layer, step): search.Step} of the steps along a forget gradient that were scored; of one name at a time."""
        if self._known[0] != name:
            self._known = (name, {})
        return self._known[1].setdefault(files.tensor_hash(forget), {})

    @functools.cached_property
    def left_out(self):
        """The names whose pairs the retain set leaves out."""
        return self.gradients(self.args.celeb_name[0])[3]

    @functools.cached_property
    def retain_pairs(self):
        """data.Pairs of the retain set."""
        path = files.existing(self.args.train_data, "retain set", "give --train-data")
        leave_out = Matcher(self.left_out)
        return load_pairs(path, self.clip.transform, leave_out=leave_out, workers=self.args.workers)

    def compute(self, pairs, loss, desc):
        """(gradient at the present weights, its figures), as gradients.compute."""
        return gradients.compute(self.clip, pairs, loss, batch_size=self.args.batch_size, desc=desc)

    def retain_part(self, variant, *, make=False):
        """The gradient of the variant's part of the retain set. SlugError if its file is stale or not there.

        Args:
            make: write the file where it is not valid: it serves all names, so it is made before runs are dealt out.
        """
        args, tar = self.args, files.existing(self.args.train_data, "retain set", "give --train-data")
        loss = losses.contrastive
        mark = gradient_files.fingerprint(self.model_hash, tar, loss, args.batch_size, False, self.left_out)
        mark |= {"share": variant.retain_share, "draw": variant.draw, "seed": args.seed}
        folder = gradient_files.folder(args.result_dir, "retain", self.clip.tag)
        path = folder / f"train_grads_{variant.retain_share:g}_{variant.draw}.pt"
        if make and not gradient_files.is_valid(path, mark):
            rows = part_of(len(self.retain_pairs.captions), variant.retain_share, [args.seed, variant.draw])
            desc = f"{variant.retain_share:.0%} of the retain set"
            found, figures = self.compute(some(self.retain_pairs, rows), loss, desc)
            gradient_files.save(path, found, {**mark, **figures, "convention": gradients.CONVENTION})
        return gradient_files.load(path, mark, "python src/clip/a6_study.py")

    def shared_hash(self):
        """Hash of all that every run of a study depends on: model, evaluation, retain set, flags, rules, versions."""
        _, retain, _, _ = self.gradients(self.args.celeb_name[0])
        inputs = records.inputs_hash(self.model_hash, (retain,), self.pictures)
        rule = (selection.MAX_FORGET, selection.SIGMAS, search.CLOSE, search.FAR)
        flags = {k: getattr(self.args, k) for k in SHARED}
        return _hash([inputs, rule, flags, self.left_out, cli.versions()])


_worlds = {}  # one a process


def world_of(settings):
    """The World of these settings, the JSON of all flags; made once a process."""
    if settings not in _worlds:
        _worlds.clear()
        _worlds[settings] = World(argparse.Namespace(**json.loads(settings)))
    return _worlds[settings]


def _hash(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


# -------------------------------------------------------------------------------------------------- what a variant means


def part_of(n, share, seed):
    """`share` of the indices 0 to n - 1, drawn by `seed`, ascending."""
    return sorted(np.random.default_rng(seed).permutation(n)[: max(1, round(share * n))].tolist())


def forget_part(drawings, variant, seed):
    """Indices of the pairs of a forget set that a variant keeps, ascending.

    Args:
        drawings: the drawing of each pair.
    """
    rng = np.random.default_rng([seed, variant.draw])
    kept = rng.permutation(sorted(set(drawings)))[: variant.drawings or None].tolist()
    rows = []
    for drawing in kept:
        mine = [i for i, d in enumerate(drawings) if d == drawing]
        rows += rng.permutation(mine)[: variant.renderings or None].tolist()
    return sorted(rows)


def layers_of(rows, variant):
    """The layers that a variant tries, or moves together: [layers.Layer] out of those of all layers."""
    found = []
    for encoder, front in layers.fronts(rows).items():
        if encoder in variant.encoders:
            mine = [r for r in rows if r.encoder == encoder]
            found += {
                "front": front,
                "importance": sorted(mine, key=lambda r: -r.importance)[: len(front)],
                "alignment": sorted(mine, key=lambda r: abs(r.alignment))[: len(front)],
                "all": mine,
            }[variant.ranking]
    return found


class Remembering:
    """A Judge that scores a step of a layer once: variants of one name try the same ones. The winner is the same as without:
    a step that was scored more fully than this search needed is one that loses here."""

    def __init__(self, judge, known):
        """
        Args:
            known: {(layer, step): search.Step}, of the same weights, gradient and pictures; it grows.
        """
        self.judge, self.known = judge, known
        self.winner, self.applied = judge.winner, judge.applied

    def step(self, layer, step, edited, *, best=None, log_all=False, known=None):
        """As unlearn.Judge.step."""
        row = self.known.get((layer, step))
        if row is None or (row.forgets and math.isnan(row.retain)):
            row = self.known[layer, step] = self.judge.step(layer, step, edited, best=best, log_all=log_all, known=known)
        return row


class Found(NamedTuple):
    """What the search of a variant came to."""

    edit: dict[str, torch.Tensor]  # {parameter name: change}
    moved: list[tuple[str, float]]  # (layer, the step that was taken on it) of each round
    best: selection.Step  # the last round's winner, of all of the edit
    n_layers: int  # tried, or moved together
    n_candidates: int
    seconds: float  # of all steps, those that another variant scored included, and of gradients taken anew

    @property
    def layer(self):
        """The layers of all rounds."""
        return " + ".join(layer for layer, _ in self.moved)


def search_variant(world, target, variant, forget, retain, forget_pairs):
    """Find a variant's edit on the validation split.

    With several rounds, the first of R layers moves 1/R of the step that would forget, the next one 1/(R - 1) of what
    would then, the last one all of it; each is chosen anew, at the weights then, among the layers not moved yet.

    Args:
        target: zeroshot.Target.
        forget, retain: gradients at the original weights.
        forget_pairs: the pairs that `forget` was taken of.
    Returns:
        Found.
    """
    clip, edit, moved, tried, steps, seconds = world.clip, {}, [], 0, 0, 0.0
    for left in range(variant.rounds, 0, -1):
        with applied(clip, edit):
            if edit:
                began = time.perf_counter()
                forget, _ = world.compute(forget_pairs, losses.FORGET[""], "forget set, at the edited weights")
                retain, _ = world.compute(world.retain_pairs, losses.contrastive, "retain set, at the edited weights")
                seconds += time.perf_counter() - began
                judge = world.judge(world.evaluation_now(), target)
            else:
                judge = world.judge(world.evaluation, target)
                if not variant.together:  # the layers that move together are not the same in all variants
                    judge = Remembering(judge, world.known(target.name, forget))
            front = layers_of([r for r in layers.figures(clip, forget, retain) if r.name not in edit], variant)
            curves, best = slug.search_all(
                clip,
                judge,
                front,
                forget,
                evaluations=variant.evaluations,
                choose=variant.choose,
                together=variant.together,
                scale=variant.scale,
            )
        if best is None:
            raise SlugError(f"{clip.label} has no layer that the variant {variant.name} may edit")
        group = union(clip, front) if variant.together else clip.group(best.layer)
        for name, change in edit_of(clip, group, forget, best.step / left).items():
            edit[name] = edit.get(name, 0) + change
        moved.append((best.layer, best.step / left))
        scored = [s for part in curves.values() for s in part]
        tried, steps, seconds = tried + len(front), steps + len(scored), seconds + sum(s.seconds for s in scored)
    return Found(edit, moved, best, tried, steps, seconds)


# --------------------------------------------------------------------------------------------------------------- runs


class Planned(NamedTuple):
    """A run that is asked for."""

    name: str  # as given
    model: str
    variant: str
    shared: str  # World.shared_hash
    fingerprint: str  # of all that it depends on


def variant_settings(variant):
    """What of a Variant decides its result."""
    return {k: v for k, v in variant._asdict().items() if k not in NO_SETTINGS}


def plan(world, names, variants):
    """[Planned] of every name and variant."""
    shared, out = world.shared_hash(), []
    for name in names:
        forget, _, tar, _ = world.gradients(name)
        own = [files.tensor_hash(forget), files.file_hash(tar)]
        for v in variants:
            mark = _hash([shared, own, variant_settings(VARIANTS[v])])
            out.append(Planned(name, world.clip.label, v, shared, mark))
    return out


def run(world, name, variant):
    """Forget one name in one way: the figures of its row, and `moved`, see Found.

    Raises:
        SlugError: a gradient is missing or stale; the drawings of the forget set are not known to a variant that needs them.
    """
    args, clip, started = world.args, world.clip, time.perf_counter()
    target = world.evaluation.target(name)
    forget, retain, tar, _ = world.gradients(name)
    gradient_s = gradient_files.seconds(args, clip, name, "calc_grad")
    pairs = used = load_pairs(tar, clip.transform, workers=args.workers)
    drawings = None
    if variant.renderings or variant.drawings:
        known = source_images(tar, files.existing(args.laion_dir, "shard folder", "give --laion-dir"))
        drawings = [known[key] for key in pairs.keys]
        rows = forget_part(drawings, variant, args.seed)
        used, drawings = some(pairs, rows), [drawings[i] for i in rows]
        began = time.perf_counter()
        forget, _ = world.compute(used, losses.FORGET[""], f"part of the forget set of {name}")
        gradient_s = time.perf_counter() - began
    if variant.retain_share < 1:
        retain = world.retain_part(variant)
    found = search_variant(world, target, variant, forget, retain, used)
    judges = {"test": world.judge(world.evaluation, target, report=True)}
    edited = edited_by(clip, tuple(found.edit))
    splits = outcome.both_splits(judges, edited, lambda: applied(clip, found.edit), METHOD, args.seed)
    before, after = splits["test"]["original"], splits["test"][METHOD]
    touched = sum(t.numel() for t in found.edit.values())
    return {
        "name": target.name,
        "kind": target.kind,
        "model": clip.label,
        "layer": found.layer,
        "step": found.best.step,
        "moved": found.moved,
        "params_share": touched / sum(p.numel() for p in clip.parameters.values()),
        "n_moved": len(found.edit),
        "n_layers": found.n_layers,
        "n_candidates": found.n_candidates,
        "n_pairs": len(used.captions),
        "n_pair_drawings": len(set(drawings)) if drawings else None,
        "seconds": gradient_s + found.seconds,
        "gradient_s": gradient_s,
        "search_s": found.seconds,
        "run_s": time.perf_counter() - started,
        "validation_forget_acc1": found.best.forget_acc1,
        "validation_forgets": bool(found.best.forgets),
        **{c: after[c] for c in (*FIGURES, *COUNTS)},
        **{f"original_{c}": before[c] for c in BEFORE},
    }


def attempt_all(planned, settings, threads):
    """[row] of several runs, one after the other in one process: those of one name share the steps that they score."""
    return [attempt(p, settings, threads) for p in planned]


def attempt(planned, settings, threads):
    """Do one run, here or in a process that knows nothing yet; write its part and return its row.

    Whatever a run fails of, memory and errors of libraries included, becomes its row's `error`: the other runs go on.

    Args:
        planned: Planned.
        settings: JSON of all flags.
        threads: of this process.
    """
    torch.set_num_threads(threads)
    args = argparse.Namespace(**json.loads(settings))
    row = planned._asdict() | {"name": plain_name(planned.name), "seed": args.seed, "process": os.getpid()}
    said = {"flags": cli.settings(args), "variant": variant_settings(VARIANTS[planned.variant]), "threads": threads}
    try:
        row |= run(world_of(settings), planned.name, VARIANTS[planned.variant])
        said["moved"] = row.pop("moved")
    except Exception as err:
        row["error"] = str(err) if isinstance(err, SlugError) else f"{type(err).__name__}: {brief(err)}"
    row |= {"settings": json.dumps(said, sort_keys=True), "versions": json.dumps(cli.versions())}
    with files.replacing(part_path(files.resolve(args.result_dir), planned)) as temporary:
        pq.write_table(pa.Table.from_pylist([row], SCHEMA), temporary)
    return row


# -------------------------------------------------------------------------------------------------------------- table


def part_path(folder, planned):
    """Where a run's row lies until, and after, all rows are merged."""
    stem = files.safe_name(f"{planned.model}-{planned.name.replace(' ', '_')}-{planned.variant}")
    return folder / "parts" / f"{stem}.parquet"


def part(path):
    """The row of a part file, {column: value}; None if it is not there or damaged."""
    try:
        return pq.read_table(path, schema=SCHEMA).to_pylist()[0]
    except (OSError, pa.ArrowException, IndexError):
        return None


def done_before(folder, planned):
    """The row of this run where it was done before with all the same, failed or not; else None."""
    row = part(part_path(folder, planned))
    return row if row and row["fingerprint"] == planned.fingerprint else None


def finished(folder, planned):
    """Whether this run was done before, with all the same, and did not fail."""
    row = done_before(folder, planned)
    return bool(row) and row["error"] is None


def merge(folder, planned, out):
    """Write the rows of those of the runs `planned` that were done to the Parquet file `out`; returns how many."""
    rows = [row for p in planned if (row := done_before(folder, p))]
    order = list(VARIANTS)
    rows.sort(key=lambda r: (r["name"], order.index(r["variant"])))
    with files.replacing(out) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary)
    return len(rows)


def read(path):
    """The table of a study as a DataFrame. SlugError if it is missing, damaged or no such table."""
    path = files.existing(path, "table of a study", "make it with: bash scripts/run_study.sh")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as err:
        raise SlugError(f"{path} is no whole Parquet file ({brief(err)}); run scripts/run_study.sh again") from err
    lacks = next((c for c in SCHEMA.names if c not in frame), None)
    if lacks or frame.empty:
        raise SlugError(f"{path} has {'no column ' + lacks if lacks else 'no run'}; run scripts/run_study.sh again")
    return frame


def one_line(row):
    """A run in one line for the terminal."""
    if row.get("error"):
        return f"{row['name']}, {row['variant']}: failed: {row['error']}"
    return (
        f"{row['name']}, {row['variant']}: {row['layer']} step {row['step']:.4g}, test split: "
        f"FA@1 {row['original_forget_acc1']:.1%} -> {row['forget_acc1']:.1%} (at most {row['forget_upper']:.1%}), "
        f"identities {100 * row['identities_change']:+.2f}, objects {100 * row['objects_change']:+.2f} points, "
        f"{row['n_candidates']} candidates, {row['seconds']:.1f} s"
    )
