"""The gradient stages: what the methods asked for read, for all names of a call."""

from typing import Any

from slug import cli, distributed, files, methods, models, system
from slug.artifacts.gradient_files import GradientFiles
from slug.core import variants
from slug.core.gradients import BOTH
from slug.core.variants import Variant
from slug.settings import GradientStage, Model


def run(settings: GradientStage, model: Model, encoder: str = BOTH) -> None:
    """Write the gradient files of a CLIP, of the parameters of both towers or of one `encoder`, "vision" or "language"."""
    device = system.settle(settings.run.device, settings.run.seed)
    distributed.start(device)
    files.check_writable(settings.run.result_dir)
    clip = models.from_settings(model, settings.run.precision, device)
    clip.checkpointing = settings.grad_checkpointing
    how: dict[str, Any] = {"encoder": encoder, "flags": cli.values(settings.run, model), "protocol": settings.run.rules}
    found = GradientFiles(clip, settings.sources, settings.run.result_dir, model.batch_size, **how)
    wanted: dict[Variant, None] = {}  # a set in order
    for name in settings.unlearn_method:  # of a kind of gradient or of a method
        kinds = [variants.get(name)] if name in variants.BY_NAME else methods.get(name).gradients
        wanted |= dict.fromkeys(kinds)
    for variant in wanted:
        found.write(variant, cli.flat(settings), workers=settings.run.workers, force=settings.force)
