"""Plots of what came out of forgetting by someone's own pictures, as PIL pictures, and pictures before and after."""

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from slug import files
from slug.errors import SlugError
from slug.reports.forgetting_figures import Record, tasks, words
from slug.schema import ORIGINAL

PLOTS = ("tradeoff", "steps", "pareto", "pictures")


def draw(kind: str, record: Record, shown: Any, stem: Path) -> None:
    """Write one of PLOTS as stem.png and stem.pdf. SlugError: an unknown one, or the record does not hold it."""
    from slug.reports import plots

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
        chart = plots.steps if kind == "steps" else plots.reached
        chart(rows, start, winner, found, counts, title, stem, forgotten=record["rule"]["max_forget"])
    elif kind == "pareto":
        encoder = "vision" if record["layer"].startswith("vis") else "language"
        every = [_Layer(row) for row in record["layers"] if row["encoder"] == encoder]
        if not every:
            raise SlugError(f"{record['method']} searches no layers, so there is no Pareto front to plot")
        front = [_Layer(row) for row in record["fronts"][encoder]]
        plots.pareto(every, front, record["layer"], f"{title}: {encoder} encoder", stem)
    elif kind == "pictures" and shown is not None:
        images = shown.images.permute(0, 2, 3, 1).numpy()
        said = [(old[0][0], new[0][0]) for old, new in zip(shown.before, shown.after, strict=True)]
        plots.pictures(images, shown.own, said, f"{title}: answers before \u2192 after", stem)
    elif kind == "pictures":
        raise SlugError("pictures are shown only in the process that made the edit; edit.compare shows others")
    else:
        raise SlugError(f"there is no plot {kind!r}; choose from {', '.join(PLOTS)}")


class _Layer:
    """A row of a Pareto front."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.name, self.importance, self.alignment = row["name"], row["importance"], row["alignment"]


def check_ending(path: Path) -> None:
    """SlugError unless a path is of a .png or .pdf."""
    if path.suffix not in (".png", ".pdf"):
        raise SlugError(f"{path} ends neither in .png nor in .pdf; give a file name with one of these endings")


def png(draw: Any, path: Path | None = None) -> bytes:
    """The PNG that `draw(stem)` makes; also written to `path`, a .png or .pdf."""
    if path is not None:
        check_ending(path)
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


def _below_each_other(pictures: list[Any], path: Path | None) -> Any:
    """One PIL picture of several, written to `path` as well if it is given."""
    from PIL import Image

    whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    if path is not None:
        check_ending(path)
        with files.replacing(path) as temporary:
            whole.save(temporary, path.suffix[1:].upper())
    return whole


def plot(kind: str, record: Record, shown: Any, path: Path | None = None) -> Any:
    """One of PLOTS as a PIL picture, written to `path` as well if it is given; those of several towers below each other."""
    if "towers" in record:
        made = [plot(kind, own, shown and shown[tower], None) for tower, own in record["towers"].items()]
        return _below_each_other(made, path)
    return _picture(png(lambda stem: draw(kind, record, shown, stem), path))


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

        from slug.reports import plots

        images = []
        for picture in self.pictures:
            if isinstance(picture, Image.Image):
                images.append(picture.convert("RGB"))
            else:
                with Image.open(picture) as image:
                    images.append(image.convert("RGB"))
        plots.compared(images, self.before, self.after, f"before and after forgetting {self.name}", stem)

    @property
    def picture(self) -> Any:
        """The pictures with bars of both answers, as a PIL picture."""
        return _picture(png(self._draw))

    def save(self, path: str) -> str:
        """Write the picture (.png, .pdf) or the table (.csv); returns the path."""
        out = Path(path).expanduser().absolute()
        if out.suffix == ".csv":
            files.write_text(out, self.table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
        else:
            png(self._draw, out)
        return str(out)

    def __str__(self) -> str:
        return str(self.table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))

    __repr__ = __str__

    def _repr_png_(self) -> bytes:
        return png(self._draw)
