"""Zero-shot accuracy on CelebA identities: pictures of the frequent ones among all names, prompt "{name}.".

Example: python src/clip/a0_eval_celeba.py --data-root data/celeba --model ViT-B-32 --pretrained laion400m_e32
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import flag, group
from slug.data.settings import Missing
from slug.settings import Following, Model, Run


@dataclass(frozen=True)
class Settings(Following):
    run: Run = group(Run)
    model: Model = group(Model)
    missing: Missing = group(Missing)
    data_root: str = flag("data/celeba", "folder with img_align_celeba and its lists")


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
    root, lost = files.resolve(settings.data_root), settings.missing.allow_missing
    pictures = evaluation_sets.load_celeba(root, clip.transform, workers=run.workers, allow_missing=lost)
    how = {"batch_size": settings.model.eval_batch_size, "settings": cli.flat(settings)}
    templates = zeroshot.IDENTITY_TEMPLATES
    zeroshot.evaluate_and_report(clip, pictures, templates, out / f"{clip.tag}-celeba.json", **how)


if __name__ == "__main__":
    cli.exit_with(main)
