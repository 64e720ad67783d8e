#!/usr/bin/env python
"""Write the committed reports, the tables of README and of the pages in results/, and their index from the committed tables.

Example: python scripts/tools/rewrite_reports.py            after a change of words or layout in slug.reports
         python scripts/tools/rewrite_reports.py --plots    all figures that committed tables are enough for, too
"""

import functools
import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from slug import cli, files
from slug.artifacts import records
from slug.cli import flag
from slug.evaluation import questions
from slug.reports import (
    assistants,
    bench,
    clip_report,
    comparison,
    durability_report,
    markdown,
    pipelines,
    plots,
    reading,
    recovered,
    rules,
    samples,
    several,
    study_report,
)

DEMO = files.ROOT / "results" / "demo"
Blocks = dict[str, str]


def notes(path: Path) -> list[str]:
    """The paragraphs of a report that are neither tables nor about its protocol."""
    parts = path.read_text(encoding="utf-8").strip().split("\n\n")
    return [p for p in parts if not p.startswith(("|", "* ", rules.BEGINNING))]


def clip() -> Blocks:
    """SLUG beside the baselines."""
    frame = pd.read_csv(DEMO / "table.csv")
    files.write_text(DEMO / "report.md", clip_report.markdown(frame))
    files.write_text(DEMO / "comparison.tex", comparison.latex(frame))
    return clip_report.page_blocks(frame, records.read_all(DEMO))


def headline() -> Blocks:
    """README's table."""
    return {"headline": clip_report.headline(pd.read_csv(DEMO / "table.csv"))}


def study() -> Blocks:
    """The verdicts on the paper's claims."""
    frame = pd.read_parquet(DEMO / "study" / "runs.parquet")
    files.write_text(files.ROOT / "results" / "REPORT.md", study_report.report(frame, "demo/study/variants.png"))
    return study_report.blocks(frame)


def durability() -> Blocks:
    """What comes back."""
    folder = DEMO / "lasting"
    frame = pd.read_parquet(folder / "runs.parquet")
    plot = next(folder.glob("*-relearning.png")).name
    files.write_text(folder / "REPORT.md", durability_report.report(frame, plot))
    return {"lasting": durability_report.page_block(frame)}


def multi() -> Blocks:
    """Several names at once."""
    parts = []
    for path in sorted(DEMO.glob("multi/**/table.csv"), key=lambda p: (len(p.parts), p)):
        frame = pd.read_csv(path)
        shown = sorted(path.parent.glob(f"*-cosine-sum-{frame['count'].max()}*.png"))
        files.write_text(path.with_name("report.md"), several.report(frame, [p.name for p in shown]) + "\n")
        parts.append((frame, [os.path.relpath(p, DEMO / "multi") for p in shown]))
    return {"multi": several.parts_report(parts)}


def canvas(folder: Path = DEMO / "uncanvas") -> Blocks:
    """Styles and objects of a pipeline; of a run that is not finished, what is there."""
    made = {  # {file without its ending: (block of the page, its text)}
        "table": ("uncanvas", lambda frame: pipelines.report(frame, "object classifier", remarks(folder))),
        "tokens": ("tokens", pipelines.tokens),
        "multi": ("uncanvas-multi", lambda frame: pipelines.together(frame, added_up(folder))),
        "back": ("back", recovered.report),
    }
    blocks = {}
    for name, (block, report) in made.items():
        if (folder / f"{name}.csv").is_file():
            blocks[block] = report(pd.read_csv(folder / f"{name}.csv"))
            files.write_text(folder / f"{name.replace('table', 'report')}.md", blocks[block] + "\n")
    return blocks


def remarks(folder: Path) -> str:
    """The paragraphs of a pipeline's report that its table does not hold."""
    return "\n\n".join(n for n in notes(folder / "report.md") if not any(w in n for w in pipelines.NOTES))


def added_up(folder: Path) -> str:
    """The method whose edits a pipeline's concepts were forgotten together by."""
    found = re.search(r"edits of `(\w+)`", notes(folder / "multi.md")[0])
    return found[1] if found else "slug"


def kinds_of(folder: Path, names: list[str]) -> pd.DataFrame:
    """Accuracy by name and kind of utility question, from the transcripts."""
    rows = []
    for name in names:
        path = next(folder.glob(f"*-{name.replace(' ', '_')}.jsonl"))
        lines = pd.DataFrame(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        for kind, part in lines[lines["part"] == "utility"].groupby("task", sort=False):
            before, after = part["right_before"].mean(), part["right_after"].mean()
            rows.append({"name": name, "kind": kind, "before": before, "after": after, "n": len(part)})
    return pd.DataFrame(rows)


def assistant() -> Blocks:
    """Names that an assistant forgets."""
    folder = DEMO / "vlm"
    frame = pd.read_csv(folder / "table.csv")
    text = assistants.report(frame, kinds_of(folder, list(dict.fromkeys(frame["name"]))))
    text += "\n\n" + probed(folder)
    plot = next(folder.glob("*-curve.png")).name
    text += "\n\n" + assistants.curve_report(pd.read_csv(folder / "curve.csv"), plot)
    files.write_text(folder / "report.md", text + "\n")
    published_steps(folder / "slug")
    return {"vlm": text}


def probed(folder: Path) -> str:
    """The table of an assistant's probes."""
    return assistants.probes_report(pd.read_csv(folder / "probes.csv"), questions.PROBES, questions.TEXT_ONLY)


def published_steps(folder: Path) -> None:
    """The report of the paper's steps. Its transcripts are not committed: figures by kind of question stay as they are."""
    report = folder / "report.md"
    kept = [p for p in report.read_text(encoding="utf-8").strip().split("\n\n") if p.startswith("| kind of question")]
    kinds = pd.DataFrame(columns=["name", "kind", "before", "after", "n"])
    text = assistants.report(pd.read_csv(folder / "table.csv"), kinds)
    files.write_text(report, "\n\n".join([text, *kept, probed(folder)]) + "\n")


def timing() -> Blocks:
    """How long the search takes."""
    return {"benchmark": bench.table(pd.read_csv(files.ROOT / "results" / "bench" / "table.csv"))}


PAGES = {  # what the tables of each page are made by
    "README.md": headline,
    "results/demo/README.md": clip,
    "results/demo/study/README.md": study,
    "results/demo/lasting/README.md": durability,
    "results/demo/multi/README.md": multi,
    "results/demo/uncanvas/README.md": canvas,
    "results/demo/uncanvas-test-objects/README.md": functools.partial(canvas, DEMO / "uncanvas-test-objects"),
    "results/demo/vlm/README.md": assistant,
    "results/bench/README.md": timing,
}


def title(path: Path) -> str:
    """The title of a Markdown file; empty if it begins without one."""
    first = next(line for line in path.read_text(encoding="utf-8").splitlines() if line)
    return first[2:] if first.startswith("# ") else ""


def index() -> str:
    """results/README.md: every committed page and report, by its title."""
    lines = [
        "# Committed results",
        "",
        "Except for timings, the models are small ones that this repository trained on EmojiCanvas, its world of emoji.",
        "Start with the pages named `README.md`; each `report.md` has every row. `scripts/tools/rewrite_reports.py` writes",
        "this index. Your own runs write into other folders here, which git ignores.",
        "",
    ]
    root = files.ROOT / "results"
    tracked = subprocess.run(["git", "ls-files", "results"], cwd=files.ROOT, capture_output=True, text=True, check=True)
    for path in sorted(files.ROOT / line for line in tracked.stdout.splitlines() if line.endswith(".md")):
        if path.parent != root or path.name != "README.md":
            name = path.relative_to(root)
            page = next(folder / "README.md" for folder in path.parents if (folder / "README.md").is_file())
            lines.append(f"* [{name}]({name}): {title(path) or f'tables of *{title(page)}*'}")
    return "\n".join(lines) + "\n"


def draw() -> None:
    """The figures that are made of committed tables alone. The others need models, see docs/maintain.md."""
    found = records.read_all(DEMO)
    for record in found:
        if "fronts" in record:
            clip_report.draw_steps(record, DEMO)
    clip_report.draw_comparison(found, DEMO)
    study_report.draw(pd.read_parquet(DEMO / "study" / "runs.parquet"), DEMO / "study" / "variants")
    fronts = pd.read_csv((folder := DEMO / "study" / "samples") / "fronts.csv").assign(on_front=True)
    plots.sample_fronts(fronts, samples.overlap(fronts), folder / "fronts")
    plot = next((DEMO / "lasting").glob("*-relearning.png"))
    frame = pd.read_parquet(plot.with_name("runs.parquet"))
    plots.relearning(*durability_report.curves(frame), durability_report.title(frame), plot.with_suffix(""))
    plot = next((DEMO / "vlm").glob("*-curve.png"))
    frame = assistants.with_all(pd.read_csv(plot.with_name("curve.csv")))
    plots.assistant(frame, assistants.curve_title(frame), plot.with_suffix(""))
    settings = json.loads((DEMO / "uncanvas" / "settings.json").read_text(encoding="utf-8"))
    pipeline, floor = settings["common"]["pipeline"], max(r["settings"]["keep"] for r in settings["records"])
    pipelines.draw(pd.read_csv(DEMO / "uncanvas" / "candidates.csv"), floor, pipeline, DEMO / "uncanvas" / "tradeoff")
    for path in sorted((files.ROOT / "results" / "bench").glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        label, case = path.stem.rsplit("-", 1)
        bench.draw(rows, label, case, path.with_suffix(""))


@dataclass(frozen=True)
class Settings:
    plots: bool = flag(False, "also draw the figures that committed tables are enough for")


def main(argv: Sequence[str] | None = None) -> None:
    if cli.parse(__doc__, Settings, argv).plots:
        draw()
    for page, made in PAGES.items():
        with reading.as_written((files.ROOT / page).parent, "take its tables from the repository again"):
            blocks = made()
        markdown.fill_blocks(files.ROOT / page, blocks)
    files.write_text(files.ROOT / "results" / "README.md", index())
    print(f"pages, their reports and the index: {', '.join(PAGES)}")


if __name__ == "__main__":
    cli.exit_with(main)
