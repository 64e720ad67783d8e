"""Pipelines as diffusers keeps them: an id or a folder is read part by part, and what is missing in it is an error."""

from collections.abc import Mapping, Sequence
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before diffusers)

import torch

from slug.errors import SlugError, brief
from slug.models import folders, loading

WITHDRAWN = {  # organisation of ids that are on the Hub no more: which, and who keeps them
    "stabilityai": ("stable-diffusion-2", "sd2-community"),
    "runwayml": ("stable-diffusion-v1-5", "sd-legacy"),
}


def read(
    pipeline: str, kind: str, parts: Mapping[str, str], *, device: str | torch.device, dtype: torch.dtype, **more: Any
) -> Any:
    """The pipeline of an id or a folder, as the class `kind` of diffusers, with its parts, {part: class}, checked; `more`
    goes to the class. Raises SlugError if it is missing or damaged."""
    import diffusers
    import transformers

    local = loading.local_folder(pipeline)
    maker = getattr(diffusers, kind)
    try:
        source, revision = loading.source_of(pipeline, "the pipeline")
        index = maker.load_config(source, **revision)
        check_encoders(index, pipeline, [n for n in parts if n.startswith("text_encoder")])
        found = {}
        for part, name in parts.items():
            own, text = folders.variant(local / part) if local else None, part.startswith("text_encoder")
            how_read: dict[str, Any] = {"subfolder": part, "variant": own, "output_loading_info": True, **revision}
            how_read |= {"dtype" if text else "torch_dtype": dtype}
            kind_of_part = getattr(transformers if text else diffusers, name)
            found[part], info = kind_of_part.from_pretrained(source, **how_read)
            folders.check_loaded(info, f"{part} of the pipeline {pipeline}")
        pipe = maker.from_pretrained(source, dtype=dtype, **found, **more, **revision)
    except SlugError as err:
        if moved := _moved(pipeline):
            raise SlugError(f"cannot load the pipeline {pipeline}: {moved}{err}") from err
        raise
    except Exception as err:  # diffusers, safetensors and the hub raise many kinds; each is a bad or absent folder
        raise SlugError(f"cannot load the pipeline {pipeline}: {_moved(pipeline)}{brief(err)}") from err
    if (index.get("safety_checker") or [None])[0]:
        print(f"note: the safety checker of {pipeline} is off: SLUG measures what the UNet draws")
    return pipe.to(device)


def _moved(pipeline: str) -> str:
    """What to do where an id has left the Hub."""
    organisation, _, name = pipeline.partition("/")
    family, keeper = WITHDRAWN.get(organisation, ("", ""))
    if not family or not name.startswith(family):
        return ""
    return f"{organisation} has withdrawn this id; give {keeper}/{name}, or the path of a folder with the same pipeline: "


def check_encoders(index: Mapping[str, Any], pipeline: str, wanted: Sequence[str]) -> None:
    """SlugError unless the pipeline of this model_index.json has the text encoders that CLIPs are given for."""
    held = sorted(n for n, v in index.items() if n.startswith("text_encoder") and v and v[0])
    kind = index.get("_class_name")
    if held == ["text_encoder", "text_encoder_2"] and len(wanted) == 1:
        raise SlugError(
            f"{pipeline} has two text encoders ({kind}), and each is edited by a CLIP of its own; give "
            "slug.load_pipeline clip_2=, that of text_encoder_2 (of SDXL laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)"
        )
    if held == ["text_encoder"] and len(wanted) > 1:
        raise SlugError(f"{pipeline} has one text encoder ({kind}); leave clip_2= out")
    if held not in ([], list(wanted)):  # an index without one has other faults, of which the library tells
        raise SlugError(
            f"{pipeline} is a {kind} with {' and '.join(held)}; supported are pipelines of Stable Diffusion 1, 2 and XL"
        )
