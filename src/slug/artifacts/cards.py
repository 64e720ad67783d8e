"""The card of an edited folder or adapter: base model, what was forgotten, layer, step, figures, licence, the way back."""

import json
import math

from huggingface_hub import ModelCard, ModelCardData

from slug import files
from slug.errors import SlugError, brief

FILE = "README.md"
LOADED = {  # library of an adapter: how it is loaded, how it is left again
    "diffusers": ("pipeline.load_lora_weights(HERE)", "pipeline.unload_lora_weights()"),
    "peft": ("model = PeftModel.from_pretrained(model, HERE)", "with model.disable_adapter():"),
}
SHARES = {  # of a delta's header: what to call it, and the count that belongs to it
    "forget_acc1": ("forget accuracy @1", "n_forget"),
    "forget_upper": ("its 95% upper bound", None),
    "identities_acc1": ("other identities @1", "n_identities"),
    "objects_acc1": ("other objects @1", "n_objects"),
    "UA": ("UA", "n_forget"),
    "IRA": ("IRA", "n_retain"),
    "CRA": ("CRA", "n_retain"),
    "forget_acc": ("forget accuracy", "n_forget"),
    "identities_acc": ("other identities", "n_identities"),
    "objects_acc": ("other objects", "n_objects"),
    "utility_acc": ("utility", "n_utility"),
}


MADE = {  # how an edit was made, by method
    "slug": "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867), one step on one layer",
    "slug_o": "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867), one step on one layer, with a contrastive forget loss",
    "slug_w": "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867), one step on one layer, along the whitened gradient",
    "slug_ws": "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867), one step on one layer, along the whitened gradient that "
    "spares the other names",
    "slug_rounds": "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867) in rounds, a step on each of several layers",
    "slug_w_rounds": "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867) in rounds, along whitened gradients",
    "slug_ws_rounds": "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867) in rounds, along whitened gradients that spare "
    "the other names",
    "uce": "UCE (Gandikota et al.; WACV 2024), the cross-attention solved in closed form",
    "esd": "ESD (Gandikota et al.; ICCV 2023), the cross-attention fine-tuned",
}


def method_of(header):
    """A key of MADE; deltas of earlier versions do not say it."""
    return json.loads(header["metrics"]).get("method") or ("slug_rounds" if " + " in header["layer"] else "slug")


def _steps(header):
    """The step of every layer that was moved."""
    chosen = json.loads(header["metrics"]).get("chosen") or [(header["layer"], header["step"])]
    return " + ".join(f"{float(step):.4g}" for _, step in chosen)


def figures(header):
    """The figures of a delta's header in words, with counts and the half of the data that they are of."""
    metrics = json.loads(header["metrics"])
    said = []
    for key, (words, count) in SHARES.items():
        value = metrics.get(key)
        if isinstance(value, (int, float)) and not math.isnan(value):
            said.append(f"{words} {value:.1%}" + (f" of {metrics[count]}" if metrics.get(count) else ""))
    text = "; ".join(said) + (f" ({metrics['split']} split)" if "split" in metrics else "")
    others = metrics.get("together_with")  # the edits that the model carried besides when it was judged
    return f"together with the edits of {', '.join(others)}: {text}" if others else text


def _name(file, header):
    """What a delta forgets; deltas of earlier versions do not say it."""
    return header.get("name") or file.removesuffix(".delta.safetensors")


def _head(base, license, names, headers, **more):
    """The first lines of a card. `more`: fields of its header besides."""
    methods = list(dict.fromkeys(map(method_of, headers)))
    tags = ["machine-unlearning", *(["slug"] if any(m.startswith("slug") for m in methods) else []), *more.pop("tags", [])]
    about = ModelCardData(base_model=base, license=license, tags=tags, **more)
    return [
        f"---\n{about.to_yaml()}\n---\n\n# {base} without {', '.join(names)}\n",
        f"`{base}`, edited by {'; '.join(MADE[m] for m in methods)}.",
        "It lowers what is recalled on the pictures and prompts that it was tested on; it does not prove that nothing is",
        "left.\n",
    ]


def text(original, base, headers):
    """The card of an edited folder.

    Args:
        original: text of the base model's card, "" where it has none.
        base: name of the base model.
        headers: {file name of a delta: its header}.
    Raises:
        SlugError: the base model's card has a header that cannot be read.
    """
    try:
        data = ModelCard(original).data if original else ModelCardData()
    except Exception as err:  # the hub's library raises what YAML does, and its own
        raise SlugError(f"the {FILE} beside the model cannot be read as a model card: {brief(err)}") from err
    license = data.get("license") or "other"
    names = [_name(file, header) for file, header in headers.items()]
    rows = [
        f"| `{file}` | {name} | `{header['layer']}` | {_steps(header)} | {figures(header)} |"
        for name, (file, header) in zip(names, headers.items(), strict=True)
    ]
    return "\n".join(
        [
            *_head(base, license, names, headers.values()),
            "| delta | forgotten | layer or setting | step | figures, of this edit or as said |\n|---|---|---|---|---|",
            *rows,
            "\n## Back to the original\n",
            "`slug_edits/` holds the original of every tensor that was changed, and the deltas. With this project's code:\n",
            f"```bash\npython src/clip/a2_unlearn_slug.py revert --delta {' '.join(headers)} --model-dir HERE --out THERE",
            "```\n",
            "gives the original weights, bit for bit; a part of the list takes only these edits back.\n",
            f"## Licence\n\nThat of the base model ({license}).",
            *(["\n## The base model's own card\n", ModelCard(original).text.strip()] if original else []),
            "",
        ]
    )


def adapter_text(library, base, file, header, factors):
    """The card of an adapter folder.

    Args:
        library: what loads it, a key of LOADED.
        base: name of the model that it belongs to.
        file, header: name and header of the delta that it was made of.
        factors: {module: lora.Factor}.
    """
    load, leave = LOADED[library]
    name = _name(file, header)
    return "\n".join(
        [
            *_head(base, "other", [name], [header], tags=["lora"], library_name=library),
            "This folder is the edit as a LoRA adapter; it holds none of the model's weights.\n",
            "| delta | forgotten | layer | step | figures, of the whole delta |\n|---|---|---|---|---|",
            f"| `{file}` | {name} | `{header['layer']}` | {_steps(header)} | {figures(header)} |",
            "\n| module | rank | residual: norm of what the adapter leaves out, of the edit's |\n|---|---|---|",
            *(f"| `{module}` | {f.rank} | {f.residual:.2%} |" for module, f in factors.items()),
            f"\n## Back to the original\n\n`{load}` adds it, `{leave}` takes it away again; the base model's files stay as",
            f"they are.\n\n## Licence\n\nThat of the base model (`{base}`).",
            "",
        ]
    )


def write(folder, original, base, headers):
    """Write the card of `text` into a model folder."""
    files.write_text(folder / FILE, text(original, base, headers))
