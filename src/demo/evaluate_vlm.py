"""Accuracy of mini-LLaVA on new pictures, against the targets set before its training.

Example: python src/demo/evaluate_vlm.py --out results/demo --readme results/demo/vlm/README.md
Writes mini-llava.csv (one row for each kind of question: counts, accuracy, 95% interval, target) to --out. Naming questions
are split into identities and objects, and into drawings that training saw or never saw; they are compared with mini-CLIP's
zero-shot answers to the same pictures. Other kinds are compared with the most frequent answer. No choice depends on these
results.
"""

import functools
import io
from collections import Counter
from dataclasses import dataclass

import slug.torchvision_cpu  # noqa: F401  (before transformers)

import numpy as np
import pandas as pd
import torch
from PIL import Image

from demo import canvases, emoji
from slug import cli, files, system
from slug.cli import flag, group
from slug.evaluation import questions, statistics, zeroshot
from slug.models import vlm
from slug.reports import markdown
from slug.settings import Assistant, Run

KNOWN, BELOW_CLIP, ABOVE_MAJORITY = 0.85, 0.10, 0.20  # the targets
COUNT = 600  # questions of each kind


DEMO = {"vlm": "data/demo/models/mini-llava", "clip_model_id": "data/demo/models/mini-clip-hf", "answer_batch_size": 64}


@dataclass(frozen=True)
class Settings:
    run: Run = group(Run)
    assistant: Assistant = group(Assistant, **DEMO)
    out: str = flag("results/vlm", "folder to write")
    readme: str = flag("", "Markdown file whose mini-llava block is filled")


def ask(model, icons, world, scenes, rng):
    """(uint8 pictures, [Question], [answer]) of Scenes."""
    found, images = [], []
    for part in range(0, len(scenes), 100):
        x = canvases.paint(icons, scenes[part : part + 100], rng)
        images.append((x * 255).round().to(torch.uint8))
    images = torch.cat(images)
    for scene, image in zip(scenes, images, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        name = world[0][world[1][scene.icons[0]].concept].name
        found.append(questions.Question(buffer.getvalue(), scene.question, scene.answer, scene.kind, name))
    return images, found, model.answer(found, desc=scenes[0].kind)


def zero_shot(clip, images, labels, concepts):
    """Fractions of pictures that the CLIP names correctly: among the names of their kind (for objects: of their block), as
    usual here, and among all names, like the assistant."""
    features, own = zeroshot.image_features(clip, images), torch.tensor(labels)
    weights = torch.empty(len(concepts), features.shape[1])
    for kind, templates in (("identity", zeroshot.IDENTITY_TEMPLATES), ("object", zeroshot.object_templates())):
        rows = [i for i, c in enumerate(concepts) if c.kind == kind]
        weights[rows] = zeroshot.classifier(clip, [concepts[i].name for i in rows], templates)
    blocks = torch.tensor([c.block for c in concepts])
    found = (zeroshot.ranks(features, weights, own, part) for part in (blocks, torch.zeros_like(blocks)))
    return [(ranks < 1).float().mean().item() for ranks in found]


def main(argv=None):
    settings = cli.parse(__doc__, Settings, argv)
    device = system.settle(settings.run.device, settings.run.seed)
    model = vlm.from_settings(settings.assistant, settings.run.precision, device)
    world = emoji.concepts(), []
    world[1].extend(emoji.pictures(world[0]))
    icons = emoji.icons(world[0])
    rng = np.random.default_rng([settings.run.seed, 31])
    kind_of = [world[0][p.concept].kind for p in world[1]]
    marker = questions.Marker([questions.Question("", "", c.name, questions.NAMING) for c in world[0]])
    table = []

    def add(what, found, said, bar, beside=""):
        correct, n = sum(marker.right(q, s) for q, s in zip(found, said, strict=True)), len(found)
        low, high = statistics.interval(correct, n)
        row = {"what": what, "accuracy": correct / n, "low": low, "high": high, "correct": correct, "n": n, "bar": bar}
        table.append(row | {"beside": beside})

    for kind in ("identity", "object"):
        for seen in (True, False):
            rows = [i for i, (p, k) in enumerate(zip(world[1], kind_of, strict=True)) if k == kind and p.seen == seen]
            chosen = [rows[i] for i in rng.integers(len(rows), size=COUNT)]
            scenes = [canvases.scene(rng, world, None, kind="who", icon=i) for i in chosen]
            images, found, said = ask(model, icons, world, scenes, rng)
            share, of_all = zero_shot(model.clip, images, [world[1][i].concept for i in chosen], world[0])
            bar = KNOWN if seen else of_all - BELOW_CLIP  # the assistant knows neither kind nor block
            plural = "identities" if kind == "identity" else "objects"
            what = f"naming {plural}, {'new renderings' if seen else 'drawings never seen'}"
            beside = f"mini-CLIP zero-shot among all {len(world[0])} names {of_all:.1%}; among those of a block {share:.1%}"
            add(what, found, said, bar, beside)
    seen = {k: [i for i, p in enumerate(world[1]) if p.seen and kind_of[i] == k] for k in ("identity", "object")}
    for kind in ("style", "colour", "count", "present"):
        scenes = canvases.drawn(functools.partial(canvases.scene, rng, world, seen, kind), COUNT)
        _, found, said = ask(model, icons, world, scenes, rng)
        most, times = Counter(q.answer for q in found).most_common(1)[0]
        add(kind, found, said, times / len(found) + ABOVE_MAJORITY, f"always {most!r} {times / len(found):.1%}")
    frame = pd.DataFrame(table)
    files.write_text(
        files.resolve(settings.out) / "mini-llava.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.4f")
    )
    lines = ["| mini-LLaVA | accuracy (95% interval) | questions | bar | beside |", "|---|---|---|---|---|"]
    for r in table:
        met = "" if r["accuracy"] >= r["bar"] else ", missed"
        share = f"{r['accuracy']:.1%} ({r['low']:.1%} to {r['high']:.1%})"
        lines.append(f"| {r['what']} | {share} | {r['correct']}/{r['n']} | {r['bar']:.1%}{met} | {r['beside']} |")
    print("\n".join(lines))
    if settings.readme:
        markdown.fill_blocks(settings.readme, {"mini-llava": "\n".join(lines)})


if __name__ == "__main__":
    cli.exit_with(main)
