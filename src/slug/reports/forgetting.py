"""The report on forgetting by someone's own pictures, as one HTML page that needs no other file, from the record."""

import base64
import html as markup
from collections.abc import Sequence
from typing import Any

from slug.reports.forgetting_figures import Record, Row, bounds, forget_rows, percent, retain_rows, text
from slug.reports.forgetting_plots import PLOTS, Comparison, draw, plot, png
from slug.schema import ORIGINAL

__all__ = ["PLOTS", "Comparison", "html", "plot", "text"]

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0}th,td{text-align:left;padding:.3rem .7rem;
border-bottom:1px solid #ddd;vertical-align:top}td.n,th.n{text-align:right;white-space:nowrap}img{max-width:100%}
.big{font-size:1.2rem;margin:.6rem 0 1rem}
.note{background:#fff4d6;border-left:4px solid #d99a00;padding:.5rem .8rem;margin:.5rem 0}
code,pre{background:#f4f4f4;padding:.1rem .3rem;border-radius:3px}
pre{padding:.7rem;overflow-x:auto}.small{color:#555;font-size:.9rem}
"""


def _table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th{' class=n' if i in (1, 2) else ''}>{markup.escape(h)}</th>" for i, h in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if i in (1, 2) else ''}>{markup.escape(c)}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _image(png: bytes, what: str) -> str:
    return f'<img alt="{markup.escape(what)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def html(record: Record, shown: Any = None) -> str:
    """The report as one page that needs no other file."""
    escape, test = markup.escape, record["splits"]["test"]
    before, after, name = test[ORIGINAL], test[record["method"]], escape(record["name"])
    heads = ("", "before", "after", "95% interval")
    said = ", ".join(f"{escape(answer)} ({share:.0%})" for answer, share in test["said"])
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(record['model'])} without {name}</title>",
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>",
        f"<h1>{escape(record['model'])} without {name}</h1>",
        f"<p class=big>Of {after['n_forget']} test pictures of {name} the unedited model recognises "
        f"{before['forget_recognised']}, the edited one {after['forget_recognised']} "
        f"({bounds(after['forget_recognised'], after['n_forget'])} with 95% confidence).</p>",
        *(f"<p class=note>{escape(note)}</p>" for note in record["notes"]),
        f"<p>Edited: <code>{escape(record['layer'])}</code>, one step of {record['step']:.4g} by "
        f"{escape(record['method'])}; {record['params_touched']:,} weights, {record['params_share']:.2%} of the model. "
        f"{record['n_candidates']} candidates in {record['search_s']:.0f} s.</p>",
        f"<h2>Forgetting</h2>{_table(heads, forget_rows(record))}",
        f"<p class=small>What the unedited model calls these pictures, of {record['sets']['classes']:,} names: {said}.</p>",
    ]
    if shown is not None:
        parts.append(_image(png(lambda stem: draw("pictures", record, shown, stem)), "pictures before and after"))
    parts.append(f"<h2>Retention</h2>{_table(heads, retain_rows(record))}")
    near = ", ".join(map(escape, record["neighbours"]))
    parts.append(f"<p class=small>The ten names nearest to {name}: {near}. They suffer first.</p>")
    parts += [_together(record), "<h2>The search</h2>"]
    parts.append(_image(png(lambda stem: draw("tradeoff", record, None, stem)), "retained figures against recognition"))
    if record["layers"]:
        parts.append(_image(png(lambda stem: draw("pareto", record, None, stem)), "Pareto front of the layers"))
    parts += [_sets(record), _limits(name)]
    return "\n".join(p for p in parts if p) + "\n"


def _together(record: Record) -> str:
    """How much of each name is recognised where all edits of the call are applied at once."""
    if not record.get("together"):
        return ""
    rows = [
        (
            name,
            percent(f["before"]),
            f"{percent(f['after'])} ({f['recognised']} of {f['n']})",
            bounds(f["recognised"], f["n"]),
        )
        for name, f in record["together"].items()
    ]
    return "<h2>All names of the call together</h2>" + _table(("sum of the edits", "before", "after", "95% interval"), rows)


def _sets(record: Record) -> str:
    """How the pictures were split."""
    sets = record["sets"]
    rows: list[Any] = [
        (part, *(f"{sets[what][part]['pictures']} ({sets[what][part]['sources']})" for what in ("concept", "retain")), use)
        for part, use in (
            ("gradient", "gives the gradients"),
            ("validation", "chooses the edit"),
            ("test", "is reported here"),
        )
    ]
    left = "; ".join(f"{what}: {n}" for what, n in sets["left_out_of_retain"].items() if n)
    broken = f" {sets['broken']} of the concept's pictures cannot be decoded." if sets["broken"] else ""
    return (
        "<h2>Which pictures</h2>"
        + _table(("part", "of the concept", "of other things", ""), rows)
        + "<p class=small>Pictures, and in brackets source images: pictures that nearly repeat each other are one source "
        + f"image and stay in one part.{broken}"
        + (f" Left out of the retain set: {markup.escape(left)}." if left else "")
        + "</p>"
    )


def _limits(name: str) -> str:
    return (
        "<h2>What this says, and what not</h2><p>The layer and the step were chosen on the validation part; every figure "
        "above is of the test part. Retention is agreement with the unedited model, which may itself be wrong. "
        f"The edit lowers what prompts recall of {name}; it does not prove that nothing is left. Fine-tuning, other "
        "prompts or a probe on the features may bring it back.</p>"
        "<pre>slug apply  --delta EDIT.delta.safetensors --model-dir MODEL --out EDITED\n"
        "slug revert --delta EDIT.delta.safetensors --model-dir EDITED --out MODEL</pre>"
    )
