"""How many pictures are enough? Gradients of the first pairs beside those of all of them, over the names of a1's folder."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slug import files
from slug.errors import SlugError
from slug.reports import markdown, reading, rules
from slug.schema import ALL_LAYERS, SAMPLE_FRONTS, SAMPLE_FRONTS_COLUMNS, SAMPLES, SAMPLES_COLUMNS

REMEDY = "make them with src/clip/a1_compute_grad.py --checkpoints"
COSINES = (
    "Cosine of the gradient of the first pairs with that of all pairs; of the forget sets and of the retain set, which no "
    "split contains."
)
FRONTS = (
    "Above: Pareto fronts of one name by the first pairs and by all. Below: how many layers of the front of all pairs are "
    "found, for each name (thin) and in the mean (thick). Of the forget sets and of the retain set, which no split contains."
)
LEVELS = (0.95, 0.99)
SIDES = {"forget": "forget gradient", "train": "retain gradient"}
WORDS = ("side", "protocol", "encoder", "on_front")  # columns of words besides reading.TEXTS


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(cosines, fronts) of all names in a folder of gradients. SlugError where there is none, or a table is damaged."""
    found = []
    for file, columns in ((SAMPLES, SAMPLES_COLUMNS), (SAMPLE_FRONTS, SAMPLE_FRONTS_COLUMNS)):
        paths = sorted(folder.glob(f"*/{file}"))
        if not paths:
            raise SlugError(f"{folder} has no {file} of any name; {REMEDY}")
        numbers = [c for c in columns if c not in WORDS]
        frames = [reading.csv_table(path, numbers, REMEDY) for path in paths]
        lacks = next((c for frame in frames for c in columns if c not in frame), None)
        if lacks:
            raise SlugError(f"a {file} in {folder} has no column {lacks}; {REMEDY}")
        found.append(pd.concat(frames, ignore_index=True))
    return found[0], found[1]


def enough(part: pd.DataFrame, level: float) -> float:
    """The number of pairs from which on a cosine stays at a level or above it; NaN where it never does.

    Args:
        part: one gradient's `pairs` and `cosine`.
    """
    part = part.sort_values("pairs")
    below = part[part["cosine"] < level]["pairs"]
    after = part[part["pairs"] > (below.max() if len(below) else 0)]["pairs"]
    return float(after.min()) if len(after) else float("nan")


def spread(values: Sequence[float], names: int) -> str:
    """The median of what some of `names` names need, their range, and how many never get there."""
    known = pd.Series(values, dtype=float).dropna()
    if known.empty:
        return f"not with these counts ({names} of {names} names)"
    text = f"{known.median():.0f} ({known.min():.0f} to {known.max():.0f})"
    return text if len(known) == names else f"{text}; not with these counts: {names - len(known)} of {names} names"


def cosines_table(cosines: pd.DataFrame) -> str:
    """Markdown: the pairs that each gradient needs, as one vector and layer by layer."""
    heads = f"gradient | names | {' | '.join(f'pairs for a cosine of {x:.0%}, all layers as one' for x in LEVELS)} | "
    heads += " | ".join(f"layers that reach {x:.0%} with the most pairs tried" for x in LEVELS)
    rows = []
    for side, words in SIDES.items():
        mine = cosines[cosines["side"] == side]
        if mine.empty:
            continue
        whole, single = mine[mine["layer"] == ALL_LAYERS], mine[mine["layer"] != ALL_LAYERS]
        names = whole["name"].nunique()
        needs = [spread([enough(p, x) for _, p in whole.groupby("name")], names) for x in LEVELS]
        last = single[single["samples"] == single.groupby("name")["samples"].transform("max")]
        rows.append([words, names, *needs, *(f"{(last['cosine'] >= x).mean():.0%}" for x in LEVELS)])
    return markdown.table(heads, rows)


def overlap(fronts: pd.DataFrame) -> pd.DataFrame:
    """A row for each name, encoder and number of samples: `kept`, the share of the final front's layers that are on the
    front then, and `new`, how many of the front's layers are not on the final one."""
    rows = []
    for (name, encoder), part in fronts[fronts["on_front"].astype(bool)].groupby(["name", "encoder"], sort=False):
        by_count = {n: set(p["layer"]) for n, p in part.groupby("samples")}
        final = by_count.pop(0, set())
        for n, layers in by_count.items() if final else ():
            kept = len(layers & final) / len(final)
            rows.append({"name": name, "encoder": encoder, "samples": n, "kept": kept, "new": len(layers - final)})
    return pd.DataFrame(rows, columns=["name", "encoder", "samples", "kept", "new"])


def fronts_table(fronts: pd.DataFrame) -> str:
    """Markdown: how much of the final Pareto fronts is found with how many pairs, means over names."""
    heads = "pairs | encoder | names | share of the final front's layers | layers that the final front lacks"
    rows = [
        [n, encoder, len(part), f"{part['kept'].mean():.0%}", f"{part['new'].mean():.1f}"]
        for (n, encoder), part in overlap(fronts).groupby(["samples", "encoder"])
    ]
    return markdown.table(heads, rows)


def report(cosines: pd.DataFrame, fronts: pd.DataFrame, models: Sequence[str] = ()) -> str:
    """The report; `models` are the models whose gradients these are."""
    names = ", ".join(cosines["name"].unique())
    said = (
        f"Gradients{' of ' * bool(models)}{' and '.join(models)} by the first pairs of a set are compared with those by all "
        f"its pairs. The names are {names}. Pairs come in the order of the tar, in whole batches. A number of pairs is "
        "enough if from there on the cosine with the gradient by all pairs is at the level or above it. Figures are medians "
        "over names, with the range in brackets."
    )
    parts = ["# How many pictures are enough?", said, cosines_table(cosines)]
    parts += [markdown.figure("cosines by the number of pairs", "cosines.png", COSINES), "## Pareto fronts"]
    parts += ["A set that has no more pairs than a row says counts with all of them.", fronts_table(fronts)]
    parts += [markdown.figure("fronts by the number of pairs", "fronts.png", FRONTS), rules.line(cosines), ""]
    return "\n\n".join(parts)


def write(source: Path, out: Path, readme: str = "") -> None:
    """Write the report, both figures and both tables; and fill the block `samples` of a page."""
    from slug.reports import plots

    cosines, fronts = read(source)
    models = sorted(path.name.removeprefix("retain_") for path in source.glob("retain_*"))
    overall = cosines[cosines["layer"] == ALL_LAYERS]
    files.write_text(out / "cosines.csv", overall.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    marked = fronts[fronts["on_front"].astype(bool)].drop(columns="on_front")
    files.write_text(out / "fronts.csv", marked.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    plots.sample_cosines(cosines, LEVELS, out / "cosines")
    plots.sample_fronts(fronts, overlap(fronts), out / "fronts")
    markdown.publish(out / "README.md", report(cosines, fronts, models).rstrip(), "samples", readme, cosines_table(cosines))
