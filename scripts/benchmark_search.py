#!/usr/bin/env python
"""The search, plain against fast, on the same data and model in one run; each part of the fast way switched off by itself.

Example: python scripts/benchmark_search.py                 mini-CLIP on the embedded world (run_demo.sh made it): minutes
         python scripts/benchmark_search.py --case fixed --model ViT-B-32 --pretrained random      a fixed schedule: longer

Writes table.csv (DESIGN.md), search.json and search.png to --out. Times are wall-clock: compare ratios, from one run.
`limit_share` is the FLOP floor over the fast time: the floating-point operations of the evaluations made, suffixes only, at
the rate of a large matrix product measured in the same run.
"""

import contextlib
import functools
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from PIL import Image

from slug import cli, data, files, gradients, layers, models, plain, plots, search, unlearn, zeroshot
from slug.errors import SlugError

NAMES, CLASSES, PICTURES = 500, 50, 100  # of the fixed case
STEPS = 10


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    parser.set_defaults(model="local-dir:data/models/mini-clip", tar_dir="data/demo/tar_files", celeb_name=["ribbon"])
    parser.set_defaults(train_data="data/demo/laion/laion400m/00000.tar", val_data="data/demo/celeba")
    parser.set_defaults(imagenet_val="data/demo/ImageNet/val")
    next(a for a in parser._actions if a.dest == "celeb_name").required = False
    parser.add_argument("--case", choices=("search", "fixed"), default="search", help="fixed: random pictures, ten steps")
    parser.add_argument("--out", default="results/bench", help="folder to write")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain way out")
    return parser.parse_args(argv)


def matmul_rate(device, size=2048, seconds=1.0):
    """Floating-point operations a second of a large float32 matrix product."""
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


class BothSides(zeroshot.Evaluation):
    """Computes the side an edit leaves alone as well."""

    def sides(self, task, rows, edited):
        return super().sides(task, rows, edited and zeroshot.BOTH)


class DecodeAgain(zeroshot.Evaluation):
    """Opens and decodes every picture whenever it is looked at."""

    def sides(self, task, rows, edited):
        pictures = self.tasks[task].pictures
        data.decode([pictures.paths[i] for i in rows.tolist()], self.clip.transform, workers=plain.WORKERS)
        return super().sides(task, rows, edited)


class FullTexts:
    """A view of a Clip that never cuts a text."""

    def __init__(self, clip):
        self.clip = clip

    def __enter__(self):
        self.clip.text_lengths = lambda tokens: torch.full((len(tokens),), tokens.shape[1])
        return self.clip

    def __exit__(self, *_):
        del self.clip.text_lengths


def real_search(args, clip):
    """(pictures, make a run) of the demo's search of one name: all layers of both fronts, steps by the rule."""
    name = args.celeb_name[0]
    identity = gradients.model_hash(clip)
    forget, retain, tar, _ = gradients.load_both(args, clip, name, identity, "calc_grad", args.batch_size)
    identities, objects, half = data.load_evaluation(args, clip.transform)
    pairs = data.load_pairs(tar, clip.transform, workers=args.workers)
    front = [r for part in layers.fronts(layers.figures(clip, forget, retain)).values() for r in part]

    def run(make, log_all=False):
        evaluation = make(clip, identities, objects, batch_size=args.eval_batch_size)
        k = search.fa_rank(len(identities.names))
        judge = unlearn.Judge(
            clip, evaluation, evaluation.target(name), pairs, half, k=k, seed=args.seed, limit=args.select_pictures
        )
        curves, best = unlearn.search_all(clip, judge, front, forget, log_all=log_all)
        return evaluation, [s for steps in curves.values() for s in steps], best

    return (identities, objects), run, [(r.name, forget) for r in front]


def fixed_search(args, clip, folder):
    """As `real_search`, at a fixed size on random pictures: ten steps of one layer of each encoder, every column scored."""
    from open_clip import IMAGENET_CLASSNAMES

    size = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
    g = torch.Generator().manual_seed(args.seed)
    sets = []
    for names in (IMAGENET_CLASSNAMES[:NAMES], IMAGENET_CLASSNAMES[-CLASSES:]):
        paths = [str(folder / f"{len(names)}-{i}.jpg") for i in range(PICTURES)]
        for path in paths:
            noise = torch.randint(0, 256, (12, 12, 3), dtype=torch.uint8, generator=g).numpy()
            Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)
        images, _ = data.decode(paths, clip.transform, workers=args.workers)
        labels, seen = torch.arange(PICTURES) % len(names), torch.ones(PICTURES, dtype=torch.bool)
        sets.append(data.PictureSet(images, labels, list(names), torch.zeros(len(names)), paths, seen, 0, tuple(paths)))
    half = {t: torch.ones(PICTURES, dtype=torch.bool) for t in ("identities", "objects")}
    pairs = data.Pairs(sets[0].images[:8], sets[0].names[:8], [str(i) for i in range(8)], 0)
    chosen = {}
    for name, encoder in clip.candidates().items():
        if name.endswith("out_proj.weight"):
            chosen.setdefault(encoder, []).append(name)
    chosen = [names[3 * len(names) // 4] for names in chosen.values()]
    forget = {n: torch.randn(clip.parameters[n].shape, generator=g) for name in chosen for n in clip.group(name)}

    def run(make, log_all=False):
        evaluation = make(clip, *sets, batch_size=args.eval_batch_size)
        judge = unlearn.Judge(clip, evaluation, evaluation.target(sets[0].names[0]), pairs, half, seed=args.seed)
        rows = []
        for name in chosen:
            group = clip.group(name)
            first = layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
            for n in range(1, STEPS + 1):
                with evaluation.applied(unlearn.edit_of(clip, name, forget, n * first / 4)):
                    rows.append(judge.step(name, n * first / 4, name, log_all=True))
        return evaluation, rows, search.winner(rows)

    return tuple(sets), run, [(name, forget) for name in chosen]


def largest_difference(clip, sets, edits, batch_size):
    """Largest difference of cosines between the fast and the plain way, over one edit of each layer (10% of its norm)."""
    fast, slow = zeroshot.Evaluation(clip, *sets, batch_size=batch_size), plain.PlainEvaluation(clip, *sets)
    worst = 0.0
    for name, forget in edits:
        group = clip.group(name)
        first = layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
        found = []
        for evaluation in (fast, slow):
            with evaluation.applied(unlearn.edit_of(clip, name, forget, first)), evaluation.same_weights():
                rows = {t: torch.arange(0, len(k.features), 25) for t, k in evaluation.tasks.items()}
                sides = [evaluation.sides(t, r, name) for t, r in rows.items()]
                found.append([(f @ w.T).cpu() for f, w in sides])
        for a, b, pictures in zip(*found, sets, strict=True):
            labels = pictures.labels[torch.arange(0, len(pictures.labels), 25)]
            rivals = pictures.blocks[None] == pictures.blocks[labels][:, None]
            worst = max(worst, (a - b)[rivals].abs().max().item())
    return worst


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    out = files.resolve(args.out)
    clip = models.from_args(args, device)
    with tempfile.TemporaryDirectory() as folder:
        make = real_search(args, clip) if args.case == "search" else fixed_search(args, clip, Path(folder))
        sets, run, edits = make
        rate = matmul_rate(device)
        ways = {  # what is left out: (evaluation, every column scored, full texts)
            "": (zeroshot.Evaluation, False, False),
            "early stop": (zeroshot.Evaluation, True, False),
            "prefix reuse": (functools.partial(zeroshot.Evaluation, cache_gb=0.0), False, False),
            "untouched side": (BothSides, False, False),
            "short texts": (zeroshot.Evaluation, False, True),
            "decode once": (DecodeAgain, False, False),
            "all (plain)": (plain.PlainEvaluation, True, False),
        }
        if args.no_plain:
            del ways["all (plain)"]
        if args.case == "fixed":
            del ways["early stop"]  # the fixed schedule scores every column
        seconds, winners, floor, steps = {}, {}, 0.0, 0
        for left_out, (kind, log_all, full) in ways.items():
            view = FullTexts(clip) if full else contextlib.nullcontext()
            unlearn.reset_peak_memory(device)
            started = time.perf_counter()
            with view:
                evaluation, rows, best = run(kind, log_all)
            seconds[left_out] = time.perf_counter() - started
            winners[left_out] = (best.layer, best.step)
            if not left_out:
                towers = [t for task in evaluation.tasks.values() for t in (task.vision, task.language)]
                floor = sum(t.floating_operations() for t in towers) / rate
                steps, peak = len(rows), unlearn.peak_memory_mb(device)
            print(
                f"without {left_out or 'nothing'}: {seconds[left_out]:.1f} s, winner {best.layer} {best.step:.4g}",
                flush=True,
            )
            del evaluation
        if len(set(winners.values())) > 1:
            raise SlugError(f"the ways do not choose the same step: {winners}")
        difference = largest_difference(clip, sets, edits, args.eval_batch_size)
        decode_s = decode_once(sets, clip)
    plain_s = seconds.get("all (plain)", float("nan"))
    common = {
        "model": clip.label,
        "device": str(device),
        "n_images": sum(len(s.labels) for s in sets),
        "n_names": sum(len(s.names) for s in sets),
        "plain_s": plain_s,
    }
    more = {"floor_s": floor, "decode_s": decode_s, "steps": steps, "layers": len(edits), "peak_mem_mb": peak}
    rows = []
    for left_out, s in seconds.items():
        if left_out != "all (plain)":
            row = {"case": args.case + (f" without {left_out}" if left_out else ""), **common, "fast_s": s}
            row |= {"ratio": plain_s / s, "max_cos_diff": difference, "limit_share": floor / s}
            rows.append(row | (more if not left_out else {}))
    write(out, rows, clip.label, args, rate)
    print(f"floor {floor:.1f} s at {rate / 1e9:.0f} GFLOP/s; fast {seconds['']:.1f} s; decode {decode_s:.1f} s -> {out}")


def decode_once(sets, clip):
    """Seconds that decoding all pictures takes, two workers."""
    started = time.perf_counter()
    for pictures in sets:
        data.decode(list(pictures.paths), clip.transform, workers=plain.WORKERS)
    return time.perf_counter() - started


def write(out, rows, label, args, rate):
    """table.csv with the rows of other models and cases kept, a JSON of this run, and its chart."""
    path, frame = out / "table.csv", pd.DataFrame(rows)
    if path.is_file():
        old = pd.read_csv(path)
        same = (old["model"] == label) & old["case"].str.startswith(args.case)
        frame = pd.concat([old[~same], frame], ignore_index=True)
    files.write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    stem = out / f"{files.safe_name(label)}-{args.case}"
    record = {"rows": rows, "matmul_flops": rate, "settings": cli.settings(args), "versions": cli.versions()}
    files.write_json(stem.with_suffix(".json"), record)
    times = {r["case"].removeprefix(args.case).strip() or "fast": r["fast_s"] for r in rows}
    times |= {"plain": rows[0]["plain_s"]} if rows[0]["plain_s"] == rows[0]["plain_s"] else {}
    plots.bars(times, "seconds", f"{label}: search, {rows[0]['n_images']} pictures, {rows[0]['n_names']} names", stem)


if __name__ == "__main__":
    cli.exit_with(main)
