"""The files that results live in: step logs in the published format, JSON records, and what makes a record valid."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from slug import files, schema
from slug.errors import SlugError
from slug.schema import file_name, record_file, steps_file  # noqa: F401  (names of the files of this module)

if TYPE_CHECKING:  # reports read records without torch
    import torch

    from slug.core.edit import Edit
    from slug.core.selection import Candidate
    from slug.data.evaluation_sets import PictureSet

Record = dict[str, Any]
CONVENTION = "# ratio is the step size; a positive step ADDS the gradient of 1 - cos. Validation split; nan: not evaluated."


def log_line(n: int, row: Mapping[str, Any]) -> str:
    """Evaluation n (0: of the unedited model) as a line of a step log, as published: fractions in [0, 1], MIA in %."""
    return (
        f"iter: {n}, ratio: {row['step']:.6g}, fgt_acc@1: {row['forget_acc1']:.4f}, fgt_acc@5: {row['forget_acc5']:.4f}, "
        f"celeba100@1: {row['identities_acc1']:.4f}, celeba100@5: {row['identities_acc5']:.4f}, "
        f"test_acc@1: {row['objects_acc1']:.4f}, test_acc@5: {row['objects_acc5']:.4f}, "
        f"MIA: {row['mia_mean']:.2f}±{row['mia_std']:.2f}"
    )


LINE = re.compile(
    r"iter: (?P<iter>\d+), ratio: (?P<ratio>\S+), fgt_acc@1: (?P<forget_acc1>\S+), fgt_acc@5: (?P<forget_acc5>\S+), "
    r"celeba100@1: (?P<identities_acc1>\S+), celeba100@5: (?P<identities_acc5>\S+), "
    r"test_acc@1: (?P<objects_acc1>\S+), test_acc@5: (?P<objects_acc5>\S+), "
    r"MIA: (?P<mia_mean>\S+?)±(?P<mia_std>[^\s,]+)(?:, time: (?P<time>\S+))?$"
)


def parse_log(path: Path) -> list[dict[str, float]]:
    """The lines of a step log or a comparison log, [{column: value}] with NaN for a missing value. SlugError: a bad line."""
    rows = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        if line.startswith("iter:"):
            found = LINE.match(line)
            if not found:
                raise SlugError(f"{path}, line {number} is not in the log format: {line[:80]}")
            rows.append({k: float(v.rstrip(",") if v else "nan") for k, v in found.groupdict().items()})
    return rows


def step_log(start: Any, steps: Iterable[Any], layer: str) -> str:
    """The step log of one layer: the convention, the unedited model as iter 0, then each evaluation in order."""
    return "\n".join([f"# {layer}", CONVENTION, *(log_line(n, c.row()) for n, c in enumerate([start, *steps]))]) + "\n"


def write_candidates(path: Path, candidates: Sequence["Candidate"], na: str = "nan", **columns: Any) -> None:
    """Write the CSV of candidates, with further columns of one value each; `na` stands for what was not evaluated."""
    rows = pd.DataFrame([c.row() for c in candidates], dtype=object).assign(**columns)  # object: integers stay integers
    files.write_text(path, rows.to_csv(index=False, lineterminator="\n", na_rep=na))


def write_search(
    stem: Path,  # without ending; `-steps.csv` and `.delta.safetensors` are added
    model: Any,
    edit: "Edit",
    *,
    method: str,
    name: str,  # what is forgotten
    chosen: Sequence[tuple[str, float]],  # (layer, step) of each round
    start: "Candidate",  # the unedited model
    candidates: Sequence["Candidate"],
    best: "Candidate",
    counts: Mapping[str, int],  # {n_forget, n_retain, ...}: what the figures rest on
    columns: Iterable[tuple[str, Any]] = (),  # (name, value) that every row of the CSV gets besides
) -> Record:
    """Write what a search on a host model found, the CSV of its candidates and the delta; returns the record's part on it.

    `model` is a models.host.HostModel at its base weights.
    """
    from slug.artifacts import deltas

    write_candidates(stem.with_name(f"{stem.name}-steps.csv"), [start, *candidates], na="", **dict(columns))
    delta = stem.with_name(f"{stem.name}.delta.safetensors")
    where = " + ".join(layer for layer, _ in chosen)
    metrics = best.row() | dict(counts) | {"split": "validation", "method": method, "chosen": chosen}
    step = chosen[-1][1] if chosen else 0.0
    deltas.save(delta, model, edit.changes, name=name, layer=where, step=step, metrics=metrics)
    touched = sum(t.numel() for t in edit.changes.values())
    return {
        "chosen": chosen,
        "delta": delta.name,
        "delta_bytes": delta.stat().st_size,
        "params_touched": touched,
        "params_share": touched / model.parameter_count,
        "n_candidates": len(candidates),
        "original_validation": start.row(),
        "winner_validation": best.row(),
    }


def inputs_hash(
    model_hash: str,
    gradients: Iterable[Mapping[str, "torch.Tensor"]],
    evaluations: Iterable["PictureSet"],
    tars: Iterable[Path] = (),
) -> str:
    """One hash of everything that a method depends on besides its settings; `tars` are files of pairs that it reads."""
    digest = hashlib.sha256(model_hash.encode())
    for part in (*map(files.tensor_hash, gradients), *map(files.file_hash, tars)):
        digest.update(part.encode())
    for pictures in evaluations:
        digest.update(pictures.images.contiguous().numpy().tobytes())
        digest.update(repr((pictures.labels.tolist(), pictures.groups, pictures.names)).encode())
    return digest.hexdigest()


def valid(path: Path, settings: Mapping[str, Any]) -> Record | None:
    """The record at `path`, or None unless it was made with these settings and inputs and its weights are there."""
    try:
        record = files.read_json(path)
    except SlugError:
        return None
    same = all(record.get(k) == v for k, v in settings.items())
    return record if same and (not record.get("delta") or (path.parent / record["delta"]).is_file()) else None


def one_line(record: Record) -> str:
    """A record in one line for the terminal."""
    after, before = (record["splits"]["test"][state] for state in (record["method"], schema.ORIGINAL))
    layer = schema.layer_label(record["layer"])
    return (
        f"{record['name']}, {record['method']}: {layer} step {record['step']:.4g}, test split: "
        f"FA@1 {before['forget_acc1']:.1%} -> {after['forget_acc1']:.1%} (at most {after['forget_upper']:.1%}), "
        f"identities {100 * after['identities_change']:+.2f}, objects {100 * after['objects_change']:+.2f} points, "
        f"delta {record['delta_bytes'] / 1e3:.0f} kB = {record['params_share']:.2%} of the model"
    )


def missing(record: Record) -> str:
    """What a record lacks of what reports read, in words; empty for a whole record."""
    texts = [k for k in ("method", "name", "kind", "model", "layer") if not isinstance(record.get(k), str)]
    if texts or record["kind"] not in schema.KINDS:
        return texts[0] if texts else "kind"
    for split in schema.SPLITS:
        states = record["splits"].get(split) if isinstance(record["splits"], dict) else None
        for state in (schema.ORIGINAL, record["method"]):
            figures = states.get(state) if isinstance(states, dict) else None
            if not isinstance(figures, dict):
                return f"the figures of {state}, {split} split"
            wanted = schema.FIGURES + (() if state == schema.ORIGINAL else schema.CHANGES)
            bad = [k for k in wanted if not isinstance(figures.get(k), (int, float))]
            if bad:
                return f"{bad[0]} of {state}, {split} split"
    return ""


def check_whole(path: Path, record: Any) -> Record:
    """The record that `path` holds. SlugError if it is not a whole record."""
    lacks = missing(record) if isinstance(record, dict) and "splits" in record else "its splits"
    if lacks:
        raise SlugError(f"{path} is no whole record: it lacks {lacks}; delete it and run its stage again")
    return record


def check_splits(record: Record, seed: int, imagenet_share: float) -> None:
    """SlugError unless a record was made with this seed and share, which draw the splits.

    With other splits, pictures that chose the edit would report it.
    """
    for name, here in (("seed", seed), ("imagenet_share", imagenet_share)):
        made = record.get("settings", {}).get(name)
        if made != here:
            flag = f"--{name.replace('_', '-')}"
            raise SlugError(
                f"the record of {record['method']} for {record['name']} was made with {flag} {made}, this run has {flag} "
                f"{here}: pictures that chose the edit would report it; give {flag} {made}, or run its stage again"
            )


def read_all(folder: Path, label: str | None = None) -> list[Record]:
    """All records in results/clip, or those of one model, sorted by kind and name. SlugError for one that is not whole."""
    found = []
    for path in sorted(folder.glob("*.json")):
        record = files.read_json(path)
        if isinstance(record, dict) and "splits" in record:
            found.append(check_whole(path, record))
    return sorted((r for r in found if label in (None, r["model"])), key=lambda r: (r["kind"], r["name"]))


def write_important_layers(folder: Path, label: str) -> None:
    """Write `{model}-important_layers.txt`: for each name the Pareto fronts and the winner."""
    lines = []
    for record in (r for r in read_all(folder, label) if "fronts" in r):
        lines.append(f"{record['name']}: winner {record['layer']}, step {record['step']:.6g}")
        for encoder, front in record["fronts"].items():
            lines += [
                f"  {encoder} {r['name']}: importance {r['importance']:.4g}, alignment {r['alignment']:+.4f}" for r in front
            ]
    files.write_text(folder / f"{files.safe_name(label)}-important_layers.txt", "\n".join(lines) + "\n")
