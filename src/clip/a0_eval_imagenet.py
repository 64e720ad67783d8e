"""Zero-shot accuracy on an ImageNet-style validation folder, with seven simple templates.

Example: python src/clip/a0_eval_imagenet.py --imagenet-val data/ImageNet/val --model ViT-B-32 --pretrained laion400m_e32
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Share, flag, group
from slug.data.settings import Missing
from slug.settings import Following, Model, Run


@dataclass(frozen=True)
class Settings(Following):
    run: Run = group(Run)
    model: Model = group(Model)
    missing: Missing = group(Missing)
    imagenet_val: str = flag("data/ImageNet/val", "folder with one subfolder for each class")
    imagenet_share: Share = flag(help="fraction of its pictures, drawn by --seed", by="objects_share")


def parse_args(argv: Sequence[str] | None = None) -> Settings:
    return cli.parse(__doc__, Settings, argv)


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse_args(argv)
    from slug import models, system
    from slug.data import evaluation_sets
    from slug.evaluation import zeroshot

    run = settings.run
    device = system.settle(run.device, run.seed)
    out = files.check_writable(run.result_dir) / "clip"
    clip = models.from_settings(settings.model, run.precision, device)
    val, share = files.resolve(settings.imagenet_val), settings.imagenet_share
    given = {"workers": run.workers, "share": share, "seed": run.seed, "allow_missing": settings.missing.allow_missing}
    pictures = evaluation_sets.load_imagenet(val, clip.transform, **given)
    how = {"batch_size": settings.model.eval_batch_size, "settings": cli.flat(settings)}
    templates = zeroshot.object_templates()
    zeroshot.evaluate_and_report(clip, pictures, templates, out / f"{clip.tag}-imagenet.json", **how)


if __name__ == "__main__":
    cli.exit_with(main)
