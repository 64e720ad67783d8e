"""CLIPs that are in memory already: modules of open_clip and of transformers behind models.Clip."""

from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

import torch

from slug.errors import SlugError
from slug.models.clip import Clip

OPEN_CLIP_WORDS = 49408  # size of open_clip's own vocabulary


def wrap(module: torch.nn.Module, *, tokenizer: Any = None, preprocess: Any = None) -> Clip:
    """A CLIP of a module, in eval mode and float32, without gradients. The module itself is used, not a copy.

    Args:
        tokenizer: of the module's library; where it is missing open_clip's own is taken if the vocabulary is open_clip's, or
            for a transformers module that of the id or folder it was loaded from.
        preprocess: torchvision transforms that end in ToTensor and Normalize, as open_clip makes them; where it is missing
            they are made of the module's own settings.
    Raises:
        SlugError: the module is no CLIP that is known, or its tokenizer is not known.
    """
    if all(hasattr(module, part) for part in ("visual", "encode_image", "encode_text")):
        clip = _open_clip(module, tokenizer, preprocess)
    elif all(hasattr(module, part) for part in ("vision_model", "text_model", "visual_projection", "text_projection")):
        clip = _hugging_face(module, tokenizer, preprocess)
    else:
        raise SlugError(
            f"{type(module).__name__} is no CLIP whose family is known: give a CLIP of open_clip or a CLIPModel of "
            "transformers, or load a pipeline or an assistant with slug.load_pipeline or slug.load_vlm"
        )
    clip.module.float().eval().requires_grad_(False)
    broken = [n for n, p in clip.module.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise SlugError(f"the weights of {clip.label} hold NaN or infinity ({broken[0]}); get a sound copy of the weights")
    return clip


def _open_clip(module: Any, tokenizer: Any, preprocess: Any) -> Clip:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from slug.models.openclip import OpenClip

    if tokenizer is None:
        embedding = getattr(getattr(module, "text", module), "token_embedding", None)
        if embedding is None or embedding.num_embeddings != OPEN_CLIP_WORDS:
            raise SlugError("the module does not say which tokenizer it needs; give tokenizer=open_clip.get_tokenizer(NAME)")
        tokenizer = open_clip.SimpleTokenizer(context_length=getattr(module, "context_length", 77))
    if preprocess is None:
        known = getattr(module.visual, "preprocess_cfg", None) or {"size": module.visual.image_size}
        preprocess = image_transform_v2(PreprocessCfg(**known), is_train=False)
    label = type(module).__name__
    return OpenClip(module, tokenizer, preprocess, label=label, tag=f"{label}_memory")


def _hugging_face(module: Any, tokenizer: Any, preprocess: Any) -> Clip:
    from slug.models import loading
    from slug.models.hugging_face import HuggingFaceClip

    source = getattr(module.config, "_name_or_path", "")
    if tokenizer is not None and preprocess is not None:
        label = source.rstrip("/").rpartition("/")[2] or type(module).__name__
        return HuggingFaceClip(module, tokenizer, preprocess, label=label, tag=f"{label}_memory")
    if not source:
        raise SlugError("the module does not say where its tokenizer and preprocessing are; give tokenizer= and preprocess=")
    clip = loading.load(clip_model_id=source)  # its tokenizer and preprocessing are as `loading` makes them
    clip.module = module
    return clip
