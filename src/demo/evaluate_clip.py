"""Zero-shot accuracy of mini-CLIP on the embedded world, against the targets set before its training.

Example: python src/demo/evaluate_clip.py --out results/demo --readme results/demo/README.md
Writes mini-clip.csv (one row for each task:
counts, accuracy, 95% interval) and prints it. No choice depends on these results.
"""

import csv
import io
from dataclasses import dataclass

import torch

from demo import emoji
from slug import cli, files, models, system
from slug.cli import flag, group
from slug.data import evaluation_sets
from slug.data.images import decode
from slug.data.names import plain_name
from slug.evaluation import statistics, zeroshot
from slug.reports import markdown
from slug.settings import Following, Model, Run

BARS = {  # {task: accuracy to reach, set before training}
    "identities, new renderings": 0.95,
    "objects of 300, new renderings": 0.95,
    "identities, drawings never seen": 0.70,
    "objects of 300, drawings never seen": 0.60,
    "styles, new renderings": 0.85,
}


def style_pictures(root, clip, workers):
    """(pictures, style labels, styles) of the UnlearnCanvas folder: new renderings of drawings that training saw."""
    styles = sorted(p.name for p in root.iterdir() if p.is_dir())
    paths = [(p, i) for i, s in enumerate(styles) for p in sorted((root / s).glob("*/*.jpg"))]
    images, kept = decode([str(p) for p, _ in paths], clip.transform, workers=workers, desc="decode styles")
    return images, torch.tensor([paths[i][1] for i in kept.tolist()]), [plain_name(s) for s in styles]


def rows(clip, root, workers):
    """[(task, ranks (N,), number of drawings or None)] for every task."""
    out = []
    for task, pictures, templates in (
        (
            "identities",
            evaluation_sets.load_celeba(root / "celeba", clip.transform, workers=workers),
            zeroshot.IDENTITY_TEMPLATES,
        ),
        (
            "objects",
            evaluation_sets.load_imagenet(root / "ImageNet" / "val", clip.transform, workers=workers),
            zeroshot.object_templates(),
        ),
    ):
        features = zeroshot.image_features(clip, pictures.images)
        weights = zeroshot.classifier(clip, pictures.names, templates)
        rank = zeroshot.ranks(features, weights, pictures.labels, pictures.blocks)
        # The target is for a whole block of 300 objects; the last block is smaller and left out here.
        of_bar = pictures.blocks[pictures.labels] == 0
        label = task if task == "identities" else f"objects of {emoji.BLOCK}"
        for kind, mask in (("new renderings", pictures.seen), ("drawings never seen", ~pictures.seen)):
            mask = mask & of_bar
            drawings = {g for g, m in zip(pictures.groups, mask.tolist(), strict=True) if m}
            out.append((f"{label}, {kind}", rank[mask], len(drawings)))
    images, labels, styles = style_pictures(root / "UnlearnCanvas" / "data", clip, workers)
    weights = zeroshot.classifier(clip, styles, (emoji.STYLE_PROMPT.replace("{style}", "{}"),))
    features = zeroshot.image_features(clip, images)
    rank = zeroshot.ranks(features, weights, labels, torch.zeros(len(styles), dtype=torch.long))
    return [*out, ("styles, new renderings", rank, None)]


@dataclass(frozen=True)
class Settings(Following):
    run: Run = group(Run)
    model: Model = group(Model, model="local-dir:data/models/mini-clip")
    data_dir: str = flag("data/demo", "folder of the embedded world")
    out: str = flag("results/clip", "folder of mini-clip.csv")
    readme: str = flag("", "Markdown file whose mini-clip block is filled")


def main():
    settings = cli.parse(__doc__, Settings)
    device = system.settle(settings.run.device, settings.run.seed)
    clip = models.from_settings(settings.model, settings.run.precision, device)
    root = files.existing(settings.data_dir, "embedded world", "run python src/demo/build_world.py")
    table = io.StringIO()
    out = csv.writer(table, lineterminator="\n")
    out.writerow(["task", "acc1", "low", "high", "correct", "pictures", "drawings", "bar"])
    lines = ["| zero-shot top-1 | accuracy (95% interval) | pictures | drawings | bar |", "|---|---|---|---|---|"]
    for task, rank, drawings in rows(clip, root, settings.run.workers):
        correct, n = int((rank < 1).sum()), len(rank)
        low, high = statistics.interval(correct, n)
        bar = BARS[task]
        out.writerow([task, f"{correct / n:.4f}", f"{low:.4f}", f"{high:.4f}", correct, n, drawings or "", bar])
        met = "" if correct / n >= bar else ", missed"
        lines.append(
            f"| {task} | {correct / n:.1%} ({low:.1%} to {high:.1%}) | {correct}/{n} | {drawings or ''} | {bar:.0%}{met} |"
        )
    files.write_text(files.resolve(settings.out) / "mini-clip.csv", table.getvalue())
    print("\n".join(lines))
    if settings.readme:
        markdown.fill_blocks(settings.readme, {"mini-clip": "\n".join(lines)})


if __name__ == "__main__":
    cli.exit_with(main)
