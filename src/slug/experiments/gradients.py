"""The gradient stages: what the methods asked for read, for all names of a call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slug import cli, distributed, files, methods, models, system
from slug.artifacts import gradient_files, published
from slug.artifacts.gradient_files import GradientFiles
from slug.artifacts.sample_gradients import SampleGradients
from slug.core import gradients, losses, variants
from slug.core.gradients import BOTH
from slug.core.variants import Variant
from slug.data.names import plain_name
from slug.data.pairs import load_pairs
from slug.errors import SlugError
from slug.schema import SAMPLE_FRONTS, SAMPLES
from slug.settings import GradientStage, Model


def prepared(settings: GradientStage, model: Model, encoder: str = BOTH) -> GradientFiles:
    """The gradient files of the settings, with the model loaded."""
    device = system.settle(settings.run.device, settings.run.seed)
    distributed.start(device)
    files.check_writable(settings.run.result_dir)
    clip = models.from_settings(model, settings.run.precision, device)
    clip.checkpointing = settings.grad_checkpointing
    how: dict[str, Any] = {"encoder": encoder, "flags": cli.values(settings.run, model), "protocol": settings.run.rules}
    return GradientFiles(clip, settings.sources, settings.run.result_dir, model.batch_size, **how)


def run(settings: GradientStage, model: Model, encoder: str = BOTH, checkpoints: Sequence[int] = ()) -> None:
    """Write the gradient files of a CLIP, of the parameters of both towers or of one `encoder`, "vision" or "language".

    `checkpoints`: also gradients of the first so many pairs. SlugError where the plain gradients are not asked for.
    """
    if checkpoints and not {"calc_grad", "slug"} & set(settings.unlearn_method):
        raise SlugError("--checkpoints are of the plain gradients; add calc_grad to --unlearn-method")
    found = prepared(settings, model, encoder)
    wanted: dict[Variant, None] = {}  # a set in order
    for name in settings.unlearn_method:  # of a kind of gradient or of a method
        kinds = [variants.get(name)] if name in variants.BY_NAME else methods.get(name).gradients
        wanted |= dict.fromkeys(kinds)
    for variant in wanted:
        found.write(variant, cli.flat(settings), workers=settings.run.workers, force=settings.force)
    if checkpoints:
        sampled = SampleGradients(found, checkpoints, cli.flat(settings), settings.run.workers)
        for folder in sampled.write(force=settings.force):
            print(f"cosines and Pareto fronts by number of pairs: {folder / SAMPLES}, {folder / SAMPLE_FRONTS}")


def adopt(settings: GradientStage, model: Model, folder: str) -> None:
    """Write gradient files from those of the published code in `folder`, for one name; what they were made from is believed.

    SlugError with several names, or where a file is missing or of another model.
    """
    found = prepared(settings, model)
    if len(found.names) > 1:
        raise SlugError("--published is the folder of ONE name; run the stage once for each name")
    (name,), source, variant = found.names, files.existing(folder, "published gradients", published.REMEDY), Variant()
    paths = {side: published.gradient_file(Path(source), side) for side in ("forget", "train")}
    made = {side: published.gradient(path, found.clip.parameters) for side, path in paths.items()}
    few = load_pairs(found.tar(name), found.clip.transform, limit=found.batch_size)
    here, _ = gradients.compute(
        found.clip, few, losses.cosine_embedding, batch_size=found.batch_size, protocol=found.protocol
    )
    made["forget"], negated = published.ascending(made["forget"], here)
    left_out = [plain_name(name)]
    marks = {
        "forget": found.mark(found.tar(name), losses.cosine_embedding, variant),
        "train": found.mark(found.retain_tar, losses.contrastive, variant, left_out),
    }
    for side, grads in made.items():
        path = found.path(name, side, variant)
        about = {"published": paths[side].name, "negated": negated and side == "forget", "gradient_s": 0.0, "broken": 0}
        about |= {"convention": gradient_files.CONVENTION, "settings": cli.flat(settings), "versions": cli.versions()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a link to the retain gradient that serves other names
        path.with_suffix(".json").unlink(missing_ok=True)
        gradient_files.save(path, grads, {**marks[side], **about})
        sign = " with its sign changed" if about["negated"] else ""
        print(f"{name}: {paths[side]} taken{sign}, as made from this model and these pairs -> {path}")
