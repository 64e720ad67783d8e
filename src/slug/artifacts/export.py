"""A CLIP in memory as a model folder of its own library."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from slug.errors import SlugError
from slug.models.clip import Clip


def write(model: Any, out: Path) -> Path:
    """Write the folder of a models.Clip at its base weights; that of a model that was loaded from a folder is copied.

    SlugError: the model is of open_clip and does not say its architecture, or is a pipeline or an assistant of the Hub.
    """
    if model.origin:
        return Path(shutil.copytree(model.origin, out))
    if not isinstance(model, Clip):
        raise SlugError(f"{model.label} was not loaded from a folder of this machine; give folder=, its model folder")
    if model.family == "hf":
        model.module.save_pretrained(out)
        model.tokenizer.save_pretrained(out)
        size, mean, std = model.side, model.mean.tolist(), model.std.tolist()
        settings = {"image_processor_type": "CLIPImageProcessor", "crop_size": size, "size": {"shortest_edge": size}}
        (out / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": mean, "image_std": std}))
        return out
    import slug.torchvision_cpu  # noqa: F401  (before open_clip)

    import open_clip

    config = open_clip.get_model_config(model.label)
    if config is None:
        raise SlugError(
            f"open_clip has no model {model.label!r}, so its folder cannot be written; give folder=, a model folder"
        )
    out.mkdir(parents=True)
    preprocess = {"mean": model.mean.tolist(), "std": model.std.tolist()}
    (out / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1))
    weights = {n: p.detach().cpu().contiguous() for n, p in model.module.state_dict().items()}
    save_file(weights, out / "open_clip_model.safetensors")
    return out
