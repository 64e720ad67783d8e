"""CLIP models of every family behind one small interface: load one with `load`, use it as a `Clip`."""

import json
import warnings
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

import torch

from slug import files, system
from slug.errors import SlugError, brief
from slug.models import canonical
from slug.models.clip import Clip, HuggingFaceClip, OpenClip

LOCAL = "local-dir:"


def load(model="", pretrained="", clip_model_id="", *, device="cpu", precision="fp32"):
    """Load a CLIP in float32, in eval mode.

    Args:
        model: open_clip architecture (`ViT-B-32`) or `local-dir:FOLDER`.
        pretrained: open_clip tag or weight file; `random` for untrained weights (for trying things out).
        clip_model_id: Hugging Face CLIP id or folder; used instead of `model` where given.
        device: torch device.
        precision: autocast of evaluations: fp32, bf16 or fp16.
    Raises:
        SlugError: unknown name, missing folder, weights that are damaged or not finite.
    """
    if precision not in system.PRECISIONS:
        raise SlugError(f"unknown precision {precision!r}; choose from {', '.join(system.PRECISIONS)}")
    loader = _load_hugging_face if clip_model_id else _load_open_clip
    clip = loader(clip_model_id) if clip_model_id else loader(model, pretrained)
    clip.module.to(device).float().eval().requires_grad_(False)
    clip.autocast = system.PRECISIONS[precision]
    broken = [n for n, p in clip.module.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise SlugError(f"the weights of {clip.label} hold NaN or infinity ({broken[0]}); get a sound copy of the weights")
    return clip


def label_of(model="", clip_model_id=""):
    """What a model is called in file names and tables (Clip.label), without loading it; arguments as of `load`."""
    if clip_model_id:
        local = files.resolve(clip_model_id)
        return files.safe_name(local.name if local.is_dir() else clip_model_id)
    return files.resolve(model.removeprefix(LOCAL)).name if model.startswith(LOCAL) else model


def _load_open_clip(model, pretrained):
    import open_clip

    name, source = model, None
    if model.startswith(LOCAL):
        folder = files.existing(model.removeprefix(LOCAL), "model folder", "give --model local-dir:FOLDER of a model")
        if not (folder / "open_clip_config.json").is_file():
            raise SlugError(f"{folder} has no open_clip_config.json, so it is not an open_clip model folder")
        name, source = LOCAL + str(folder), folder
    elif model not in open_clip.list_models():
        close = [m for m in open_clip.list_models() if m.lower().startswith(model[:5].lower())]
        raise SlugError(f"open_clip knows no model {model!r}; near: {', '.join(close[:6]) or 'none'}")
    elif not pretrained:
        raise SlugError(f"--pretrained is missing for {model}; see open_clip.list_pretrained(), or say 'random'")
    elif pretrained != "random" and not files.resolve(pretrained).exists():
        known = open_clip.list_pretrained_tags_by_model(model)
        if pretrained not in known:
            raise SlugError(f"{model} has no weights {pretrained!r}; choose from {', '.join(known)} or a file")
    if pretrained.startswith(("laion400m", "openai")) and "quickgelu" not in model and model.startswith("ViT-"):
        print(
            f"note: {pretrained} weights were trained with QuickGELU; {model} runs them with GELU, as the published "
            f"runs did. {model}-quickgelu is the exact model."
        )
    weights = None if pretrained == "random" or source else pretrained
    if weights and files.resolve(weights).exists():
        weights = str(files.resolve(weights))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Without weights in its folder open_clip would only warn, and go on with untrained ones.
            module, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=weights, require_pretrained=pretrained != "random"
            )
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as err:  # open_clip, safetensors and the hub raise a dozen kinds; each is a bad or absent weight file
        raise SlugError(f"cannot load {model} {pretrained}: {brief(err)}") from err
    label = label_of(model)
    tag = files.safe_name(f"{label}_{'local' if source else pretrained}")
    return OpenClip(module, tokenizer, preprocess, label=label, tag=tag)


def _load_hugging_face(model_id):
    import open_clip
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    local = files.resolve(model_id)
    source = str(local) if local.is_dir() else model_id
    try:
        module = CLIPModel.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError, RuntimeError, SafetensorError) as err:
        raise SlugError(f"cannot load Hugging Face CLIP {model_id}: {brief(err)}; give a folder or a known id") from err
    preprocess = open_clip.image_transform(
        processor.crop_size["height"],
        is_train=False,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        resize_mode="shortest",
        interpolation="bicubic",
    )
    label = label_of(clip_model_id=model_id)
    tag = files.safe_name(f"{label}_{'local' if local.is_dir() else 'hf'}")
    return HuggingFaceClip(module, tokenizer, preprocess, label=label, tag=tag)


def from_settings(which, precision, device):
    """`load` with the settings group Model."""
    return load(which.model, which.pretrained, which.clip_model_id, device=device, precision=precision)


def from_args(args, device):
    """`load` with the flags of cli.add_model_flags."""
    return load(args.model, args.pretrained, args.clip_model_id, device=device, precision=args.precision)


def folder_family(folder):
    """What kind of model folder this is: (family, weight file). SlugError if it is of no kind that SLUG can edit."""
    folder = Path(folder)
    config = folder / "open_clip_config.json"
    if config.is_file():
        vision = json.loads(config.read_text())["model_cfg"]["vision_cfg"]
        plain = isinstance(vision.get("layers"), int) and "timm_model_name" not in vision
        return "open_clip_vit" if plain else "open_clip", folder / "open_clip_model.safetensors"
    if (folder / "model_index.json").is_file():
        return "diffusers", folder / "text_encoder" / "model.safetensors"
    if (folder / "config.json").is_file():
        llava = files.read_json(folder / "config.json").get("model_type") == "llava"
        whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
        if whole.is_file():
            return "llava" if llava else "hf", whole
        if llava and index.is_file():  # in several files, of which one holds the vision tower
            shards = {f for n, f in files.read_json(index)["weight_map"].items() if "vision_tower." in n}
            if len(shards) == 1:
                return "llava", folder / shards.pop()
            raise SlugError(
                f"the vision tower of {folder} lies in {len(shards)} files; save the model in one or in larger ones"
            )
    raise SlugError(
        f"{folder} is not a model folder: it needs open_clip_config.json, config.json with model.safetensors, or a "
        "pipeline's model_index.json"
    )


__all__ = ["Clip", "canonical", "folder_family", "from_args", "label_of", "load"]
