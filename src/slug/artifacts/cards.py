"""Model cards of edited folders and adapters: base model, what was forgotten, layer, step, figures, licence, way back."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData

from slug import files
from slug import methods as registry
from slug.errors import SlugError, brief

FILE = "README.md"
Header = Mapping[str, str]  # of a delta
LOADED = {  # by library of an adapter: how to load the adapter, and how to remove it
    "diffusers": ("pipeline.load_lora_weights(HERE)", "pipeline.unload_lora_weights()"),
    "peft": ("model = PeftModel.from_pretrained(model, HERE)", "with model.disable_adapter():"),
}
SHARES = {  # figures of a delta's header: words for each, and the count that it is a fraction of
    "forget_acc1": ("forget accuracy @1", "n_forget"),
    "forget_upper": ("its 95% upper bound", None),
    "identities_acc1": ("other identities @1", "n_identities"),
    "objects_acc1": ("other objects @1", "n_objects"),
    "UA": ("UA", "n_forget"),
    "IRA": ("IRA", "n_retain"),
    "CRA": ("CRA", "n_retain"),
    "forget_acc": ("forget accuracy", "n_forget"),
    "forget_seen_acc": ("of source images that training contained", "n_forget_seen"),
    "forget_unseen_acc": ("of source images that it did not", "n_forget_unseen"),
    "identities_acc": ("other identities", "n_identities"),
    "objects_acc": ("other objects", "n_objects"),
    "utility_acc": ("utility", "n_utility"),
}
EARLIER_SPLITS = {"select": "validation", "report": "test"}  # `half` of earlier versions' deltas


class Contents(NamedTuple):
    """What an edited folder holds."""

    edited: list[str]  # weight files that carry the edit
    not_edited: dict[str, list[str]]  # {text encoder: names that it still knows}
    left_out: list[str]  # files of the original folder that may hold the original weights and cannot be edited
    sealed: bool = False


UNKNOWN = Contents([], {}, [])  # nothing is said of what the folder holds


def few(names: Sequence[str], most: int = 8) -> str:
    """Names in one line; of many the first ones and a count."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def lines(contents: Contents) -> list[str]:
    """What an edited folder holds, in words."""
    about = [f"edited: {few(contents.edited)}"] if contents.edited else []
    about += [f"NOT edited: {encoder}, which still knows {few(names)}" for encoder, names in contents.not_edited.items()]
    if contents.left_out:
        about += [f"left out, because they may hold the original weights and cannot be edited: {few(contents.left_out)}"]
    return about


def method_of(header: Header) -> str:
    """The method that made a delta; deltas of earlier versions do not name it."""
    return json.loads(header["metrics"]).get("method") or ("slug_rounds" if " + " in header["layer"] else "slug")


def figures(header: Header) -> str:
    """The figures of a delta's header in words, with counts and the split that they were measured on."""
    metrics = json.loads(header["metrics"])
    if metrics.get("towers"):
        return "; ".join(f"{tower}: {_figures(own)}" for tower, own in metrics["towers"].items())
    return _figures(metrics)


def _figures(metrics: Mapping[str | None, Any]) -> str:
    said = []
    for key, (words, count) in SHARES.items():
        value = metrics.get(key)
        if isinstance(value, (int, float)) and not math.isnan(value):
            said.append(f"{words} {value:.1%}" + (f" of {metrics[count]}" if metrics.get(count) else ""))
    split = metrics.get("split") or EARLIER_SPLITS.get(metrics.get("half", ""))
    text = "; ".join(said) + (f" ({split} split)" if split else "")
    others = metrics.get("together_with")  # names whose edits the model carried too when it was evaluated
    return f"together with the edits of {', '.join(others)}: {text}" if others else text


def name_of(file: str, header: Header) -> str:
    """What a delta forgets; deltas of earlier versions do not say it."""
    return header.get("name") or file.removesuffix(".delta.safetensors")


def _row(file: str, header: Header) -> str:
    """Row of a card's table for one delta, with the step of each layer that moved."""
    chosen = json.loads(header["metrics"]).get("chosen") or [(header["layer"], header["step"])]
    steps = " + ".join(f"{float(step):.4g}" for _, step in chosen)
    return f"| `{file}` | {_cell(name_of(file, header))} | `{header['layer']}` | {steps} | {figures(header)} |"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _head(
    base: str, license: str, names: Iterable[str], headers: Iterable[Header], *, partly: str = "", **more: Any
) -> list[str]:
    """The first lines of a card. `partly`: "partly " if an encoder is not edited. `more`: fields of the YAML header."""
    methods = list(dict.fromkeys(map(method_of, headers)))
    tags = ["machine-unlearning", *(["slug"] if any(m.startswith("slug") for m in methods) else []), *more.pop("tags", [])]
    about = ModelCardData(base_model=base, license=license, tags=tags, **more)
    known = registry.names()
    cited = [registry.get(m).citation if m in known else f"the method {m}" for m in methods]  # one from elsewhere
    return [
        f"---\n{about.to_yaml()}\n---\n\n# {base} {partly}without {', '.join(names)}\n",
        f"`{base}`, edited by {'; '.join(cited)}.",
        "The edit lowers what the model recalls on the pictures and prompts of the tests. It does not prove that nothing is",
        "left.\n",
    ]


def text(original: str, base: str, headers: Mapping[str, Header], contents: Contents = UNKNOWN) -> str:
    """The card of a folder with deltas, {file name: header}, of the model `base`, whose card's text is `original` or "".

    Raises SlugError if the YAML header of the base model's card cannot be read.
    """
    license = _card_data(original).get("license") or "other"
    names = [name_of(*item) for item in headers.items()]
    held = lines(contents)
    return "\n".join(
        [
            *_head(base, license, names, headers.values(), partly="partly " if contents.not_edited else ""),
            "| delta | forgotten | layer or setting | step | figures of this edit |\n|---|---|---|---|---|",
            *(_row(*item) for item in headers.items()),
            *(["\n## What is edited\n", *(f"- {line}" for line in held)] if held else []),
            "\n## Back to the original\n",
            *(_sealed() if contents.sealed else _way_back(headers)),
            f"## Licence\n\nThat of the base model ({license}).",
            *(["\n## The base model's own card\n", ModelCard(original).text.strip()] if original else []),
            "",
        ]
    )


def _way_back(files: Iterable[str]) -> list[str]:
    """The lines of a card on how to revert deltas of these file names."""
    return [
        "`slug_edits/` holds the original of each changed tensor, and the deltas. With this project's code:\n",
        f"```bash\npython src/clip/a2_unlearn_slug.py revert --delta {' '.join(files)} --model-dir HERE --out THERE",
        "```\n",
        "restores the original weights, bit for bit; with fewer deltas in the list it reverts only these.\n",
        "Who has `slug_edits/` has what was forgotten. Before this folder is given away, seal it:\n",
        "```bash\npython src/clip/a2_unlearn_slug.py seal --model-dir HERE --out THERE\n```\n",
    ]


def _sealed() -> list[str]:
    """The same of a sealed folder."""
    return ["This folder is sealed: it holds neither the original tensors nor the deltas, so that it cannot be reverted.\n"]


def license_of(folder: str | Path) -> str:
    """The licence that the card in a model folder names; "other" where there is no such card."""
    path = Path(folder) / FILE
    return _card_data(files.read_text(path)).get("license") or "other" if folder and path.is_file() else "other"


def _card_data(original: str) -> Any:
    """The YAML header of a card's text. SlugError if it cannot be read."""
    try:
        return ModelCard(original).data if original else ModelCardData()
    except Exception as err:  # the hub's library raises YAML's errors and its own
        raise SlugError(f"the {FILE} beside the model cannot be read as a model card: {brief(err)}") from err


def adapter_text(
    library: str, base: str, file: str, header: Header, factors: Mapping[str, Any], license: str = "other"
) -> str:
    """The card of an adapter, {module: Factor}, of the model `base`, made from a delta; LOADED has the libraries."""
    load, remove = LOADED[library]
    return "\n".join(
        [
            *_head(base, license, [name_of(file, header)], [header], tags=["lora"], library_name=library),
            "This folder is the edit as a LoRA adapter; it holds none of the model's weights.\n",
            "| delta | forgotten | layer | step | figures of the whole delta |\n|---|---|---|---|---|",
            _row(file, header),
            "\n| module | rank | residual: norm of what the adapter leaves out / norm of the edit |\n|---|---|---|",
            *(f"| `{module}` | {f.rank} | {f.residual:.2%} |" for module, f in factors.items()),
            f"\n## Back to the original\n\n`{load}` adds the adapter, `{remove}` removes it; the base model's files do not",
            f"change.\n\n## Licence\n\nThat of the base model, `{base}`{f' ({license})' if license != 'other' else ''}.",
            "",
        ]
    )


def write(folder: Path, original: str, base: str, headers: Mapping[str, Header], contents: Contents) -> None:
    """Write the card of `text` into a model folder."""
    files.write_text(folder / FILE, text(original, base, headers, contents))
