"""Accuracy of mini-SD and its classifiers against the targets set before their training, and a sheet of samples.

Example: python src/demo/evaluate_sd.py --out results/demo --readme results/demo/uncanvas/README.md
Writes mini-sd.csv (one row for each result:
counts, accuracy, 95% interval) and mini-sd-samples.png to --out. The pipeline makes new pictures of every cell, which
neither choose nor report an edit. Cells that its training left out are counted apart. No choice depends on these results.
"""

from dataclasses import dataclass

import slug.torchvision_cpu  # noqa: F401  (before timm)

import matplotlib.pyplot as plt
import pandas as pd
import torch

from demo import emoji, train_sd
from demo.training import generator
from slug import cli, files, system
from slug.cli import flag, group
from slug.evaluation import canvas_classifiers, canvas_prompts, statistics
from slug.models import diffusion
from slug.reports import markdown, plots
from slug.settings import Pipeline, Run

BARS = {"renderings": 0.95, "pictures": 0.85}
SEEDS = 8  # pictures of each cell
FIRST_SEED = 20_000


DEMO = {"pipeline": "data/demo/models/mini-sd", "clip_model_id": "data/demo/models/mini-clip-hf"}
DEMO |= {"denoising_steps": 20, "guidance": 1.0, "generate_batch_size": 32}


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    pipeline: Pipeline = group(Pipeline, **DEMO)
    classifiers: str = flag("data/models/uncanvas", "folder of the style and the object classifier")
    out: str = flag("results/uncanvas", "folder to write")
    readme: str = flag("", "Markdown file whose mini-sd block is filled")


def row_of(what, right, bar):
    """A row of mini-sd.csv: what, accuracy and its interval, counts, target (NaN: none)."""
    correct, n = int(right.sum()), len(right)
    low, high = statistics.interval(correct, n)
    return {"what": what, "accuracy": correct / n, "low": low, "high": high, "correct": correct, "n": n, "bar": bar}


def main(argv=None):
    settings = cli.parse(__doc__, Settings, argv)
    device = system.settle(settings.run.device, settings.run.seed)
    pipeline = diffusion.from_settings(settings.pipeline, settings.run.precision, device)
    classifiers = canvas_classifiers.load_classifiers(settings.classifiers, device)
    cells = train_sd.Cells(settings.run.seed)
    rows = torch.arange(len(cells.pairs)).repeat(SEEDS)  # all cells for one seed, then for the next
    asked = [
        canvas_prompts.Request("test", emoji.STYLES[train_sd.STYLES[s]], train_sd.OBJECTS[o], FIRST_SEED + number)
        for number, (o, s) in enumerate(cells.pairs * SEEDS)
    ]
    images = cells.render(rows, generator(settings.run.seed, 8, 0)) / 2 + 0.5
    images = (images * 255).round().to(torch.uint8)
    right = canvas_classifiers.correct(asked, classifiers.logits(images), classifiers.labels)
    table = [row_of(f"{kind} classifier, new renderings", right[kind], BARS["renderings"]) for kind in canvas_prompts.KINDS]
    made = pipeline.generate([r.prompt for r in asked], [r.seed for r in asked], desc="pictures")
    right = canvas_classifiers.correct(asked, classifiers.logits(made), classifiers.labels)
    both, left_out = right["style"] & right["object"], cells.left_out[rows]
    for kind, found in (*right.items(), ("both", both)):
        who = f"the {kind} classifier agrees" if kind in right else "both classifiers agree"
        table.append(row_of(f"generated pictures of trained cells, {who}", found[~left_out], BARS["pictures"]))
    table.append(row_of("generated pictures of left-out cells, both classifiers agree", both[left_out], float("nan")))
    table.append(row_of("generated pictures of all cells, both classifiers agree", both, float("nan")))
    plain = list(train_sd.OBJECTS) * SEEDS
    names = [canvas_prompts.Request("test", "", o, FIRST_SEED + number) for number, o in enumerate(plain)]
    made_plain = pipeline.generate([r.prompt for r in names], [r.seed for r in names], desc="plain names")
    found = canvas_classifiers.correct(names, classifiers.logits(made_plain), classifiers.labels)["object"]
    table.append(row_of("generated pictures of plain names, object agrees", found, float("nan")))
    out = files.resolve(settings.out)
    frame = pd.DataFrame(table)
    files.write_text(out / "mini-sd.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    sheet(made[: len(cells.pairs)], both[: len(cells.pairs)], cells, out / "mini-sd-samples")
    lines = ["| mini-SD | share (95% interval) | pictures | bar |", "|---|---|---|---|"]
    for r in table:
        bar = "" if r["bar"] != r["bar"] else f"{r['bar']:.0%}{'' if r['accuracy'] >= r['bar'] else ', missed'}"
        share = f"{r['accuracy']:.1%} ({r['low']:.1%} to {r['high']:.1%})"
        lines.append(f"| {r['what']} | {share} | {r['correct']}/{r['n']} | {bar} |")
    print("\n".join(lines))
    if settings.readme:
        markdown.fill_blocks(settings.readme, {"mini-sd": "\n".join(lines)})


def sheet(images, right, cells, stem):
    """Plot one picture of every cell: objects as columns, styles as rows, a thick frame if training left the cell out."""
    across, down = len(train_sd.OBJECTS), len(train_sd.STYLES)
    figure, panels = plt.subplots(down, across, figsize=(0.8 * across, 0.95 * down + 0.5), layout="constrained")
    for i, (o, s) in enumerate(cells.pairs):
        panel = panels[s, o]
        panel.imshow(images[i].permute(1, 2, 0).numpy())
        panel.set(xticks=[], yticks=[])
        panel.grid(False)
        for side in panel.spines.values():
            side.set(color="k" if cells.left_out[i] else "0.8", linewidth=1.8 if cells.left_out[i] else 0.5)
        if not right[i]:
            panel.set_xlabel("\u2717", fontsize=7, labelpad=1)
        if s == 0:
            panel.set_title(train_sd.OBJECTS[o], fontsize=7)
        if o == 0:
            panel.set_ylabel(emoji.STYLES[train_sd.STYLES[s]], fontsize=7)
    figure.suptitle(
        "mini-SD, one picture a cell; thick frame: left out of training; \u2717: a classifier disagrees", fontsize=9
    )
    plots.save(figure, stem)


if __name__ == "__main__":
    cli.exit_with(main)
