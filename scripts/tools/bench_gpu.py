#!/usr/bin/env python
"""Times search, gradients and evaluation of large CLIPs on a GPU, in float32, TF32 and bfloat16.

Example: bash scripts/tools/bench_gpu.sh                       ViT-B-32, L-14, H-14 at the paper's size, at most 8 minutes
         python scripts/tools/bench_gpu.py --models local-dir:data/models/mini-clip --size tiny --device cpu    a try

Weights are random and pictures noise, so nothing is downloaded. Each precision does the same steps on one layer of each
encoder. `changed` counts the pictures that the unedited model answers otherwise than in float32, `score_diff` is the largest
difference of a score under an edit. With random weights the cosines of all names lie close together, so more answers change
than in a trained model; the stages fall back to float32 wherever one does. When --minutes are over no further part starts;
what was left out is said. Writes gpu.csv to --out.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import benchmark_search as search
import pandas as pd
import torch

from slug import cli, files, models, system
from slug.cli import Amount, flag, group
from slug.errors import SlugError
from slug.evaluation import clip_tasks
from slug.settings import Run

SIZES = {"paper": search.PAPER, "tiny": search.Size(names=7, classes=3, pictures=(6, 5), layers=2, steps=1)}
PRECISIONS = {"fp32": ("highest", None), "tf32": ("high", None), "bf16": ("high", torch.bfloat16)}  # products; autocast


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    models: tuple[str, ...] = flag(("ViT-B-32", "ViT-L-14", "ViT-H-14"), "open_clip architectures, or local-dir:FOLDER")
    precisions: tuple[str, ...] = flag(
        tuple(PRECISIONS), "float32 comes first: it is compared with", choices=tuple(PRECISIONS)
    )
    size: str = flag("paper", "of the evaluation", choices=tuple(SIZES))
    minutes: Amount = flag(8.0, "after these no further part starts")
    out: str = flag("results/bench", "folder to write")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


class AsAsked(clip_tasks.Evaluation):
    """An Evaluation that keeps its autocast even where answers change, so that it can be timed."""

    def _unedited(self, sets, cache_gb):
        if "first" not in self.__dict__:
            self.first = super()._unedited(sets, cache_gb)
        return self.first


def measure(run, device):
    """Run one search: ({seconds, peak_mem_mb, tflops}, {task: answers of the unedited model}, scores of all candidates)."""
    scores = []

    def noted(make):
        evaluation, candidates, best = run(make)
        scores.extend([v for k, v in c.scores.items() if k != "seconds" and v == v] for c in candidates)
        return evaluation, candidates, best

    made = search.timed(noted, AsAsked, device)
    figures = {"seconds": made["seconds"], "peak_mem_mb": made["peak_mem_mb"]}
    figures["tflops"] = made["shared_flops"] / made["seconds"] / 1e12
    return figures, {name: task.guessed for name, task in made["evaluation"].tasks.items()}, scores


def of_model(settings, name, device, over, folder):
    """The rows of gpu.csv for one model; parts that start after `over`() are left out."""
    clip = models.load(name, "" if name.startswith("local-dir:") else "random", device=device)
    size, rows, exact = SIZES[settings.size], [], None
    _, run, _ = search.fixed_search(settings.run, clip, folder, size, batch_size=256)
    common = {"model": clip.label, "device": in_words(device), "n_images": sum(size.pictures)}
    for precision in settings.precisions:
        if over():
            print(f"left out, as the time is over: {clip.label}, {precision}", flush=True)
            continue
        products, clip.autocast = PRECISIONS[precision]
        torch.set_float32_matmul_precision(products)
        rate = search.matmul_rate(device)
        figures, answers, scores = measure(run, device)
        exact = exact or (answers, scores)
        changed = sum(int((answers[t] != exact[0][t]).sum()) for t in answers)
        worst = max(abs(a - b) for one, other in zip(scores, exact[1], strict=True) for a, b in zip(one, other, strict=True))
        row = {"part": "search", "precision": precision, **figures, "matmul_tflops": rate / 1e12}
        rows.append({**common, **row, "changed": changed, "score_diff": worst})
        print(rows[-1], flush=True)
        if clip.autocast is None and over():  # gradients are never taken under autocast
            print(f"left out, as the time is over: {clip.label}, {precision}, gradients", flush=True)
        elif clip.autocast is None:
            for found in search.gradient_rows(clip, 16)[0]:
                row = {"part": found["case"], "precision": precision, "seconds": found["fast_s"]}
                row |= {"peak_mem_mb": found["peak_mem_mb"], "tflops": found["limit_share"] * rate / 1e12}
                rows.append({**common, "n_images": found["n_images"], **row, "matmul_tflops": rate / 1e12})
    torch.set_float32_matmul_precision("highest")
    return rows


def in_words(device):
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    if settings.precisions[0] != "fp32":
        raise SlugError(
            f"--precisions begins with {settings.precisions[0]}; give fp32 first, which the others are compared with"
        )
    device = system.settle(settings.run.device, settings.run.seed)
    started, rows = time.monotonic(), []
    path = files.resolve(settings.out) / "gpu.csv"
    for name in settings.models:
        with tempfile.TemporaryDirectory() as folder:
            rows += of_model(
                settings, name, device, lambda: time.monotonic() - started > 60 * settings.minutes, Path(folder)
            )
        if rows:  # after each model, so that a run that is cut off leaves what was measured
            files.write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n", float_format="%.4g"))
    if not rows:
        raise SlugError(f"nothing was measured within --minutes {settings.minutes:g}; give more")
    print(f"-> {path}")


if __name__ == "__main__":
    cli.exit_with(main)
