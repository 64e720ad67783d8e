"""Whether libraries load the edit: each loads an edited folder anew, in every way it can, and its tensors are compared."""

import contextlib
import importlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before open_clip, transformers and diffusers)

import torch
from torch import Tensor

from slug import files, system
from slug.artifacts import weight_files
from slug.artifacts.folders import ModelFolder, config
from slug.artifacts.weight_files import Copy
from slug.errors import SlugError, brief
from slug.models import LOCAL

NAME = re.compile(r"(?:pytorch_)?model(?:\.(\w+))?\.(safetensors|bin)(?:\.index(?:\.(\w+))?\.json)?")  # of transformers
Edited = Sequence[tuple[Copy, Mapping[str, Tensor]]]  # copies, and {name in the files: new tensor}
Way = tuple[str, bool]  # how a library is asked for weights: (variant or "", safetensors)


def load_and_compare(folder: Path, found: ModelFolder, edited: Edited) -> list[str]:
    """Compare the tensors of a folder just written with what they should be, in its files and as libraries load them.

    Returns lines for people: what loaded, and what could not. SlugError if a tensor is another one than it should be.
    """
    for copy, wanted in edited:
        now = weight_files.load_copy(folder, copy, wanted)
        for name, tensor in wanted.items():
            if now[name].dtype != tensor.dtype or not torch.equal(now[name], tensor):
                raise SlugError(f"{copy.label} of the folder just written holds another {name} than it should; try again")
    size = sum((folder / f).stat().st_size for f in {f for copy, _ in edited for f in copy.files.values()})
    if 3 * size > system.free_memory(torch.device("cpu")):
        return ["note: not loaded by the libraries for a check: the model is too large for the free memory"]
    loaded, failed = [], []
    for label, load, family, wanted in _loaders(folder, found, edited):
        try:
            with _quiet():
                state = load()
        except Exception as err:  # each library raises many kinds for a folder that it cannot load
            failed.append(f"{label} ({brief(err, 80)})")
            continue
        _compare(label, state, family, wanted)
        loaded.append(label)
    lines = [f"loaded anew and compared: {', '.join(loaded)}"] if loaded else []
    return lines + ([f"note: could not be loaded for a check: {', '.join(failed)}"] if failed else [])


def _compare(label: str, state: Mapping[str, Tensor], family: str, wanted: Mapping[str, Tensor]) -> None:
    """SlugError unless the state dict of a loaded model has the tensors {canonical name: tensor}, in its own dtype."""
    there = Copy("", family, "", {}, {}, label).views(state)
    for name, tensor in wanted.items():
        if name in there and not torch.equal(there[name], tensor.to(there[name].dtype)):
            raise SlugError(
                f"{label} loads another {name} from the edited folder than the edit makes; no folder was written. "
                "Remove that file from the model folder, or get a sound copy of the model"
            )
    if wanted and not wanted.keys() & there.keys():
        raise SlugError(
            f"{label} loads a model without {next(iter(wanted))}, which the edit changes; no folder was written. "
            "Remove that file from the model folder, or get a sound copy of the model"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context without the libraries' progress bars and warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    silence = contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO())
    try:
        with silence[0], silence[1], warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _loaders(
    folder: Path, found: ModelFolder, edited: Edited
) -> Iterator[tuple[str, Callable[[], Mapping[str, Tensor]], str, dict[str, Tensor]]]:
    """(label, what loads a state dict, family of its names, {canonical name: tensor}) of every way to load the folder."""
    ways: dict[tuple[str, Way], dict[str, Tensor]] = {}
    for copy, wanted in edited:
        views = copy.views(wanted)
        place, _, name = copy.label.rpartition("/")
        if copy.family.startswith("open_clip") and not copy.prefix and _there("open_clip"):
            if (folder / "open_clip_config.json").is_file() and not place:
                file = folder / copy.label
                yield f"open_clip ({copy.label})", lambda file=file: _open_clip(folder, file), copy.family, views  # type: ignore[misc]
        elif (match := NAME.fullmatch(name)) and place == copy.encoder and not copy.prefix and _there("transformers"):
            ways.setdefault((copy.encoder, (match[1] or match[3] or "", match[2] == "safetensors")), views)
    family = {"clip": "hf"}.get(found.kind, found.kind)
    for (encoder, way), views in ways.items():
        at = encoder or "the folder"
        yield f"transformers ({at}, {_words(way)})", lambda e=encoder, w=way: _transformers(folder, e, w), family, views  # type: ignore[misc]
    if found.kind == "diffusers" and _there("diffusers"):
        for way in dict.fromkeys(way for _, way in ways):
            pipe: dict[str, Any] = {}
            for encoder in [e for e, w in ways if w == way]:
                label = f"diffusers ({encoder}, {_words(way)})"
                yield label, lambda e=encoder, w=way, p=pipe: _diffusers(folder, found, e, w, p), family, ways[encoder, way]  # type: ignore[misc]


def _words(way: Way) -> str:
    variant, safe = way
    return " ".join([variant or "default", *([] if safe else ["bin"])])


def _there(library: str) -> bool:
    """Whether a library is installed. It is imported here: what it logs to must not be a stream that `_quiet` closes."""
    try:
        importlib.import_module(library)
    except ImportError:
        return False
    return True


def _open_clip(folder: Path, file: Path) -> Mapping[str, Tensor]:
    import open_clip

    if config(folder / "open_clip_config.json")["model_cfg"].get("text_cfg", {}).get("hf_model_name"):
        raise SlugError("its text tower is another model, which open_clip fetches")
    module = open_clip.create_model(f"{LOCAL}{folder}", require_pretrained=True)
    open_clip.load_checkpoint(module, str(file))  # the folder's other files, too, not only the one that it prefers
    return module.state_dict()


def _transformers(folder: Path, encoder: str, way: Way) -> Mapping[str, Tensor]:
    import transformers

    named = config(folder / encoder / "config.json").get("architectures") or ["CLIPTextModel" if encoder else "CLIPModel"]
    kind = getattr(transformers, files.safe_name(str(named[0])))
    how = {"variant": way[0] or None, "use_safetensors": way[1], "dtype": "auto", "local_files_only": True}
    return kind.from_pretrained(folder / encoder, **how).state_dict()


def _diffusers(folder: Path, found: ModelFolder, encoder: str, way: Way, pipe: dict[str, Any]) -> Mapping[str, Tensor]:
    """The state dict of an encoder of the pipeline, which is loaded without its other parts and then kept in `pipe`."""
    import diffusers

    if not pipe:
        index = config(folder / "model_index.json")
        libraries = [v[0] for v in index.values() if isinstance(v, list) and v]
        known = all(x in (None, "diffusers", "transformers") or hasattr(diffusers.pipelines, str(x)) for x in libraries)
        if not known or not isinstance(index.get("_class_name"), str):
            raise SlugError(
                "it has code of its own, which is not run"
            )  # as diffusers would do with a folder of this machine
        parts = {n for n in index if (folder / n).is_dir() and n not in found.encoders}
        how = {"variant": way[0] or None, "use_safetensors": way[1], "local_files_only": True, **dict.fromkeys(parts)}
        pipe["line"] = diffusers.DiffusionPipeline.from_pretrained(folder, dtype="auto", **how)
    return getattr(pipe["line"], encoder).state_dict()
