"""Draw the demo's forget names: before any unlearning, by a seed, from all concepts the model knows (DESIGN.md).

Example: python src/demo/draw_names.py            writes data/emoji/forget_names.txt, committed and not changed after.
A concept is known if at least 70% of its select-half pictures are recognised; it must leave three drawings out.
"""

import numpy as np
import torch

from slug import cli, data, files, models, zeroshot

KNOWN = 0.70
COUNTS = {"identity": 5, "object": 3}


def main():
    parser = cli.parser(__doc__)
    cli.add_model_flags(parser)
    parser.set_defaults(model="local-dir:data/models/mini-clip")
    parser.add_argument("--data-dir", default="data/demo", help="the built world")
    args = parser.parse_args()
    clip = models.from_args(args, cli.settle(args))
    root = files.existing(args.data_dir, "embedded world", "run python src/demo/build_world.py")
    identities = data.load_celeba(root / "celeba", clip.transform, workers=args.workers)
    objects = data.load_imagenet(root / "ImageNet" / "val", clip.transform, workers=args.workers)
    evaluation = zeroshot.Evaluation(clip, identities, objects)
    lines = ["# Drawn by src/demo/draw_names.py before any unlearning; see there."]
    rng = np.random.default_rng(args.seed)
    for (kind, count), (task, pictures) in zip(
        COUNTS.items(), (("identities", identities), ("objects", objects)), strict=True
    ):
        select = data.halves(pictures, args.seed)
        known = []
        for label, name in enumerate(pictures.names):
            mine = pictures.labels == label
            unseen = {g for g, u in zip(pictures.groups, (mine & ~pictures.seen).tolist(), strict=True) if u}
            rows = torch.nonzero(mine & select).flatten()
            if len(unseen) >= 3 and (evaluation.ranks(task, rows, None) < 1).float().mean() >= KNOWN:
                known.append(name)
        drawn = sorted(rng.choice(known, count, replace=False).tolist())
        print(f"{kind}: {count} of {len(known)} known: {', '.join(drawn)}")
        lines += [f"# {kind}: {count} of {len(known)} known at {KNOWN:.0%}, seed {args.seed}"]
        lines += [n.replace(" ", "_") for n in drawn]
    files.write_text(files.ROOT / "data" / "emoji" / "forget_names.txt", "\n".join(lines) + "\n")


if __name__ == "__main__":
    cli.exit_with(main)
