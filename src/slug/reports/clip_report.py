"""The report on a folder of a CLIP's records: table.csv, report.md, plots, blocks of a page, and a copy without the run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slug import files, schema
from slug.reports import clip_tables, comparison, naming, rules, searches
from slug.settings import MAX_FORGET

Record = dict[str, Any]
INTRODUCTION = (
    "Layers and steps were chosen on the validation split; every figure here is of the test split. FA is the zero-shot "
    "accuracy, in %, on pictures of the forgotten name; the accuracies on other identities and objects leave these pictures "
    "out. Where nothing is recognised, the bound is the one-sided 95% upper bound (Clopper-Pearson). Changes are paired, "
    "with 95% bootstrap intervals over source images; means over names have 95% t intervals."
)
ONE_SPLIT = (  # in place of the above, where the protocol has no splits
    "Layers, steps and epochs were chosen on the very pictures that are reported here, as published. FA is the zero-shot "
    "accuracy, in %, on all pictures of the forgotten name. Where nothing is recognised, the bound is the one-sided 95% "
    "upper bound (Clopper-Pearson). Changes are paired, with 95% bootstrap intervals over source images; means over names "
    "have 95% t intervals."
)
MEMBERSHIP = (
    "MIA is the accuracy, in %, of telling pictures of the forget set from other source images of the same concept by "
    "logistic regression on the pair's cosine; 50 is chance."
)
PICTURES = (  # the caption of what a page quotes
    "*Pictures of the test split, half of them of the forgotten name. Below each stands the name that the model gives it, "
    "before \u2192 after the edit. Pictures that the unedited model recognises come first.*"
)
COMPARISON = (
    "On the names that every method was run on. Each method is chosen by one rule over all its candidates. The last column "
    "is the paper's, of another model (ViT-B-32) on other data (LAION-400M, CelebA, ImageNet). MIA in brackets follows the "
    "published definition: against unseen pairs of other concepts."
)


def markdown(frame: pd.DataFrame) -> str:
    """The report on a table."""
    used = rules.protocols_of(frame)
    introduction = ONE_SPLIT if any(p.every_picture for p in used) else INTRODUCTION
    parts = [f"# SLUG on {', '.join(sorted(frame['model'].unique()))}: {frame['name'].nunique()} names", introduction]
    parts.append(rules.said(frame))
    parts += ["## All names", clip_tables.pooled(frame), clip_tables.means_table(frame)]
    parts += ["## Each name", clip_tables.names_table(frame), *clip_tables.not_forgotten(frame)]
    parts += [] if any(p.own_captions for p in used) else [MEMBERSHIP]
    if comparison.has_baselines(frame):
        table, statements, costs = comparison.parts(frame)
        parts += ["## Comparison", COMPARISON, table, statements, "### Cost", costs]
    return "\n\n".join([*parts, ""])


def write(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Write table.csv and report.md; returns the table as a reader of the file gets it, rounded, so that texts agree."""
    files.write_text(folder / "table.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    frame = pd.read_csv(folder / "table.csv")
    files.write_text(folder / "report.md", markdown(frame))
    if comparison.has_baselines(frame):
        files.write_text(folder / "comparison.tex", comparison.latex(frame))
    return frame


def compares(frame: pd.DataFrame) -> bool:
    """Whether SLUG and a baseline were run."""
    return comparison.has_baselines(frame) and "slug" in set(frame["method"])


def headline(frame: pd.DataFrame) -> str:
    """The table of README: SLUG beside the unedited model, as means over names."""
    return clip_tables.means_table(frame[frame["method"].map(lambda m: m == schema.ORIGINAL or schema.is_slug(m))])


def page_blocks(frame: pd.DataFrame, found: list[Record]) -> dict[str, str]:
    """What the README.md of the result folder quotes: {block: Markdown}."""
    parts = [rules.line(frame), clip_tables.pooled(frame), headline(frame)]
    parts += [clip_tables.names_table(frame), *clip_tables.not_forgotten(frame)]
    by_known = sorted(found, key=lambda r: r["splits"]["test"][schema.ORIGINAL]["forget_acc1"])
    best_known = {r["kind"]: r for r in by_known if r["method"] == "slug"}
    links = [
        f"![{r['name']} before and after]({schema.file_name(r['model'], r['name'], '.png', 'pictures')})"
        for r in (best_known[k] for k in ("identity", "object") if k in best_known)
    ]
    blocks = {"results": "\n\n".join(parts), "pictures": "\n\n".join([*links, PICTURES] if links else [])}
    if compares(frame):
        blocks["comparison"] = "\n\n".join(comparison.parts(frame))
    return blocks


def summary(frame: pd.DataFrame, found: list[Record]) -> str:
    """What the terminal shows."""
    parts = [clip_tables.means_table(frame), *(comparison.parts(frame) if compares(frame) else [])]
    winners = ", ".join(f"{r['name']} {r['layer']}" for r in found if "fronts" in r)
    parts += [clip_tables.names_table(frame), *clip_tables.not_forgotten(frame), clip_tables.pooled(frame)]
    return "\n".join([*parts, f"winner layers: {winners}"])


def draw_steps(record: Record, folder: Path) -> None:
    """The step-size curves of one of SLUG's records, from the CSV of its candidates in the same folder."""
    from slug.reports import plots

    rows = searches.read_steps(folder, record)
    figures, settings = record["splits"]["validation"][schema.ORIGINAL], record["settings"]
    limit = settings["select_pictures"] or np.inf
    counts = {"forget": figures["n_forget"], "trace": settings["trace"]}
    counts |= {t: min(figures[f"n_{t}"], limit) for t in schema.TASKS}
    stem = folder / schema.file_name(record["model"], record["name"], "", "steps")
    tasks, most = {task: f"other {task}" for task in schema.TASKS}, settings.get("max_forget", MAX_FORGET)
    winner, name = record["winner_validation"], record["name"]
    plots.steps(rows[1:], rows.iloc[0], winner, tasks, counts, name, stem, forgotten=most)


def _retained_interval(record: Record) -> np.ndarray | None:
    """(low, high), relative to the accuracy, of the mean of both retained accuracies on the validation split.

    The pictures of both tasks are others, so their errors add as squares. None where a task was not evaluated.
    """
    figures, squares = record["splits"].get("validation", {}).get(record["method"], {}), np.zeros(2)
    for task in schema.TASKS:
        ends = np.array([figures.get(f"{task}_change{end}", np.nan) for end in ("_low", "_high")], float)
        squares += (ends - figures.get(f"{task}_change", np.nan)) ** 2
    return None if np.isnan(squares).any() else np.array([-1, 1]) * np.sqrt(squares) / len(schema.TASKS)


def draw_comparison(found: list[Record], folder: Path) -> None:
    """Forget against retained accuracy of every candidate, for each name that a baseline was run on; and the cost bars."""
    from slug.reports import plots

    frame = comparison.compared(clip_tables.table(found))
    for name in frame["name"].unique():
        records_of = {r["method"]: r for r in found if r["name"] == name}
        points, chosen, bars = {}, dict[str, Any](), dict[str, tuple[float, float]]()
        for method in naming.in_order(records_of):
            best = records_of[method]
            rows = searches.with_retained(searches.read_steps(folder, best))
            points[schema.ORIGINAL] = rows[["forget_acc1", "retain"]].to_numpy()[:1]
            points[method] = rows[["forget_acc1", "retain"]].dropna().to_numpy()[1:]
            found_one = searches.chosen(rows, best, folder / schema.steps_file(best))
            chosen[method] = found_one[["forget_acc1", "retain"]].to_numpy(float)
            if (interval := _retained_interval(best)) is not None:
                bars[method] = tuple(chosen[method][1] + interval)
        title = f"{name}: every candidate of every method"
        stem = folder / schema.file_name(records_of["slug"]["model"], name, "", "tradeoff")
        plots.tradeoff(points, chosen, title, stem, forgotten=rules.max_forget(frame), bars=bars)
    means = frame[frame["method"] != schema.ORIGINAL].groupby("method", observed=True)
    spent = means[["search_s", "seconds", "peak_mem_mb", "delta_bytes"]].mean()
    costs = {method: (tried, chosen, memory, size / 1e3) for method, tried, chosen, memory, size in spent.itertuples()}
    title = f"Cost of forgetting a name, mean over {frame['name'].nunique()} names"
    plots.costs(costs, title, folder / f"{files.safe_name(found[0]['model'])}-costs")


def _is_drawn(record: Record, folder: Path) -> bool:
    """Whether the step plot of a record was drawn after its CSV was written, as a2_unlearn_slug.py does."""
    stem, csv = schema.file_name(record["model"], record["name"], "", "steps"), folder / schema.steps_file(record)
    made = [folder / f"{stem}.{kind}" for kind in ("png", "pdf")]
    return csv.is_file() and all(p.is_file() and p.stat().st_mtime_ns >= csv.stat().st_mtime_ns for p in made)


def draw(found: list[Record], folder: Path, frame: pd.DataFrame) -> None:
    """All plots that records and CSVs are enough for; step plots that are there and up to date are kept."""
    for record in found:
        if "fronts" in record and not _is_drawn(record, folder):
            draw_steps(record, folder)
    if compares(frame):
        draw_comparison(found, folder)


def copy(found: list[Record], source: Path, out: Path) -> None:
    """Copy what a folder needs that is read without the run it came from: pictures, logs, records and deltas."""
    for record in found:
        names = [schema.record_file(record), schema.steps_file(record)]
        if schema.is_slug(record["method"]):
            names += [p.name for p in source.glob(schema.file_name(record["model"], record["name"], ".png", part="*"))]
            names.append(record["delta"])
        for name in dict.fromkeys(names):
            there = files.existing(source / name, f"a file of the record of {record['name']}", "run its stage again")
            files.place(there, out / name)
    for path in [*source.glob("*-important_layers.txt"), *source.glob("*-costs.png")]:
        files.place(path, out / path.name)
