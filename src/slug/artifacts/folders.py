"""Model folders: what kind each is, which files hold a copy of the weights, and which files cannot be edited."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slug import files
from slug.artifacts import delta_files, weight_files
from slug.artifacts.weight_files import PICKLED, SAFE, Copy
from slug.errors import SlugError, brief

EDITS = "slug_edits"  # subfolder of an edited folder: the originals and the deltas
Shapes = dict[str, tuple[int, ...]]  # {tensor name: shape}
SOUND = "get a sound copy of the model"
# Text encoders in checkpoints of one file, which web interfaces read: (prefix, encoder, family of the names after it).
SINGLE_FILES = (
    ("cond_stage_model.transformer.", "text_encoder", "diffusers"),
    ("cond_stage_model.model.", "text_encoder", "open_clip_vit"),
    ("conditioner.embedders.0.transformer.", "text_encoder", "diffusers"),
    ("conditioner.embedders.0.model.", "text_encoder_2", "open_clip_vit"),
    ("conditioner.embedders.1.model.", "text_encoder_2", "open_clip_vit"),
    ("text_encoders.clip_l.transformer.", "text_encoder", "diffusers"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2", "diffusers"),
)
OPEN_CLIP_NAMES = re.compile(r"visual\.|text\.|transformer\.resblocks\.|(?:positional_embedding|text_projection)$")
INDEX = re.compile(r"[^/]+\.(?:safetensors|bin)\.index(?:\.\w+)?\.json")
# What trainings and converters leave beside the weights: no library loads these as the model, and pickles of them hold more.
NOT_TENSORS = re.compile(r"(?:openvino|training_args|optimizer|scheduler|scaler|rng_state|random_states)[^/]*")
# Files without weights that are no text: pictures, and the vocabularies of tokenizers.
HARMLESS = re.compile(
    r".+\.(?:png|jpe?g|gif|webp|pdf|txt\.gz)|(?:tokenizer|spiece|sentencepiece\.bpe)\.model", re.IGNORECASE
)


@dataclass
class ModelFolder:
    """What a model folder holds."""

    path: Path
    kind: str  # clip, diffusers or llava
    encoders: list[str]  # folders of a pipeline's text encoders; [""] for a CLIP or LLaVA
    copies: list[Copy] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # all but EDITS, relative to the folder
    shapes: dict[str, Shapes] = field(default_factory=dict)  # {file: ...} of the files of tensors that may be a copy
    fixed: list[str] = field(default_factory=list)  # those that may hold the weights and cannot be edited

    def copies_of(self, encoder: str) -> list[Copy]:
        return [c for c in self.copies if c.encoder == encoder]

    def fixed_beside(self, untouched: list[str]) -> list[str]:
        """`fixed` without the files of encoders that no delta edits."""
        return [f for f in self.fixed if f.split("/")[0] not in untouched]


def config(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. SlugError for anything else."""
    try:
        found = files.read_json(path)
    except (SlugError, RecursionError) as err:
        raise SlugError(f"{path} cannot be read as JSON; {SOUND}") from err
    if not isinstance(found, dict):
        raise SlugError(f"{path} holds no JSON object; {SOUND}")
    return found


def _open_clip_family(path: Path) -> str:
    """Family of the names of an open_clip model; "open_clip_vit" has canonical ones."""
    about = config(path)
    vision = about.get("model_cfg", {}).get("vision_cfg") if isinstance(about.get("model_cfg"), dict) else None
    if not isinstance(vision, dict):
        raise SlugError(f"{path} has no model_cfg with a vision_cfg; {SOUND}")
    return "open_clip_vit" if isinstance(vision.get("layers"), int) and "timm_model_name" not in vision else "open_clip"


def _walk(folder: Path) -> Iterator[str]:
    """Relative paths of the files of a folder, and `.git` as one of them. Links are followed, but for loops."""
    for at, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(at)
        above = {os.path.realpath(p) for p in (here, *here.parents)}
        subfolders[:] = [s for s in sorted(subfolders) if os.path.realpath(here / s) not in above]
        if ".git" in subfolders:
            subfolders.remove(".git")
            names.append(".git")
        for name in sorted(names):
            if not (here / name).exists():
                raise SlugError(f"{here / name} is a link to a file that is not there; {SOUND}")
            yield (here / name).relative_to(folder).as_posix()


def _is_harmless(path: Path) -> bool:
    """Whether a file holds no weights: a text, a picture, a vocabulary."""
    if HARMLESS.fullmatch(path.name):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as f:
        start = f.read(4096)
    try:
        start[: max(len(start) - 3, 0)].decode()  # a character may be cut at the end
    except UnicodeDecodeError as err:
        return err.start > len(start) - 7
    return b"\0" not in start


def _shards(folder: Path, index: str, there: dict[str, Shapes]) -> dict[str, str]:
    """{tensor name: file} of the shards that an index names."""
    weight_map = config(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise SlugError(f"{folder / index} has no weight_map; {SOUND}")
    found: dict[str, str] = {}
    for tensor, name in weight_map.items():
        file = files.inside((folder / index).parent, name).relative_to(folder).as_posix()
        if tensor not in there.get(file, ()):
            raise SlugError(f"{folder / index} names {brief(tensor)} of {name}, which is not there; {SOUND}")
        found |= dict.fromkeys(there[file], file)
    return found


def _towers(kind: str, label: str, encoders: list[str], family: str, names: dict[str, str]) -> list[tuple[str, str, str]]:
    """(encoder, family, prefix) of each copy that the tensors of a weight file or its shards make up."""
    if kind == "diffusers":
        place = label.rpartition("/")[0]
        if place in encoders:
            return [(place, "diffusers", "")]
        return [(e, f, prefix) for prefix, e, f in SINGLE_FILES if any(n.startswith(prefix) for n in names)]
    if kind == "clip" and any(OPEN_CLIP_NAMES.match(n) for n in names):
        return [("", family, "")]
    return [("", "llava" if kind == "llava" else "hf", "")]


def _order(copy: Copy) -> tuple[str, bool, int, str]:
    """Earlier versions edited the first copy in this order, and named the originals they kept by its names alone."""
    name = copy.label.rpartition("/")[2]
    return copy.encoder, SAFE not in name, len(name.split(".")), name


def scan(path: Path) -> ModelFolder:
    """What a model folder holds. SlugError if it is not one that SLUG can edit, or is damaged."""
    family, components = "open_clip_vit", set[str]()
    if not path.is_dir():
        raise SlugError(f"{path} is no folder; give --model-dir the folder of a model")
    if (path / "open_clip_config.json").is_file():
        found, family = ModelFolder(path, "clip", [""]), _open_clip_family(path / "open_clip_config.json")
    elif (path / "model_index.json").is_file():
        parts = [n for n in config(path / "model_index.json") if (path / files.inside(path, n)).is_dir()]
        encoders = {n for n in parts if "text_encoder" in n} | {p.name for p in path.glob("text_encoder*") if p.is_dir()}
        found, components = ModelFolder(path, "diffusers", sorted(encoders)), {n for n in parts if n not in encoders}
    elif (path / "config.json").is_file():
        llava = config(path / "config.json").get("model_type") == "llava"
        found = ModelFolder(path, "llava" if llava else "clip", [""])
    else:
        raise SlugError(
            f"{path} is not a model folder: it needs open_clip_config.json, config.json with its weights, or a pipeline's "
            "model_index.json"
        )
    tensor_files: list[str] = []
    indexes: list[str] = []
    for file in (f for f in _walk(path) if not f.startswith(f"{EDITS}/")):
        found.files.append(file)
        name, top = file.rpartition("/")[2], file.split("/")[0]
        if top in components:
            continue
        if INDEX.fullmatch(name):
            indexes.append(file)
        elif f"/{EDITS}/" in file or (NOT_TENSORS.fullmatch(name) and not _is_harmless(path / file)):
            found.fixed.append(file)
        elif name.endswith((SAFE, *PICKLED)):
            delta = weight_files.metadata(path / file).get("format") == delta_files.FORMAT
            (found.fixed if delta else tensor_files).append(file)
        elif (".index" in name and "msgpack" in name) or not _is_harmless(path / file):
            found.fixed.append(file)
    found.shapes = {f: weight_files.shapes(path / f) for f in tensor_files}
    groups = {i: _shards(path, i, found.shapes) for i in indexes}
    sharded = {f for names in groups.values() for f in names.values()}
    groups |= {f: dict.fromkeys(names, f) for f, names in found.shapes.items() if f not in sharded}
    for label, names in groups.items():
        for encoder, its, prefix in _towers(found.kind, label, found.encoders, family, names):
            own = {n: f for n, f in names.items() if n.startswith(prefix)}
            shapes = {n: found.shapes[f][n] for n, f in own.items()}
            found.copies.append(Copy(encoder, its, prefix, own, shapes, label))
    found.copies.sort(key=_order)
    found.encoders = sorted({*found.encoders, *(c.encoder for c in found.copies)})
    return found
