"""The model card of an edited folder: base model, what was forgotten, layer, step, figures, licence, and the way back."""

import json
import math

from huggingface_hub import ModelCard, ModelCardData

from slug import files
from slug.errors import SlugError, brief

FILE = "README.md"
SHARES = {  # of a delta's header: what to call it, and the count that belongs to it
    "forget_acc1": ("forget accuracy @1", "n_forget"),
    "forget_upper": ("its 95% upper bound", None),
    "identities_acc1": ("other identities @1", "n_identities"),
    "objects_acc1": ("other objects @1", "n_objects"),
    "UA": ("UA", "n_forget"),
    "IRA": ("IRA", "n_retain"),
    "CRA": ("CRA", "n_retain"),
    "forget_acc": ("forget accuracy", "n_forget"),
    "retain_acc": ("other names", "n_retain"),
    "utility_acc": ("utility", "n_utility"),
}


def figures(header):
    """The figures of a delta's header in words, with counts and the half of the data that they are of."""
    metrics = json.loads(header["metrics"])
    said = []
    for key, (words, count) in SHARES.items():
        value = metrics.get(key)
        if isinstance(value, (int, float)) and not math.isnan(value):
            said.append(f"{words} {value:.1%}" + (f" of {metrics[count]}" if metrics.get(count) else ""))
    text = "; ".join(said) + (f" ({metrics['half']} half)" if "half" in metrics else "")
    others = metrics.get("together_with")  # the edits that the model carried besides when it was judged
    return f"together with the edits of {', '.join(others)}: {text}" if others else text


def text(original, base, headers):
    """The card.

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
    about = ModelCardData(base_model=base, license=license, tags=["machine-unlearning", "slug"])
    # Deltas of earlier versions do not say the name.
    names = [header.get("name") or name.removesuffix(".delta.safetensors") for name, header in headers.items()]
    rows = [
        f"| `{file}` | {name} | `{header['layer']}` | {float(header['step']):.4g} | {figures(header)} |"
        for name, (file, header) in zip(names, headers.items(), strict=True)
    ]
    return "\n".join(
        [
            f"---\n{about.to_yaml()}\n---\n\n# {base} without {', '.join(names)}\n",
            f"`{base}`, edited by SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867): one step on one layer for each of",
            "these. It lowers what is recalled on the pictures and prompts that it was tested on; it does not prove that",
            "nothing is left.\n",
            "| delta | forgotten | layer | step | figures, of this edit alone or as they say |\n|---|---|---|---|---|",
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


def write(folder, original, base, headers):
    """Write the card of `text` into a model folder."""
    files.write_text(folder / FILE, text(original, base, headers))
