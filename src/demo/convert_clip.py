"""Convert an open_clip ViT folder to a Hugging Face CLIP folder: the same weights, bit for bit, under other names.

Example: python src/demo/convert_clip.py          (data/models/mini-clip -> data/demo/models/mini-clip-hf, seconds)

Reads open_clip_config.json, open_clip_model.safetensors and the tokenizer files beside them. Writes config.json,
model.safetensors, preprocessor_config.json and the tokenizer files, for CLIPModel and CLIPProcessor of transformers.
"""

import argparse
import dataclasses
import shutil
import warnings
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before open_clip and transformers)

import open_clip
import transformers
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig

from slug import cli, files
from slug.errors import SlugError
from slug.models import canonical

# Settings with a counterpart in a Hugging Face CLIP, or without influence on features. All others must have their defaults.
CONVERTED = {"layers", "width", "mlp_ratio", "image_size", "patch_size", "head_width", "patch_dropout"}
CONVERTED |= {"context_length", "vocab_size", "heads", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
RESAMPLE = {"bilinear": 2, "bicubic": 3}  # PIL's numbers
CARD = "README.md"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")


def _settings(kind, given):
    """The settings of one tower with open_clip's defaults. SlugError for a setting that a Hugging Face CLIP lacks."""
    default = dataclasses.asdict(kind())
    odd = [k for k, v in given.items() if k not in CONVERTED and v != default.get(k)]
    if odd or not isinstance(given.get("layers", 0), int):
        raise SlugError(f"only plain ViT CLIPs can be converted; this one has {', '.join(odd) or 'a ResNet tower'}")
    return default | given


def hugging_face_config(model_cfg):
    """transformers' CLIPConfig of an open_clip model config (the `model_cfg` of open_clip_config.json)."""
    vision, text = _settings(CLIPVisionCfg, model_cfg["vision_cfg"]), _settings(CLIPTextCfg, model_cfg["text_cfg"])
    shared = {"hidden_act": "quick_gelu" if model_cfg.get("quick_gelu") else "gelu", "layer_norm_eps": 1e-5}
    shared["projection_dim"] = model_cfg["embed_dim"]
    towers = []
    for tower, heads in ((vision, vision["width"] // vision["head_width"]), (text, text["heads"])):
        sizes = {"hidden_size": tower["width"], "intermediate_size": int(tower["width"] * tower["mlp_ratio"])}
        towers.append(shared | sizes | {"num_hidden_layers": tower["layers"], "num_attention_heads": heads})
    # open_clip pools at the largest id, the end token, which is the last of CLIP's vocabulary. It is the padding too, but
    # both libraries use its first position.
    end = text["vocab_size"] - 1
    towers[0] |= {"image_size": vision["image_size"], "patch_size": vision["patch_size"]}
    towers[1] |= {"max_position_embeddings": text["context_length"], "vocab_size": text["vocab_size"]}
    towers[1] |= {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    return CLIPConfig(
        vision_config=towers[0], text_config=towers[1], projection_dim=model_cfg["embed_dim"], architectures=["CLIPModel"]
    )


def hugging_face_preprocessing(preprocess_cfg, image_size):
    """preprocessor_config.json of an open_clip `preprocess_cfg`."""
    if preprocess_cfg.get("resize_mode", "shortest") != "shortest":
        raise SlugError(f"CLIPImageProcessor cannot resize pictures by {preprocess_cfg['resize_mode']!r}")
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": RESAMPLE[preprocess_cfg.get("interpolation", "bicubic")],
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess_cfg.get("mean", open_clip.OPENAI_DATASET_MEAN),
        "image_std": preprocess_cfg.get("std", open_clip.OPENAI_DATASET_STD),
    }


def convert(source, out):
    """Convert the open_clip folder `source` to the Hugging Face CLIP folder `out`; each file is written whole or not at all.

    SlugError unless `source` is the open_clip folder of a ViT CLIP with its tokenizer.
    """
    needed = ("open_clip_config.json", "open_clip_model.safetensors", *TOKENIZER_FILES[:3])
    if missing := next((n for n in needed if not (source / n).is_file()), None):
        raise SlugError(f"{source} has no {missing}; give --source an open_clip folder with its tokenizer")
    settings = files.read_json(source / "open_clip_config.json")
    config = hugging_face_config(settings["model_cfg"])
    preprocessing = hugging_face_preprocessing(settings.get("preprocess_cfg", {}), config.vision_config.image_size)
    try:
        tensors = canonical.all_views("open_clip_vit", load_file(source / "open_clip_model.safetensors"))
    except KeyError as err:
        raise SlugError(f"only plain ViT CLIPs can be converted; this one has the parameter {err}") from err
    except SafetensorError as err:
        raise SlugError(f"{source / 'open_clip_model.safetensors'} is damaged ({err}); get it again") from err
    config.dtype = tensors["logit_scale"].dtype
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            with files.replacing(out / name) as temporary:
                shutil.copyfile(source / name, temporary)
    files.write_text(out / "config.json", config.to_json_string())
    files.write_json(out / "preprocessor_config.json", preprocessing)
    copy_card(source, out)
    with files.replacing(out / "model.safetensors") as temporary:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata={"format": "pt"})


def copy_card(source, out):
    """Copy the model card of a folder, which says the licence, beside what was made of it."""
    if (source / CARD).is_file():
        files.write_text(out / CARD, files.read_text(source / CARD))


def put_together(doc, name, trained_by, assemble, argv):
    """The main function of a script that assembles the demo's model `name`.

    Args:
        doc: docstring of the script.
        trained_by: the script that trains the parts.
        assemble: function of (folder of the parts, Hugging Face CLIP folder, folder to write).
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=f"data/models/{name}", help="folder of the trained parts")
    parser.add_argument("--clip", type=Path, default="data/models/mini-clip", help="open_clip folder")
    parser.add_argument("--out", type=Path, default="data/demo/models", help="parent of both folders")
    args = parser.parse_args(argv)
    # Both warnings are expected: half of the CLIP's weights stay unused, and the scheduler is the one of the training.
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    source = files.existing(args.source, f"the parts of {name}", f"train them with {trained_by}")
    out = files.resolve(args.out)
    convert(files.resolve(args.clip), out / "mini-clip-hf")
    assemble(source, out / "mini-clip-hf", out / name)
    copy_card(source, out / name)
    print(f"{args.source}, {args.clip} -> {out}/{name}, {out}/mini-clip-hf")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default="data/models/mini-clip", help="open_clip folder")
    parser.add_argument("--out", type=Path, default="data/demo/models/mini-clip-hf", help="Hugging Face folder")
    args = parser.parse_args(argv)
    convert(files.resolve(args.source), files.resolve(args.out))
    print(f"{args.source} -> {files.resolve(args.out)}")


if __name__ == "__main__":
    cli.exit_with(main)
