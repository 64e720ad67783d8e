"""What came out of forgetting by someone's own pictures: as text, as plots, as one HTML page, from the record alone."""

import base64
import html as markup
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from slug import files
from slug.errors import SlugError
from slug.evaluation.statistics import interval
from slug.schema import AGREEMENT, NAMES, ORIGINAL, PAIRS

Record = Mapping[str, Any]
Row = tuple[str, str, str, str]  # what, before, after, how sure
WORDS = {
    NAMES: "the other names' pictures are recognised",
    AGREEMENT: "same answer as the unedited model",
    PAIRS: "own caption is the nearest one",
}
PLOTS = ("tradeoff", "steps", "pareto", "pictures")


def words(task: str) -> str:
    """What the accuracy of a retained task is a fraction of."""
    return WORDS.get(task, f"right in {task}")


def tasks(record: Record) -> list[str]:
    """The retained tasks of a record."""
    test = record["splits"]["test"][ORIGINAL]
    return [
        k.removesuffix("_acc1")
        for k in test
        if k.endswith("_acc1") and f"n_{k.removesuffix('_acc1')}" in test and not k.startswith(("forget", "neighbours"))
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _bounds(correct: int, total: int) -> str:
    low, high = interval(correct, total)
    return f"at most {_percent(high)}" if correct == 0 else f"{_percent(low)} to {_percent(high)}"


def _change(row: Mapping[str, Any], task: str) -> str:
    if f"{task}_change" not in row:
        return ""
    change, low, high = (100 * row[f"{task}_change{end}"] for end in ("", "_low", "_high"))
    return f"{change:+.1f} points ({low:+.1f} to {high:+.1f})"


def forget_rows(record: Record) -> list[Row]:
    """The figures of forgetting on the test split, with what they rest on."""
    before, after = (record["splits"]["test"][state] for state in (ORIGINAL, record["method"]))
    n, sources, name = after["n_forget"], after["n_sources"], record["name"]
    rows = [
        (
            f"recognised as {name}, of {n} pictures",
            f"{_percent(before['forget_acc1'])} ({before['forget_recognised']})",
            f"{_percent(after['forget_acc1'])} ({after['forget_recognised']})",
            _bounds(after["forget_recognised"], n),
        ),
        (
            f"source images of which a picture is recognised, of {sources}",
            str(before["sources_recognised"]),
            str(after["sources_recognised"]),
            _bounds(after["sources_recognised"], sources),
        ),
        (f"{name} among the first five answers", _percent(before["forget_acc5"]), _percent(after["forget_acc5"]), ""),
        (
            f"rank of “{name}” among {after['n_captions']} captions, for its pictures",
            f"{before['rank_of_name']:.0f}",
            f"{after['rank_of_name']:.0f}",
            "median",
        ),
        (
            f"its pictures among the {n} nearest to “{name}”, with {after['n_pictures']} others",
            _percent(before["precision_of_name"]),
            _percent(after["precision_of_name"]),
            "",
        ),
        ("cosine of its pictures and its name", f"{before['forget_cosine']:.3f}", f"{after['forget_cosine']:.3f}", "mean"),
    ]
    for task, found in after["in_labelled"].items():
        was, correct = before["in_labelled"][task]["acc1"], round(found["acc1"] * found["n"])
        rows.append(
            (
                f"recognised in {task}, of {found['n']} pictures",
                _percent(was),
                _percent(found["acc1"]),
                _bounds(correct, found["n"]),
            )
        )
    return rows


def retain_rows(record: Record) -> list[Row]:
    """The figures of retention on the test split."""
    before, after = (record["splits"]["test"][state] for state in (ORIGINAL, record["method"]))
    rows = []
    for task in tasks(record):
        what = f"{words(task)}, of {after[f'n_{task}']} pictures"
        rows.append((what, _percent(before[f"{task}_acc1"]), _percent(after[f"{task}_acc1"]), _change(after, task)))
    if PAIRS in tasks(record):
        rows.append(
            ("own caption among the five nearest", _percent(before["pairs_acc5"]), _percent(after["pairs_acc5"]), "")
        )
    if "neighbours_acc1" in after:
        correct = round(after["neighbours_acc1"] * after["n_neighbours"])
        rows.append(
            (
                f"same answer, of {after['n_neighbours']} pictures taken for one of the ten names nearest to it",
                _percent(before["neighbours_acc1"]),
                _percent(after["neighbours_acc1"]),
                _bounds(correct, after["n_neighbours"]),
            )
        )
    rows.append(
        (
            "cosine of pairs",
            f"{before['cosine']:.3f}",
            f"{after['cosine']:.3f}",
            f"mean change {after['cosine'] - before['cosine']:+.3f}",
        )
    )
    return rows


def text(record: Record) -> str:
    """A record in a few lines for a terminal."""
    before, after = (record["splits"]["test"][state] for state in (ORIGINAL, record["method"]))
    n, hits = after["n_forget"], after["forget_recognised"]
    said = ", ".join(f"{name} {share:.0%}" for name, share in record["splits"]["test"]["said"])
    lines = [
        f"{record['name']}: {record['layer'].removesuffix('.weight')}, step {record['step']:.4g} ({record['method']} on {record['model']})",
        f"  recognised {_percent(before['forget_acc1'])} -> {_percent(after['forget_acc1'])} of {n} test pictures "
        f"({_bounds(hits, n)}), {after['n_sources']} source images ({_bounds(after['sources_recognised'], after['n_sources'])})",
        f"  the unedited model says: {said}",
        *(f"  {what}: {was} -> {now}" + (f", {sure}" if sure else "") for what, was, now, sure in retain_rows(record)),
        f"  {record['seconds']:.0f} s, of which {record['search_s']:.0f} s gradients and search",
        *(f"  note: {note}" for note in record["notes"]),
    ]
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- plots


def _draw(kind: str, record: Record, shown: Any, stem: Path) -> None:
    from slug.reports import plots
    from slug.reports.plots import forgetting as own

    title = f"{record['name']}, {record['model']}"
    if kind in ("tradeoff", "steps"):
        start, test = record["start"], record["splits"]["validation"][ORIGINAL]
        found = {task: words(task) for task in tasks(record) if f"{task}_acc1" in start}
        counts = {"forget": test["n_forget"], "trace": record["settings"]["trace"]}
        counts |= {task: test[f"n_{task}"] for task in found}
        rows = pd.DataFrame(record["candidates"])
        for column in (f"{task}_acc1" for task in found):
            rows[column] = rows[column] if column in rows else float("nan")
        winner = {f"{task}_acc1": float("nan") for task in found} | dict(record["winner"])
        getattr(own, kind)(rows, start, winner, found, counts, title, stem)
    elif kind == "pareto":
        encoder = "vision" if record["layer"].startswith("vis") else "language"
        every = [_Layer(row) for row in record["layers"] if row["encoder"] == encoder]
        if not every:
            raise SlugError(f"{record['method']} searches no layers, so there is no Pareto front to plot")
        front = [_Layer(row) for row in record["fronts"][encoder]]
        plots.pareto(every, front, record["layer"], f"{title}: {encoder} encoder", stem)
    elif kind == "pictures" and shown is not None:
        images = shown.images.permute(0, 2, 3, 1).numpy()
        own.pictures(images, shown.own, shown.before, shown.after, f"{title}: answers before and after, test split", stem)
    elif kind == "pictures":
        raise SlugError("pictures are shown only in the process that made the edit; edit.compare shows others")
    else:
        raise SlugError(f"there is no plot {kind!r}; choose from {', '.join(PLOTS)}")


class _Layer:
    """A row of a Pareto front."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.name, self.importance, self.alignment = row["name"], row["importance"], row["alignment"]


def _png(draw: Any, path: Path | None = None) -> bytes:
    """The PNG that `draw(stem)` makes; also written to `path`, a .png or .pdf."""
    if path is not None and path.suffix not in (".png", ".pdf"):
        raise SlugError(f"{path} ends neither in .png nor in .pdf")
    with tempfile.TemporaryDirectory() as scratch:
        stem = Path(scratch) / "plot"
        draw(stem)
        if path is not None:
            files.place(stem.with_suffix(path.suffix), path)
        return stem.with_suffix(".png").read_bytes()


def _picture(png: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB")


def plot(kind: str, record: Record, shown: Any, path: Path | None = None) -> Any:
    """One of PLOTS as a PIL picture, written to `path` as well if it is given."""
    return _picture(_png(lambda stem: _draw(kind, record, shown, stem), path))


@dataclass(frozen=True)
class Comparison:
    """What a model calls some pictures before and after an edit."""

    pictures: list[Any]
    labels: list[str]
    before: list[list[tuple[str, float]]]
    after: list[list[tuple[str, float]]]
    name: str

    @property
    def table(self) -> pd.DataFrame:
        """A row for each picture and rank: picture, rank, before, probability before, after, probability after."""
        rows = [
            (label, rank, *old, *new)
            for label, was, now in zip(self.labels, self.before, self.after, strict=True)
            for rank, (old, new) in enumerate(zip(was, now, strict=True), 1)
        ]
        return pd.DataFrame(rows, columns=["picture", "rank", "before", "p_before", "after", "p_after"])

    def _draw(self, stem: Path) -> None:
        from PIL import Image

        from slug.reports.plots import forgetting as own

        images = []
        for picture in self.pictures:
            if isinstance(picture, Image.Image):
                images.append(picture.convert("RGB"))
            else:
                with Image.open(picture) as image:
                    images.append(image.convert("RGB"))
        own.compared(images, self.before, self.after, f"before and after forgetting {self.name}", stem)

    @property
    def picture(self) -> Any:
        """The pictures with bars of both answers, as a PIL picture."""
        return _picture(_png(self._draw))

    def save(self, path: str) -> str:
        """Write the picture (.png, .pdf) or the table (.csv); returns the path."""
        out = Path(path).expanduser().absolute()
        if out.suffix == ".csv":
            files.write_text(out, self.table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
        else:
            _png(self._draw, out)
        return str(out)

    def __str__(self) -> str:
        return str(self.table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))

    __repr__ = __str__

    def _repr_png_(self) -> bytes:
        return _png(self._draw)


# --------------------------------------------------------------------------------------------------------------- page


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0}th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #ddd;
vertical-align:top}td.n,th.n{text-align:right;white-space:nowrap}img{max-width:100%}
.big{font-size:1.2rem;margin:.6rem 0 1rem}.note{background:#fff4d6;border-left:4px solid #d99a00;padding:.5rem .8rem;margin:.5rem 0}
code,pre{background:#f4f4f4;padding:.1rem .3rem;border-radius:3px}pre{padding:.7rem;overflow-x:auto}.small{color:#555;font-size:.9rem}
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
        f"({_bounds(after['forget_recognised'], after['n_forget'])} with 95% confidence).</p>",
        *(f"<p class=note>{escape(note)}</p>" for note in record["notes"]),
        f"<p>Edited: <code>{escape(record['layer'])}</code>, one step of {record['step']:.4g} by "
        f"{escape(record['method'])}; {record['params_touched']:,} weights, {record['params_share']:.2%} of the model. "
        f"{record['n_candidates']} candidates in {record['search_s']:.0f} s.</p>",
        f"<h2>Forgetting</h2>{_table(heads, forget_rows(record))}",
        f"<p class=small>What the unedited model calls these pictures, among {record['sets']['classes']:,} names: {said}.</p>",
    ]
    if shown is not None:
        parts.append(_image(_png(lambda stem: _draw("pictures", record, shown, stem)), "pictures before and after"))
    parts.append(f"<h2>Retention</h2>{_table(heads, retain_rows(record))}")
    near = ", ".join(map(escape, record["neighbours"]))
    parts.append(f"<p class=small>The ten names nearest to {name}: {near}. They suffer first.</p>")
    parts += [_together(record), "<h2>The search</h2>"]
    parts.append(_image(_png(lambda stem: _draw("tradeoff", record, None, stem)), "retained figures against recognition"))
    if record["layers"]:
        parts.append(_image(_png(lambda stem: _draw("pareto", record, None, stem)), "Pareto front of the layers"))
    parts += [_sets(record), _limits(name)]
    return "\n".join(p for p in parts if p) + "\n"


def _together(record: Record) -> str:
    """How much of each name is recognised where all edits of the call are applied at once."""
    if not record.get("together"):
        return ""
    rows = [
        (
            name,
            _percent(f["before"]),
            f"{_percent(f['after'])} ({f['recognised']} of {f['n']})",
            _bounds(f["recognised"], f["n"]),
        )
        for name, f in record["together"].items()
    ]
    return "<h2>All names of the call together</h2>" + _table(("sum of the edits", "before", "after", "95% interval"), rows)


def _sets(record: Record) -> str:
    """How the pictures were split."""
    sets = record["sets"]
    rows = [
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
        + "<p class=small>Pictures, and in brackets source images: pictures that nearly repeat each other are one source image "
        + f"and stay in one part.{broken}"
        + (f" Left out of the retain set: {markup.escape(left)}." if left else "")
        + "</p>"
    )


def _limits(name: str) -> str:
    return (
        "<h2>What this says, and what not</h2><p>The layer and the step were chosen on the validation part; every figure above is "
        "of the test part. Retention is agreement with the unedited model, which may itself be wrong. "
        f"The edit lowers what prompts recall of {name}; it does not prove that nothing is left. Fine-tuning, other prompts or a "
        "probe on the features may bring it back.</p>"
        "<pre>slug apply  --delta EDIT.safetensors --model-dir MODEL --out EDITED\n"
        "slug revert --delta EDIT.delta.safetensors --model-dir EDITED --out MODEL</pre>"
    )
