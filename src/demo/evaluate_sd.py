"""Accuracy of mini-SD and its classifiers against the targets set before their training, and a sheet of samples.

Example: python src/demo/evaluate_sd.py --out results/demo --readme results/demo/uncanvas/README.md
Writes mini-sd.csv (one row for each result:
counts, accuracy, 95% interval) and mini-sd-samples.png to --out. The pipeline makes new pictures of every cell, which
neither choose nor report an edit. Cells that its training left out are counted apart. No choice depends on these results.
"""

from dataclasses import dataclass

import slug.torchvision_cpu  # noqa: F401  (before timm)

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
    """Plot one picture of every cell: styles as rows, objects as columns, a thick frame if training left the cell out."""
    down, across = [emoji.STYLES[style] for style in train_sd.STYLES], train_sd.OBJECTS
    order = [
        o * len(down) + s for s in range(len(down)) for o in range(len(across))
    ]  # a pair of the cells is (object, style)
    title = "mini-SD, one picture a cell\nthick frame: left out of training; \u2717: a classifier disagrees"
    plots.cells(images[order], right[order], cells.left_out[order], (down, across), title, stem)


if __name__ == "__main__":
    cli.exit_with(main)
