#!/usr/bin/env python
"""Times the search, plain against fast, on the same data and model in one run.

Example: python scripts/tools/benchmark_search.py           mini-CLIP on the embedded world of run_demo.sh: minutes
         python scripts/tools/benchmark_search.py --case fixed --model ViT-B-32 --pretrained random     a fixed schedule
         python scripts/tools/benchmark_search.py --case paper ...   the paper's size, against ONE plain step
         python scripts/tools/benchmark_search.py --case growth ...  fast only, for growing names, pictures, layers
         python scripts/tools/benchmark_search.py --case gradient ...  the gradient pass, by both losses

The case search, the default, also switches off each part of the fast way in turn. Writes table.csv, {model}-{case}.json and
.png to --out. Times are wall-clock: compare ratios within one run. `limit_share` is the FLOP floor divided by the fast time:
the floating-point operations of the evaluations made, at the rate of a large matrix product measured in the same run, before
and after. In it every text counts by itself; in `shared_floor_s` what texts of a batch begin with counts once.
"""

import contextlib
import functools
import gc
import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from slug import cli, files, models, system
from slug.artifacts.gradient_files import GradientFiles
from slug.cli import flag, group
from slug.core import gradients, layers, losses, selection, slug
from slug.core.edit import Edit
from slug.core.search import Plan, Schedule
from slug.core.variants import Variant
from slug.data.evaluation_sets import PictureSet
from slug.data.images import decode
from slug.data.pairs import Pairs, load_pairs, some
from slug.data.splits import validation_mask
from slug.errors import SlugError
from slug.evaluation import clip_tasks, reference, zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import TaskSet
from slug.experiments import setup
from slug.models import towers
from slug.reports import bench, markdown, reading
from slug.settings import Data, Following, Model, Run

EVALUATIONS = 10  # steps of a layer
PLAIN_STEPS = {"fixed": 2, "paper": 1}  # plain steps that are measured; each costs the same
PAIRS = {"mini": 1024, "large": 64}  # pairs of the gradient case, by whether the model has less than 50 million parameters


class Size(NamedTuple):
    """Size of a case on random pictures; its layers are taken from both encoders in turn."""

    names: int  # identities
    classes: int  # of objects, in seven templates each
    pictures: tuple[int, int]  # of identities and of objects
    layers: int
    steps: int


FIXED = Size(500, 50, (100, 100), 2, 10)
PAPER = Size(10177, 1000, (2500, 2000), 2, 4)
GROWTH = Size(1000, 50, (100, 100), 2, 3)  # one of the following replaces its value in turn
NAMES, PICTURES, LAYERS = (100, 1000, 10177), (50, 100, 200, 400), (1, 2, 4, 8)


DEMO = {"celeb_name": ("ribbon",), "tar_dir": "data/demo/tar_files", "train_data": "data/demo/laion/laion400m/00000.tar"}
DEMO |= {"val_data": "data/demo/celeba", "imagenet_val": "data/demo/ImageNet/val"}


@dataclass(frozen=True)
class Settings(Following):
    run: Run = group(Run)
    model: Model = group(Model, model="local-dir:data/models/mini-clip")
    data: Data = group(Data, **DEMO)
    case: str = flag("search", "what is timed", choices=("search", "fixed", "paper", "growth", "gradient"))
    out: str = flag("results/bench", "folder to write")
    readme: str = flag("", "Markdown file whose benchmark block is filled from the table")
    no_plain: bool = flag(False, "leave out the plain way")
    profile: bool = flag(False, "time the fast way only and write a CSV of its time by operator")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def matmul_rate(device, size=2048, seconds=1.0):
    """Floating-point operations per second of a large float32 matrix product."""
    a = torch.randn(size, size, device=device)
    rates, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(rates) < 3:
        started = time.perf_counter()
        for _ in range(3):
            a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(3 * 2 * size**3 / (time.perf_counter() - started))
    return sorted(rates)[len(rates) // 2]


class BothSides(clip_tasks.Evaluation):
    """Also computes the features of the tower that an edit does not touch."""

    def _first_stages(self, edit):
        return {"vision": 0, "language": 0}


class DecodeAgain(clip_tasks.Evaluation):
    """Opens and decodes every picture at each use."""

    def sides(self, task, rows):
        pictures = self.tasks[task].pictures
        decode([pictures.paths[i] for i in rows.tolist()], self.clip.transform, workers=reference.WORKERS)
        return super().sides(task, rows)


@contextlib.contextmanager
def no_prefixes(clip):
    """Context within which texts are computed one by one, whatever they begin with."""
    clip.prefix_stages = lambda: None
    try:
        yield
    finally:
        del clip.prefix_stages


@contextlib.contextmanager
def full_texts(clip):
    """Context within which no text is cut, and texts are computed one by one."""
    clip.text_lengths = lambda tokens: torch.full((len(tokens),), tokens.shape[1])
    try:
        with no_prefixes(clip):
            yield
    finally:
        del clip.text_lengths


def real_search(settings, clip):
    """The demo's search of one name: all layers of both Pareto fronts, steps by the rule.

    Returns:
        (tasks, a function that runs the search, [(layer, forget gradient)]).
    """
    name, how = settings.data.celeb_name[0], settings.run
    found = GradientFiles(clip, settings.data, how.result_dir, settings.model.batch_size).load(name, Variant())
    sets = setup.task_sets(how, settings.data, clip.transform)
    masks = {s.name: validation_mask(s.pictures, how.seed) for s in sets}
    pairs = load_pairs(found.tar, clip.transform, workers=how.workers)
    ranked = layers.figures(clip, found.forget, found.retain)
    front = [r for part in layers.fronts(ranked).values() for r in part]

    def run(make, log_all=False, depth=1):
        evaluation = make(clip, sets, batch_size=settings.model.eval_batch_size)
        limits = {"k": selection.fa_rank(len(sets[0].pictures.names)), "seed": how.seed}
        limits["limit"] = settings.data.select_pictures
        evaluator = ClipEvaluator(evaluation, evaluation.target(name), pairs, masks, **limits)
        plan = Plan(log_all=log_all, schedule=Schedule(lookahead=depth, evaluations=EVALUATIONS))
        searched = slug.over_layers(clip, evaluator, front, found.forget, plan)
        return evaluation, searched.candidates, searched.winner

    return sets, run, [(r.name, found.forget) for r in front]


def many_names(count):
    """`count` different names of two words, about as long as those of people, from the words of ImageNet's classes."""
    from open_clip import IMAGENET_CLASSNAMES

    words = sorted({w for name in IMAGENET_CLASSNAMES for w in name.split() if w.isalpha()})
    pairs = itertools.product(words[:: len(words) // 102], words[1 :: len(words) // 102])
    return [" ".join(pair) for pair in itertools.islice(pairs, count)]


def three_quarters(clip):
    """Attention layers of both encoders in turn, starting with the block at three quarters of the depth."""
    found = {}
    for name, encoder in clip.candidates().items():
        if name.endswith("out_proj.weight"):
            found.setdefault(encoder, []).append(name)
    turned = [c[3 * len(c) // 4 :] + c[: 3 * len(c) // 4] for c in found.values()]
    return [n for pair in zip(*turned, strict=False) for n in pair]


def fixed_search(how, clip, folder, size, *, batch_size, chosen=None):
    """As `real_search`, at a fixed Size, on random pictures, and with every column scored.

    Args:
        how: seed and workers are used.
        chosen: names of the layers; None: those of `three_quarters`.
    """
    from open_clip import IMAGENET_CLASSNAMES

    side = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
    g = torch.Generator().manual_seed(how.seed)
    sets = []
    for names, count in zip((many_names(size.names), IMAGENET_CLASSNAMES[: size.classes]), size.pictures, strict=True):
        paths = [str(folder / f"{len(names)}-{i}.jpg") for i in range(count)]
        for path in paths:
            noise = torch.randint(0, 256, (12, 12, 3), dtype=torch.uint8, generator=g).numpy()
            Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
        images, _ = decode(paths, clip.transform, workers=how.workers)
        labels, seen = torch.arange(count) % len(names), torch.ones(count, dtype=torch.bool)
        sets.append(PictureSet(images, labels, list(names), torch.zeros(len(names)), paths, seen, 0, tuple(paths)))
    pairs = Pairs(sets[0].images[:8], sets[0].names[:8], [str(i) for i in range(8)], 0)
    tasks = [
        TaskSet("identities", "identity", sets[0], zeroshot.IDENTITY_TEMPLATES),
        TaskSet("objects", "object", sets[1], zeroshot.object_templates()),
    ]
    masks = {task.name: torch.ones(n, dtype=torch.bool) for task, n in zip(tasks, size.pictures, strict=True)}
    chosen = (chosen or three_quarters(clip))[: size.layers]
    forget = {n: torch.randn(clip.parameters[n].shape, generator=g) for name in chosen for n in clip.group(name)}

    def run(make, log_all=True, depth=1, only=None):
        evaluation = make(clip, tasks, batch_size=batch_size)
        evaluator = ClipEvaluator(evaluation, evaluation.target(sets[0].names[0]), pairs, masks, seed=how.seed)
        rows = []
        for name, n in itertools.islice(itertools.product(chosen, range(1, size.steps + 1)), only):
            group = clip.group(name)
            first = layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
            rows.append(evaluator.score(Edit.along(clip, name, forget, n * first / 4), log_all=log_all))
        return evaluation, rows, selection.winner(rows)

    return tasks, run, [(name, forget) for name in chosen]


def largest_difference(clip, sets, edits, batch_size):
    """Largest difference of cosines between the fast and the plain way, for one edit of each layer (10% of its norm)."""
    fast, slow = clip_tasks.Evaluation(clip, sets, batch_size=batch_size), reference.PlainEvaluation(clip, sets)
    worst = 0.0
    for name, forget in edits:
        group = clip.group(name)
        first = layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
        found = []
        for evaluation in (fast, slow):
            with evaluation.carrying(Edit.along(clip, name, forget, first)):
                rows = {t: torch.arange(0, len(k.features), 25) for t, k in evaluation.tasks.items()}
                sides = [evaluation.sides(t, r) for t, r in rows.items()]
                found.append([(f @ w.T).cpu() for f, w in sides])
        for a, b, pictures in zip(*found, (s.pictures for s in sets), strict=True):
            labels = pictures.labels[torch.arange(0, len(pictures.labels), 25)]
            rivals = pictures.blocks[None] == pictures.blocks[labels][:, None]
            worst = max(worst, (a - b)[rivals].abs().max().item())
    return worst


def timed(run, kind, device, **how):
    """Run one case one way: {seconds, flops, shared_flops, steps, peak_mem_mb, winner, evaluation}."""
    gc.collect()  # memory that an earlier way kept does not count here
    system.reset_peak_memory(device)
    started = time.perf_counter()
    evaluation, rows, best = run(kind, **how)
    seconds = time.perf_counter() - started
    every = [t for task in evaluation.tasks.values() for t in (task.vision, task.language)]
    return {
        "seconds": seconds,
        "flops": sum(t.floating_operations() for t in every),
        "shared_flops": sum(t.floating_operations(shared=True) for t in every),
        "steps": len(rows),
        "peak_mem_mb": system.peak_memory_mb(device),
        "winner": (best.layer, best.step),
        "evaluation": evaluation,
    }


def compare(settings, clip, case, small):
    """The rows of table.csv for a case: the fast way, the fast way without each of its parts, the plain way.

    Args:
        case: what is timed, (sets, run, edits).
        small: the same, on whose sets the cosines of both ways are compared.
    """
    sets, run, edits = case
    fast, as_it_is = clip_tasks.Evaluation, contextlib.nullcontext
    ways = {  # {way: (evaluation, how it is run, context)}
        "": (fast, {}, as_it_is),
        "without early stop": (fast, {"log_all": True}, as_it_is),
        "without prefix reuse": (functools.partial(fast, cache_gb=0.0), {}, as_it_is),
        "without untouched side": (BothSides, {}, as_it_is),
        "without shared beginnings": (fast, {}, no_prefixes),
        "without short texts": (fast, {}, full_texts),
        "without decode once": (DecodeAgain, {}, as_it_is),
        "with 3 evaluations ahead": (fast, {"depth": 3}, as_it_is),
        "plain": (reference.PlainEvaluation, {"log_all": True}, as_it_is),
    }
    if settings.case != "search":  # only that case times the parts, and all plain steps
        ways = {"": ways[""]}
    if settings.no_plain:
        ways.pop("plain", None)
    found, rates = {}, [matmul_rate(clip.device)]
    for way, (kind, how, context) in ways.items():
        with context(clip) if context is not as_it_is else as_it_is():
            found[way] = timed(run, kind, clip.device, **how)
        if not way:
            rates.append(matmul_rate(clip.device))
        print(f"{way or 'fast'}: {found[way]['seconds']:.1f} s, winner {found[way]['winner']}", flush=True)
        if settings.case == "search":  # the plain steps of the others reuse what was computed on the unedited model
            del found[way]["evaluation"]
    rate = sum(rates) / len(rates)
    if len({f["winner"] for f in found.values()}) > 1:
        raise SlugError(f"the ways do not choose the same step: { {w: f['winner'] for w, f in found.items()} }")
    plain_s = found.pop("plain")["seconds"] if "plain" in found else float("nan")
    all_steps = found[""]["steps"]
    if settings.case != "search" and not settings.no_plain:  # all steps would take too long
        unedited, few = found[""]["evaluation"], PLAIN_STEPS[settings.case]
        plain = reference.PlainEvaluation.__new__(reference.PlainEvaluation)
        plain.__dict__.update(unedited.__dict__)  # the features of the unedited model are taken over
        plain_s = timed(lambda kind: run(kind, only=few), lambda *_, **__: plain, clip.device)["seconds"] / few * all_steps
        print(f"{few} plain step(s) of {all_steps}: {plain_s * few / all_steps:.1f} s; all: {plain_s:.0f} s", flush=True)
    found[""].pop("evaluation", None)
    difference = largest_difference(clip, small[0], small[2], settings.model.eval_batch_size)
    decode_s = decode_once(sets, clip)
    out = []
    for way, f in found.items():
        row = {"case": f"{settings.case} {way}".strip(), **sizes(clip, sets), "plain_s": plain_s, "fast_s": f["seconds"]}
        row |= {"ratio": plain_s / f["seconds"], "max_cos_diff": difference}
        row |= {"limit_share": found[""]["flops"] / rate / f["seconds"], "peak_mem_mb": f["peak_mem_mb"]}
        out.append(row)
    out[0] |= {"shared_floor_s": found[""]["shared_flops"] / rate}
    out[0] |= {"floor_s": found[""]["flops"] / rate, "decode_s": decode_s, "steps": all_steps, "layers": len(edits)}
    print(f"floor {out[0]['floor_s']:.1f} s at {rate / 1e9:.0f} GFLOP/s; decode {decode_s:.1f} s", flush=True)
    return out, rate


def grow(settings, clip, folder):
    """The rows of table.csv for the growth case, which varies one size at a time."""
    sizes_tried = {
        "names": [GROWTH._replace(names=n) for n in NAMES],
        "pictures": [GROWTH._replace(pictures=(n, n)) for n in PICTURES],
        "layers": [GROWTH._replace(layers=n) for n in LAYERS],
    }
    rate, done, out = matmul_rate(clip.device), {}, []
    for what, tried in sizes_tried.items():
        for size in tried:
            if size not in done:
                sets, run, _ = fixed_search(settings.run, clip, folder, size, batch_size=settings.model.eval_batch_size)
                done[size] = sizes(clip, sets), timed(run, clip_tasks.Evaluation, clip.device)
                del done[size][1]["evaluation"]
            common, f = done[size]
            row = {"case": f"growth of {what}", **common, "plain_s": float("nan"), "fast_s": f["seconds"]}
            row |= {"ratio": float("nan"), "max_cos_diff": float("nan"), "limit_share": f["flops"] / rate / f["seconds"]}
            row |= {"peak_mem_mb": f["peak_mem_mb"], "floor_s": f["flops"] / rate, "steps": f["steps"]}
            row |= {"shared_floor_s": f["shared_flops"] / rate}
            out.append(row | {"layers": size.layers})
            print(f"{what}: {size}: {f['seconds']:.1f} s, {f['peak_mem_mb']:.0f} MB", flush=True)
    return out, rate


def gradient_rows(clip, batch_size):
    """The rows of table.csv for the gradient pass over noise with captions, by both losses; the first call warms up."""
    from open_clip import IMAGENET_CLASSNAMES

    count = PAIRS["mini" if sum(p.numel() for p in clip.parameters.values()) < 50e6 else "large"]
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, clip.side, clip.side), dtype=torch.uint8, generator=g)
    captions = [f"a photo of a {name}, taken in the garden on a sunny day" for name in IMAGENET_CLASSNAMES]
    pairs = Pairs(images, [captions[i % len(captions)] for i in range(count)], [str(i) for i in range(count)], 0)
    few = some(pairs, list(range(min(count, 2 * batch_size))))
    with towers.plain_attention(), FlopCounterMode(display=False) as counter:
        gradients.compute(clip, few, losses.cosine_embedding, batch_size=batch_size)
    each, rates, out = counter.get_total_flops() / len(few.captions), [matmul_rate(clip.device)], []
    for what, loss in (("forget", losses.cosine_embedding), ("retain", losses.contrastive)):
        system.reset_peak_memory(clip.device)
        started = time.perf_counter()
        gradients.compute(clip, pairs, loss, batch_size=batch_size)
        seconds = time.perf_counter() - started
        rates.append(matmul_rate(clip.device))
        row = {"case": f"gradient of the {what} loss", "model": clip.label, "device": str(clip.device)}
        row |= {"n_images": count, "n_names": 0, "plain_s": math.nan, "fast_s": seconds, "ratio": math.nan}
        row |= {"max_cos_diff": math.nan, "limit_share": count * each / (sum(rates[-2:]) / 2) / seconds}
        row |= {"peak_mem_mb": system.peak_memory_mb(clip.device), "floor_s": count * each / (sum(rates[-2:]) / 2)}
        print(f"{row['case']}: {seconds:.1f} s for {count} pairs, {row['limit_share']:.0%} of the matmul rate", flush=True)
        out.append(row)
    return out, sum(rates) / len(rates)


def sizes(clip, sets):
    """The columns that describe a case."""
    pictures, names = sum(len(s.pictures.labels) for s in sets), sum(len(s.pictures.names) for s in sets)
    return {"model": clip.label, "device": str(clip.device), "n_images": pictures, "n_names": names}


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    device = system.settle(settings.run.device, settings.run.seed)
    out = files.resolve(settings.out)
    clip = models.from_settings(settings.model, settings.run.precision, device)
    fixed = functools.partial(fixed_search, settings.run, clip, batch_size=settings.model.eval_batch_size)
    with tempfile.TemporaryDirectory() as folder:
        if settings.profile:
            size = PAPER if settings.case == "paper" else FIXED
            case = real_search(settings, clip) if settings.case == "search" else fixed(Path(folder), size)
            path = out / f"{files.safe_name(clip.label)}-{settings.case}-profile.csv"
            rows = pd.DataFrame(profiled(case[1], clip.device))
            files.write_text(path, rows.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
            print(f"{rows.to_string(index=False)}\n-> {path}")
            return
        if settings.case == "gradient":
            rows, rate = gradient_rows(clip, settings.model.batch_size)
        elif settings.case == "growth":
            rows, rate = grow(settings, clip, Path(folder))
        elif settings.case == "search":
            case = real_search(settings, clip)
            rows, rate = compare(settings, clip, case, case)
        else:
            size = PAPER if settings.case == "paper" else FIXED
            case = fixed(Path(folder), size)
            # A cosine depends on one picture and one text, so at the paper's size a small case can tell the differences.
            small = fixed(Path(folder), FIXED) if settings.case == "paper" else case
            rows, rate = compare(settings, clip, case, small)
    write(out, rows, clip.label, settings, rate)
    print(f"-> {out}/table.csv")


def profiled(run, device):
    """[{operator, calls, seconds, share}] of the fast way: the ten operators with the most own time, and the rest."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as found:
        run(clip_tasks.Evaluation)
    own = [(e.self_device_time_total if device.type == "cuda" else e.self_cpu_time_total, e) for e in found.key_averages()]
    own.sort(key=lambda pair: -pair[0])
    total = sum(time for time, _ in own)
    rows = [{"operator": e.key, "calls": e.count, "seconds": t / 1e6, "share": t / total} for t, e in own[:10]]
    rest = sum(t for t, _ in own[10:])
    return [*rows, {"operator": "all others", "calls": "", "seconds": rest / 1e6, "share": rest / total}]


def decode_once(sets, clip):
    """Seconds to decode all pictures with two workers."""
    started = time.perf_counter()
    for task in sets:
        decode(list(task.pictures.paths), clip.transform, workers=reference.WORKERS)
    return time.perf_counter() - started


def write(out, rows, label, settings, rate):
    """Write table.csv, where rows of other models and cases are kept, a JSON of this run, and its chart."""
    path, frame = out / "table.csv", pd.DataFrame(rows)
    if path.is_file():
        old = reading.csv_table(path, ("model", "case"), "take it away, or from the repository again")
        same = (old["model"] == label) & old["case"].str.startswith(settings.case)
        frame = pd.concat([old[~same], frame], ignore_index=True)
    files.write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    if settings.readme:
        markdown.fill_blocks(settings.readme, {"benchmark": reading.report(path, bench.table, "run this again")})
    stem = out / f"{files.safe_name(label)}-{settings.case}"
    record = {"rows": rows, "matmul_flops": rate, "settings": cli.flat(settings), "versions": cli.versions()}
    files.write_json(stem.with_suffix(".json"), record)
    if settings.case != "gradient":
        bench.draw(rows, label, settings.case, stem)


if __name__ == "__main__":
    cli.exit_with(main)
