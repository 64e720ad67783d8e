"""What a model folder may hold: configurations that ask for no code and describe a model of the size of its weights."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slug import files
from slug.errors import SlugError

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
OWN_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # which a pipeline's model_index.json may name
MOST = {"layers": 1000, "num_hidden_layers": 1000, "layers_per_block": 1000, "context_length": 2**15}
SIZES = (*MOST, "width", "hidden_size", "intermediate_size", "embed_dim", "projection_dim", "vocab_size", "image_size")
SIZES += ("patch_size", "max_position_embeddings", "cross_attention_dim", "block_out_channels")


def check(folder: Path, *, sizes: bool = True) -> None:
    """SlugError unless a model can be built of this folder without running its code or asking for absurd memory.

    Args:
        sizes: whether the weight files are all there, so that sizes are held against them.
    """
    pipeline = (folder / "model_index.json").is_file()
    for part in (folder, *(p for p in sorted(folder.iterdir()) if pipeline and p.is_dir())):
        size = sum(p.stat().st_size for kind in WEIGHTS for p in part.glob(kind))
        for path in sorted(part.glob("*.json")):
            if path.name == "adapter_config.json":
                raise SlugError(f"{path}: an adapter would load another model; merge it into its model and give that")
            if "config" in path.name or path.name == "model_index.json":
                config = read_config(path)
                _refuse_code(path, config)
                if (
                    sizes and path.name in ("config.json", "open_clip_config.json") and part.name != "safety_checker"
                ):  # never built
                    _check_sizes(path, config, size)


def read_config(path: Path) -> dict[str, Any]:
    """The object of a JSON file of a model folder. SlugError if it is not one."""
    try:
        config = json.loads(files.read_text(path, "get the model folder again"))
    except (ValueError, RecursionError) as err:
        raise SlugError(f"{path} is not valid JSON ({err}); get the model folder again") from err
    if not isinstance(config, dict):
        raise SlugError(f"{path} holds no JSON object, so it is no configuration; get the model folder again")
    return config


def open_clip_config(folder: Path, towers: Sequence[str] = ("vision_cfg",)) -> dict[str, Any]:
    """`model_cfg` of an open_clip folder. SlugError if the file lacks it or one of these towers."""
    path = folder / "open_clip_config.json"
    whole = read_config(path)
    config, prepared = whole.get("model_cfg"), whole.get("preprocess_cfg") or {}
    for key in ("mean", "std"):
        values = prepared.get(key, [1.0] * 3) if isinstance(prepared, dict) else None
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(_is_number(v) and (v > 0 or key == "mean") for v in values)
        ):
            raise SlugError(f"{path} has no usable {key} of three channels in preprocess_cfg; get the model folder again")
    for part in towers:
        if not isinstance(config, dict) or not isinstance(config.get(part), dict):
            raise SlugError(f"{path} has no model_cfg with {part}, so it describes no CLIP; get the model folder again")
    return dict(config or {})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """All objects within a configuration."""
    if isinstance(config, dict):
        yield config
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _parts(value)


def _refuse_code(path: Path, config: dict[str, Any]) -> None:
    """SlugError if a configuration asks for code beside it, or for another model."""
    asks = {k for part in _parts(config) for k in ("auto_map", "trust_remote_code", "custom_pipeline") if part.get(k)}
    if path.name == "model_index.json":
        own = [k for k, v in config.items() if isinstance(v, list) and v and v[0] not in (None, *OWN_LIBRARIES)]
        asks |= {*own, *(["_class_name"] if not isinstance(config.get("_class_name"), str) else [])}
    if path.name == "open_clip_config.json":
        for part in _parts(config):
            asks |= {"hf_model_name"} & {k for k, v in part.items() if v}
            asks |= {"timm_model_name"} if ":" in str(part.get("timm_model_name", "")) else set()
            asks |= {"timm_model_pretrained"} if part.get("timm_model_pretrained") else set()
    if asks:
        raise SlugError(
            f"{path} asks for code or for another model ({', '.join(sorted(asks))}), which SLUG neither runs nor fetches; "
            "take these keys out, or give a model that its library knows by itself"
        )


def _check_sizes(path: Path, config: dict[str, Any], weights: int) -> None:
    """SlugError if a configuration describes more parameters than weight files of so many bytes can hold.

    Half a byte is the least that a parameter takes. Without weight files only the single limits hold.
    """
    most = 2 * weights if weights else 2**24

    def number(part: dict[str, Any], *keys: str) -> int:
        return next((part[k] for k in keys if isinstance(part.get(k), int)), 1)

    for part in _parts(config):
        for key in SIZES:
            values: list[Any] = part[key] if isinstance(part.get(key), list) else [part.get(key)]
            for value in values:
                given = isinstance(value, int | float) and not isinstance(value, bool)
                if given and not (0 < value <= MOST.get(key, most) and math.isfinite(value)):
                    raise SlugError(f"{path}: {key} is {value}, which is no size of this model; get the folder again")
        width = number(part, "hidden_size", "width")
        wanted = {
            "layers": number(part, "num_hidden_layers", "layers") * width**2,
            "vocab_size": number(part, "vocab_size") * width,
        }
        if str(part.get("model_type", "clip")).startswith("clip"):
            wanted["positions"] = number(part, "max_position_embeddings", "context_length") * width
            if isinstance(part.get("patch_size"), int):
                wanted["image_size"] = (number(part, "image_size") // part["patch_size"]) ** 2 * width
        over = [k for k, count in wanted.items() if weights and count > most]
        if over:
            raise SlugError(
                f"{path} describes a model of other sizes ({', '.join(over)} by a width of {width}) than its weight files "
                f"of {weights:,} bytes can hold; get the model folder again"
            )


def check_loaded(info: Any, what: str) -> None:
    """SlugError if a library left tensors of a model untrained (`output_loading_info`); a note of those it left out."""
    info = info if isinstance(info, dict) else vars(info)
    missing, left = (sorted(map(str, info.get(k) or ())) for k in ("missing_keys", "unexpected_keys"))
    if missing:
        extra = f", and hold {_few(left)} instead" if left else ""
        raise SlugError(f"the weights of {what} lack {_few(missing)}{extra}; get the whole model, as its library saves it")
    if left := [n for n in left if not n.endswith("position_ids")]:
        print(f"note: {what} has no place for {_few(left)}; left out")


def _few(names: list[str]) -> str:
    return f"{len(names)} tensors ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names[1:] else names[0]


def variant(folder: Path | None) -> str | None:
    """The variant of a folder's weights that has to be asked for: "fp16" where there is no other, else None."""
    if folder is None:
        return None
    plain = [p for kind in WEIGHTS[:2] for p in folder.glob(kind)]
    return "fp16" if plain and all(".fp16" in p.name for p in plain) else None


def check_finite(modules: dict[str, Any], what: str) -> None:
    """SlugError if a parameter of one of these modules holds NaN or infinity."""
    import torch

    for part, module in modules.items():
        for name, p in module.named_parameters():
            if not torch.isfinite(p).all():
                place = f"{part}.{name}" if part else name
                raise SlugError(f"the weights of {what} hold NaN or infinity ({place}); get a sound copy of the weights")
