"""Load a CLIP of any family. Libraries are imported when a model is loaded."""

import pickle
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slug import files, settings
from slug.errors import SlugError, brief
from slug.models import folders

if TYPE_CHECKING:
    import torch

    from slug.models.clip import Clip

LOCAL = "local-dir:"  # open_clip's prefix of a model folder


def load(
    model: str = "",  # open_clip architecture (`ViT-B-32`) or `local-dir:FOLDER`
    pretrained: str = "",  # open_clip tag or weight file; `random` for untrained weights
    clip_model_id: str = "",  # Hugging Face CLIP id or folder, used instead of `model` if given
    *,
    device: "str | torch.device" = "cpu",
    precision: str = "fp32",  # autocast of evaluations: fp32, bf16 or fp16
) -> "Clip":
    """Load a CLIP in float32 and eval mode. SlugError: unknown name, missing folder, damaged or not finite weights."""
    from slug import system

    if precision not in system.PRECISIONS:
        raise SlugError(f"unknown precision {precision!r}; choose from {', '.join(system.PRECISIONS)}")
    clip = _load_hugging_face(clip_model_id) if clip_model_id else _load_open_clip(model, pretrained)
    clip.module.to(device).float().eval().requires_grad_(False)
    clip.autocast = system.PRECISIONS[precision]
    folders.check_finite({"": clip.module}, clip.label)
    return clip


def from_settings(which: settings.Model, precision: str, device: "str | torch.device") -> "Clip":
    """The CLIP that the settings name; see `load`."""
    return load(which.model, which.pretrained, which.clip_model_id, device=device, precision=precision)


def label_of(model: str = "", clip_model_id: str = "") -> str:
    """Name of a model in file names and tables (Clip.label), without loading it; arguments as for `load`."""
    if clip_model_id:
        local = local_folder(clip_model_id)
        return files.safe_name(local.name if local else clip_model_id)
    return files.resolve(model.removeprefix(LOCAL)).name if model.startswith(LOCAL) else model


def source_of(model: str, what: str) -> tuple[str, dict[str, str]]:
    """(what a library loads a model id or folder from, further arguments), after its configurations were searched for code.

    Of an id the configurations alone are fetched first, and the arguments fix the revision that was searched. SlugError if
    there is no such id, or a configuration asks for code.

    Args:
        what: kind of model, for the message.
    """
    local = local_folder(model)
    if local:
        folders.check(local)
        return str(local), {}
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(model, allow_patterns=["*.json", "*/*.json"]))
    except Exception as err:  # the hub raises many kinds: no such id, no network, nothing in the cache
        raise SlugError(f"cannot load {what} {model}: {brief(err)}; give a folder or a known id") from err
    folders.check(snapshot, sizes=False)
    return model, {"revision": snapshot.name}


def local_folder(model: str) -> Path | None:
    """The folder that a model id or folder means; None for an id."""
    folder = files.resolve(model)
    return folder if folder.is_dir() else None


def _check_open_clip(model: str, pretrained: str) -> None:
    """SlugError unless open_clip has this model and these weights, or they are a folder and a file that exist."""
    import slug.torchvision_cpu  # noqa: F401  (before open_clip)

    import open_clip

    if model.startswith(LOCAL):
        folder = files.existing(model.removeprefix(LOCAL), "model folder", "give --model local-dir:FOLDER of a model")
        if not (folder / "open_clip_config.json").is_file():
            raise SlugError(f"{folder} has no open_clip_config.json, so it is not an open_clip model folder")
        folders.open_clip_config(folder, ("vision_cfg", "text_cfg"))
        folders.check(folder)
    elif model not in open_clip.list_models():
        close = [m for m in open_clip.list_models() if m.lower().startswith(model[:5].lower())]
        raise SlugError(f"open_clip has no model {model!r}; similar names: {', '.join(close[:6]) or 'none'}")
    elif not pretrained:
        raise SlugError(f"--pretrained is missing for {model}; see open_clip.list_pretrained(), or give 'random'")
    elif pretrained != "random" and not files.resolve(pretrained).exists():
        known = open_clip.list_pretrained_tags_by_model(model)
        if pretrained not in known:
            raise SlugError(f"{model} has no weights {pretrained!r}; choose from {', '.join(known)} or give a file")


def _load_open_clip(model: str, pretrained: str) -> "Clip":
    import slug.torchvision_cpu  # noqa: F401  (before open_clip)

    import open_clip

    from slug.models.openclip import OpenClip

    _check_open_clip(model, pretrained)
    local = model.startswith(LOCAL)
    name = LOCAL + str(files.resolve(model.removeprefix(LOCAL))) if local else model
    _note_activation(model, pretrained)
    weights = None if pretrained == "random" or local else pretrained
    if weights and files.resolve(weights).exists():
        weights = str(files.resolve(weights))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Without require_pretrained open_clip only warns if a folder has no weights, and leaves them untrained.
            module, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=weights, require_pretrained=pretrained != "random"
            )
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as err:  # open_clip, safetensors and the hub raise a dozen kinds; each is a bad or absent weight file
        raise SlugError(f"cannot load {model} {pretrained}: {_why(err)}") from err
    label = label_of(model)
    tag = files.safe_name(f"{label}_{'local' if local else pretrained}")
    return OpenClip(module, tokenizer, preprocess, label=label, tag=tag)


def _note_activation(model: str, pretrained: str) -> None:
    """Print a note if open_clip's model has another activation than its published weights were trained with."""
    import slug.torchvision_cpu  # noqa: F401  (before open_clip)

    import open_clip

    def quick(name: str) -> bool:
        return bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))

    published = {} if model.startswith(LOCAL) else open_clip.get_pretrained_cfg(model, pretrained) or {}
    if not published.get("quick_gelu") or quick(model):
        return
    exact = f"{model}-quickgelu"
    there = exact in open_clip.list_models() and quick(exact) and open_clip.get_pretrained_cfg(exact, pretrained)
    remedy = f"{exact} is the exact model." if there else "open_clip has no exact model of this name and tag."
    print(f"note: {pretrained} weights were trained with QuickGELU; {model} runs them with GELU. {remedy}")


def _why(err: Exception) -> str:
    """Why a library cannot load weights, with the way out where there is one."""
    if isinstance(err, pickle.UnpicklingError):
        found = re.search(r"GLOBAL (\S+)", str(err))
        what = f"more than tensors ({found[1]})" if found else "more than tensors, or is damaged"
        return (
            f"it holds {what}; SLUG reads checkpoints with weights_only=True, since a pickle may run code. Where you trust "
            "the file, load it yourself and save its state_dict alone with torch.save"
        )
    held = re.search(r"Unexpected key\(s\) in state_dict: (\"[^\"]*\")", str(err))
    return f"{brief(err)}{f'; it holds {held[1]} and more instead: rename its tensors' if held else ''}"


def _load_hugging_face(model_id: str) -> "Clip":
    import slug.torchvision_cpu  # noqa: F401  (before open_clip and transformers)

    from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig, CLIPModel

    from slug.models import preprocessing
    from slug.models.hugging_face import HuggingFaceClip

    local = local_folder(model_id)
    source, revision = source_of(model_id, "Hugging Face CLIP")
    if local and not any((local / f).is_file() for f in ("preprocessor_config.json", "processor_config.json")):
        raise SlugError(f"{local} has no preprocessor_config.json, which says how to prepare pictures; get the model's own")
    try:
        kind = CLIPConfig.get_config_dict(source, **revision)[0].get("model_type")
        if kind != "clip":
            raise SlugError(
                f"its model_type is {kind!r}; only Hugging Face models of model_type 'clip', with both towers, are supported"
            )
        how: dict[str, Any] = {"trust_remote_code": False, **revision}
        found: Any = CLIPModel.from_pretrained(source, output_loading_info=True, variant=folders.variant(local), **how)
        tokenizer = AutoTokenizer.from_pretrained(source, **how)
        processor = AutoImageProcessor.from_pretrained(source, backend="pil", **how)
    except Exception as err:  # transformers, safetensors and the hub raise many kinds; each is a bad or absent folder
        raise SlugError(f"cannot load Hugging Face CLIP {model_id}: {_why(err)}; give a folder or a known id") from err
    module, info = found
    folders.check_loaded(info, f"Hugging Face CLIP {model_id}")
    preprocess = preprocessing.of_processor(processor, module.config.vision_config.image_size, model_id)
    label = label_of(clip_model_id=model_id)
    tag = files.safe_name(f"{label}_{'local' if local else 'hf'}")
    return HuggingFaceClip(module, tokenizer, preprocess, label=label, tag=tag)
