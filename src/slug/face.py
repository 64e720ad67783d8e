"""The Python face of this package: load a model, forget something by pictures of it, keep the edit, apply and revert it.

Every path is a string, or a path object, and a relative one starts at the working directory. Failures that a user can do
something about are slug.errors.SlugError, with one line that says what.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

import torch

from slug import edits, files, models, system
from slug.artifacts import deltas, export
from slug.core import variants
from slug.data.names import plain_name
from slug.edits import Edit
from slug.errors import SlugError
from slug.experiments.forgetting import Wanted, forget_each
from slug.models import in_memory
from slug.models.clip import Clip
from slug.models.host import HostModel
from slug.settings import MAX_FORGET, SIGMAS

__all__ = ["Edit", "apply", "forget", "load", "load_edit", "load_pipeline", "load_vlm", "revert", "seal"]

Path_ = str | os.PathLike
HOSTS = {"diffusers": "slug.load_pipeline", "llava": "slug.load_vlm"}


def here(given: Any) -> Any:
    """A path, or each path of a sequence, from the working directory on; whatever else it is stays."""
    if isinstance(given, str | os.PathLike):
        return str(Path(given).expanduser().absolute())
    if isinstance(given, Sequence):
        return [here(one) for one in given]
    return given


def load(
    model: Any,
    pretrained: str = "",
    *,
    device: str = "auto",
    precision: str = "fp32",
    tokenizer: Any = None,
    preprocess: Any = None,
) -> Clip:
    """Load a CLIP in float32, or take one that is in memory.

    Args:
        model: an open_clip architecture with `pretrained`, a Hugging Face id, a folder of either library, or a module of
            either that is in memory.
        pretrained: open_clip's tag, or a file of weights; "random" for untrained weights.
        device: cpu, cuda, cuda:1, ...; auto takes CUDA where there is one. A module in memory stays where it is on auto.
        precision: autocast of evaluations where no answer changes: fp32, bf16 or fp16.
        tokenizer, preprocess: of a module in memory, where it does not say them itself.
    Returns:
        What `forget` takes; `classify` says what pictures show.
    Raises:
        SlugError: unknown name, missing folder, a family that is not known, damaged weights.

    >>> model = slug.load("data/models/mini-clip")
    >>> model.classify([picture], ["lion", "tiger", "owl"], top=1)[0][0][0]
    'lion'
    """
    if isinstance(model, Clip):
        return model
    if isinstance(model, torch.nn.Module):
        clip = in_memory.wrap(model, tokenizer=tokenizer, preprocess=preprocess)
        if device != "auto":
            clip.module.to(system.settle(device, 0))
        return clip
    if not isinstance(model, str | os.PathLike):
        raise SlugError(
            f"{type(model).__name__} is not a model: give a name, a folder, or a module of open_clip or transformers"
        )
    name = str(model)
    how: dict[str, Any] = {"device": system.settle(device, 0), "precision": precision}
    folder = Path(name.removeprefix(models.LOCAL)).expanduser().absolute()
    if folder.is_dir():
        clip = (
            models.load(f"{models.LOCAL}{folder}", **how)
            if _is_open_clip(folder)
            else models.load("", "", str(folder), **how)
        )
        clip.origin = str(folder)
        return clip
    if pretrained:
        weights = Path(pretrained).expanduser().absolute()
        return models.load(name, str(weights) if weights.is_file() else pretrained, **how)
    if "/" in name:
        return models.load("", "", name, **how)
    return models.load(name, **how)


def load_pipeline(
    pipeline: str,
    clip: str = "openai/clip-vit-large-patch14",
    clip_2: str = "",
    *,
    device: str = "auto",
    steps: int = 50,
    guidance: float = 7.5,
) -> HostModel:
    """Load a Stable Diffusion pipeline whose text tower `forget` edits, with the CLIP of that tower for the gradients.

    SDXL has two text encoders, each the tower of a CLIP of its own: one edit of it changes both.

    Args:
        pipeline, clip: folders, or ids of the Hugging Face Hub; the default CLIP is that of Stable Diffusion 1, and of
            SDXL's first text encoder.
        clip_2: of SDXL's second text encoder, and needed for SDXL: laion/CLIP-ViT-bigG-14-laion2B-39B-b160k.
        steps, guidance: denoising steps and classifier-free guidance scale of its `generate`.
    Raises:
        SlugError: one cannot be loaded, a CLIP is another one, or there is not one for each text encoder.

    >>> slug.load_pipeline("nowhere", "data/models/mini-clip")
    Traceback (most recent call last):
    slug.errors.SlugError: cannot load the pipeline nowhere: ...
    """
    from slug.models import diffusion, sdxl

    how: dict[str, Any] = {"device": system.settle(device, 0), "steps": steps, "guidance": guidance}
    kind = sdxl if clip_2 else diffusion
    return kind.load(_folder_or_id(pipeline), *(_folder_or_id(c) for c in (clip, clip_2) if c), **how)


def load_vlm(vlm: str, clip: str = "openai/clip-vit-large-patch14-336", *, device: str = "auto") -> HostModel:
    """Load a LLaVA whose vision tower `forget` edits, with the CLIP of that tower for the gradients.

    Args:
        vlm, clip: folders, or ids of the Hugging Face Hub; the default CLIP is that of LLaVA 1.5.
    Raises:
        SlugError: one cannot be loaded, or the CLIP is another one.

    >>> slug.load_vlm("nowhere", "data/models/mini-clip")
    Traceback (most recent call last):
    slug.errors.SlugError: ...mini-clip has no preprocessor_config.json...
    """
    from slug.models import vlm as assistants

    return assistants.load(_folder_or_id(vlm), _folder_or_id(clip), device=system.settle(device, 0))


def _folder_or_id(given: str) -> str:
    """The absolute path of a folder that is there; an id stays as it is."""
    return here(given) if Path(here(given)).is_dir() else given


def _is_open_clip(folder: Path) -> bool:
    """Whether a model folder is of open_clip; else it is of transformers. SlugError where it is neither, or no CLIP."""
    if (folder / "open_clip_config.json").is_file():
        return True
    kind = "diffusers" if (folder / "model_index.json").is_file() else ""
    if not kind and not (folder / "config.json").is_file():
        raise SlugError(f"{folder} is not a model folder: it has neither open_clip_config.json nor config.json")
    kind = kind or str(files.read_json(folder / "config.json").get("model_type"))
    if kind in HOSTS:
        raise SlugError(f"{folder} is not a CLIP but a model that contains one; load it with {HOSTS[kind]}")
    return False


def forget(
    model: Any,
    name: str | Mapping[str, Any],
    images: Any = None,
    retain: Any = None,
    *,
    classes: Path_ | Sequence[str] | None = None,
    evaluate: Mapping[str, Path_] | None = None,
    method: str = "",
    variant: str = "",
    evaluations: int = 10,
    fronts: int = 1,
    seed: int = 0,
    device: str = "",
    batch_size: int = 16,
    eval_batch_size: int = 256,
    epochs: int = 10,
    workers: int = 0,
    max_forget: float = MAX_FORGET,
    sigmas: float = SIGMAS,
    say: Any = None,
) -> Any:
    """Find the edit that makes a model forget something that pictures show. The model itself is as before afterwards.

    The pictures of the name and the retain pairs are split by source image: some give the gradients, others choose the
    edit, others report it. Pictures that nearly repeat each other stay in one part.

    Args:
        model: what `load`, `load_pipeline` and `load_vlm` return, or what `load` takes.
        name: what is forgotten; or {name: pictures} for several, each of which gets an edit of its own.
        images: pictures of it, ten source images at least: a folder (a .txt beside a picture is its caption), a tar of
            pairs, a CSV with a column image, or a list of paths or PIL pictures.
        retain: pairs of other things, which must not change: a tar of pairs, several, a folder of pictures with captions, a
            CSV with the columns image and caption.
        classes: names that the forgotten one competes with, or a text file with one in each line. By default ImageNet's
            1,000 names and the proper names of the retain captions.
        evaluate: {name: path} of labelled sets that retention is measured on as well: a CelebA folder, an ImageNet folder,
            a folder with a folder for each class, a CSV with the columns image and label, CLIP_benchmark's webdatasets.
        method: of the registry, see the command `slug methods`; by default slug, for several names slug_ws.
        variant: of SLUG: "o" (contrastive loss), "w" (preconditioned), "ws" (preconditioned, sparing the other names).
        evaluations, fronts: steps evaluated on each layer at most, and Pareto fronts searched.
        seed: of the splits.
        device: moves the model there first; by default it stays where it is.
        batch_size, eval_batch_size: of the gradient passes and of evaluations.
        epochs: of a baseline that trains.
        workers: processes that decode pictures.
        max_forget, sigmas: a name counts as forgotten where this share of its pictures at most is recognised and margins
            lie so many standard deviations below 0.
        say: takes each line of what to know; by default it is printed.
    Returns:
        The Edit; of several names {name: Edit}.
    Raises:
        SlugError: too few pictures, no retain set, one that is full of what is forgotten, an unknown method.

    >>> edit = slug.forget(model, "Lion", images=lions, retain=retain, evaluations=4, say=print)
    >>> edit.name, edit.record["splits"]["test"]["slug"]["forget_acc1"]
    ('Lion', 0.0)
    >>> slug.forget(model, "Lion", images="nowhere", retain=retain)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    slug.errors.SlugError: pictures of Lion not found: ...nowhere; check the path
    """
    concepts = dict(name) if isinstance(name, Mapping) else {name: images}
    _check(concepts, retain)
    host = model if isinstance(model, HostModel) else None
    clip = load(model) if isinstance(model, str | os.PathLike | torch.nn.Module) else host.clip if host else model
    if not isinstance(clip, Clip):
        raise SlugError(f"{type(clip).__name__} is not a known model; give what slug.load returns")
    if device and not host:
        clip.module.to(system.settle(device, seed))
    wanted = Wanted(
        method=_method(method, variant, several=len(concepts) > 1),
        evaluations=evaluations,
        fronts=fronts,
        epochs=epochs,
        seed=seed,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        workers=workers,
        max_forget=max_forget,
        sigmas=sigmas,
    )
    how: dict[str, Any] = {"classes": _classes(classes), "wanted": wanted, **({"say": say} if say else {})}
    sets = {n: here(path) for n, path in (evaluate or {}).items()}
    done = forget_each(host or clip, {n: here(s) for n, s in concepts.items()}, here(retain), sets, **how)
    found = {n: edits.made(host or clip, f.edit, f.record, f.shown) for n, f in done.items()}
    return found if isinstance(name, Mapping) else found[plain_name(name)]


def _check(concepts: Mapping[str, Any], retain: Any) -> None:
    """SlugError unless every name has pictures and there is a retain set, and none is empty."""
    if not concepts or not all(isinstance(n, str) and plain_name(n) for n in concepts):
        raise SlugError("give the name of what is to be forgotten, as text")
    plain = [plain_name(n).casefold() for n in concepts]
    if len(set(plain)) < len(plain):
        raise SlugError(f"two of the names are the same: {', '.join(concepts)}")
    for name, images in concepts.items():
        if images is None or (not isinstance(images, os.PathLike) and len(images) == 0):
            raise SlugError(f"no pictures of {name} are given; give images=, a folder, a tar, a CSV or a list of pictures")
    if retain is None or (not isinstance(retain, os.PathLike) and len(retain) == 0):
        raise SlugError(
            "no retain set is given; give retain=, pairs of other things: a tar, a folder with captions, or a CSV"
        )


def _method(method: str, variant: str, *, several: bool) -> str:
    """The method's name from both arguments. SlugError if they contradict each other."""
    if not variant:
        return method or ("slug_ws" if several else "slug")
    name = variants.get(variant if variant in variants.BY_NAME else f"slug_{variant}").slug
    if method not in ("", "slug", name):
        raise SlugError(f"variant={variant!r} is a variant of SLUG; leave it out with method={method!r}")
    return name


def _classes(given: Path_ | Sequence[str] | None) -> list[str] | None:
    """Class names from a list, or from a file with one in each line."""
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        path = files.existing(here(given), "list of class names", "give a text file with a name in each line, or a list")
        return [line.strip() for line in files.read_text(path).splitlines() if line.strip()]
    return list(given)


def load_edit(path: str) -> Edit:
    """The edit of a delta file, which knows no model.

    >>> slug.load_edit("results/demo/mini-clip-Owl.delta.safetensors")
    Owl: visual.proj, step 1.343
    """
    return edits.load(path)


def apply(edit: Any, model_dir: Any, out: str) -> str:
    """Write a model folder with edits applied, which its library loads as it loads the original. Returns the folder.

    Args:
        edit: the path of a delta file, an Edit, or a list of them.
        model_dir: the folder of the model; or what `load` returned of a name, which has none.
        out: where to write; it may be `model_dir`.

    >>> edited = slug.apply("results/demo/mini-clip-Lion.delta.safetensors", "data/models/mini-clip", f"{scratch}/edited")
    >>> edited == f"{scratch}/edited"
    True
    """
    given = edit if isinstance(edit, list | tuple) else [edit]
    with tempfile.TemporaryDirectory() as folder:
        paths = [_file(one, folder) if isinstance(one, Edit) else here(one) for one in given]
        base = model_dir if isinstance(model_dir, str | os.PathLike) else export.write(model_dir, Path(folder) / "base")
        return str(deltas.apply(paths, here(base), here(out)))


def _file(edit: Edit, folder: str) -> str:
    return edit.save(f"{folder}/{files.name_stem(edit.name.replace(' ', '_'))}.delta.safetensors")


def revert(edit: Any, model_dir: str, out: str) -> str:
    """Write an edited model folder without some of its edits, exact to the bit. Returns the folder.

    Args:
        edit: names of delta files in it (a path's last part counts), or a list of them.

    >>> edited = slug.apply("results/demo/mini-clip-Lion.delta.safetensors", "data/models/mini-clip", f"{scratch}/once")
    >>> slug.revert("mini-clip-Lion.delta.safetensors", edited, f"{scratch}/back") == f"{scratch}/back"
    True
    >>> _ = slug.load_edit("results/demo/mini-clip-Lion.delta.safetensors").save(f"{scratch}/lion.safetensors", model=model)
    >>> edited = slug.apply(f"{scratch}/lion.safetensors", "data/models/mini-clip", f"{scratch}/lion")
    >>> slug.revert("lion.safetensors", edited, f"{scratch}/as-it-was") == f"{scratch}/as-it-was"
    True
    """
    given = edit if isinstance(edit, list | tuple) else [edit]
    names = [f"{files.name_stem(e.name.replace(' ', '_'))}.delta.safetensors" if isinstance(e, Edit) else e for e in given]
    return str(deltas.revert(names, here(model_dir), here(out)))


def seal(model_dir: str, out: str) -> str:
    """Write an edited model folder without anything from which the original can be computed: to give away. Returns it.

    >>> edited = slug.apply("results/demo/mini-clip-Lion.delta.safetensors", "data/models/mini-clip", f"{scratch}/kept")
    >>> slug.seal(edited, f"{scratch}/sealed") == f"{scratch}/sealed"
    True
    """
    return str(deltas.seal(here(model_dir), here(out)))
