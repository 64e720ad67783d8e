"""The gradient stages: what the methods asked for read, for all names of a call."""

from slug import cli, distributed, files, methods, models, system
from slug.artifacts.gradient_files import GradientFiles
from slug.core import variants
from slug.core.gradients import BOTH
from slug.core.variants import Variant
from slug.settings import GradientStage, Model


def kinds(names: tuple[str, ...]) -> list[Variant]:
    """The gradients that methods read, by the methods' names or by those of the gradients, each once."""
    found: list[Variant] = []
    for name in names:
        found += [variants.get(name)] if name in variants.BY_NAME else methods.get(name).gradients
    return list(dict.fromkeys(found))


def run(settings: GradientStage, model: Model, encoder: str = BOTH) -> None:
    """Write the gradient files of a CLIP.

    Args:
        encoder: "vision" or "language" for the parameters of that tower only.
    """
    device = system.settle(settings.run.device, settings.run.seed)
    distributed.start(device)
    files.check_writable(settings.run.result_dir)
    clip = models.from_settings(model, settings.run.precision, device)
    clip.checkpointing = settings.grad_checkpointing
    found = GradientFiles(clip, settings.sources, settings.run.result_dir, model.batch_size, encoder=encoder)
    for variant in kinds(settings.unlearn_method):
        found.write(variant, cli.flat(settings), workers=settings.run.workers, force=settings.force)
