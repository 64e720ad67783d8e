"""The files that results live in: step logs in the published format, JSON records, and what makes a record valid."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from slug import files, schema
from slug.artifacts.logs import CONVENTION, log_line, parse_log, step_log  # noqa: F401  (read and written here as well)
from slug.errors import SlugError
from slug.schema import file_name, record_file, steps_file  # noqa: F401  (names of the files of this module)
from slug.settings import MAX_FORGET, SIGMAS

if TYPE_CHECKING:  # reports read records without torch
    import torch

    from slug.core.edit import Edit
    from slug.core.selection import Candidate
    from slug.data.evaluation_sets import PictureSet
    from slug.models.clip import Clip

Record = dict[str, Any]
NUMBERS = ("step", "seconds", "delta_bytes", "params_share", "peak_mem_mb", "n_candidates", "seed")  # of every CLIP's record
OF_ASSISTANTS: dict[str, Any] = dict.fromkeys(("method", "name", "model", "layer", "delta"), str)
OF_ASSISTANTS |= dict.fromkeys(
    ("step", "seconds", "peak_mem_mb", "params_share", "n_candidates", "delta_bytes"), (int, float)
)
PLOTTED = ("step", "forget_acc1", "identities_acc1", "objects_acc1")
COSTS = ("gradient_s", "shared_s", "search_s", "params_touched", "relative_step")


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
        record = files.read_object(path)
        same = all(record.get(k) == v for k, v in settings.items())
        return record if same and (not record.get("delta") or files.inside(path.parent, record["delta"]).is_file()) else None
    except SlugError:
        return None


def check_weights(path: Path, key: str, value: str) -> None:
    """SlugError where the record at `path` is of other weights, by its entry `key`: a run would replace it and its delta."""
    try:
        found = files.read_object(path).get(key, value)
    except SlugError:  # none, or a damaged one
        return
    if found != value:
        said = f"{path} is of other weights of a model with this name"
        raise SlugError(f"{said}; give another --result-dir, or --force to replace it")


def own_label(folder: Path, clip: "Clip", model_hash: str) -> str:
    """What a CLIP is called in the files of `folder`: its label, or `{label}-{hash}` where the label's files are of other
    weights. Readers then see two models, and neither's records and deltas replace the other's."""
    for path in sorted(folder.glob(f"{files.safe_name(clip.label)}-*.json")):
        try:
            record = files.read_object(path)
        except SlugError:
            continue
        if record.get("model") == clip.label and _other_weights(record, folder, clip, model_hash):
            return f"{clip.label}-{model_hash[:8]}"
    return clip.label


def _other_weights(record: Record, folder: Path, clip: "Clip", model_hash: str) -> bool:
    """Whether a record is of other weights than a CLIP's. An earlier version's record does not say; its delta does."""
    from slug.artifacts import deltas

    if "model_hash" in record:
        return record["model_hash"] != model_hash
    try:
        path = files.inside(folder, record.get("delta"))
        deltas.read(path)
    except SlugError:  # of a baseline, or damaged
        return False
    try:
        deltas.of_model(clip, path)
    except SlugError:
        return True
    return False


def caveat(known: Mapping[str, tuple[int, int]], forgotten: bool, rule: str) -> str:
    """Why an edit does not show that its name was forgotten, in words; empty where it does.

    Args:
        known: {split: (pictures that the unedited model recognises, pictures)}.
        forgotten: whether the edit meets `rule`, given in words, on the validation split.
    """
    never = [f"none of the {n} {split} pictures" for split, (correct, n) in known.items() if not correct]
    if never:
        return f"nothing was forgotten: the unedited model recognises {' and '.join(never)}"
    if not forgotten:
        return f"not forgotten: no candidate met the rule on the validation split ({rule})"
    return ""


def clip_caveat(splits: Mapping[str, Any], forgotten: bool, rule: str = "") -> str:
    """`caveat` of a CLIP's edit, by the figures of both splits; `rule` in words, where it is not the usual one."""
    before = {split: states[schema.ORIGINAL] for split, states in splits.items()}
    known = {split: (round(f["forget_acc1"] * f["n_forget"]), f["n_forget"]) for split, f in before.items()}
    usual = f"at most {MAX_FORGET:.0%} recognised, margins {SIGMAS:g} standard deviations below 0"
    return caveat(known, forgotten, rule or usual)


def ending(found: Sequence[Record]) -> str:
    """The last line of a stage: which of its records carry a caveat; empty where none does."""
    names = [f"{r['name']} ({r['method']})" for r in found if r.get("caveat")]
    return f"note: {len(names)} of {len(found)} edits did not forget anything: {', '.join(names)}" if names else ""


def one_line(record: Record) -> str:
    """A record in one line for the terminal."""
    after, before = (record["splits"]["test"][state] for state in (record["method"], schema.ORIGINAL))
    layer = schema.layer_label(record["layer"])
    return (
        f"{record['name']}, {record['method']}: {layer} step {record['step']:.4g}, test split: "
        f"FA@1 {before['forget_acc1']:.1%} -> {after['forget_acc1']:.1%} (at most {after['forget_upper']:.1%}), "
        f"identities {100 * after['identities_change']:+.2f}, objects {100 * after['objects_change']:+.2f} points, "
        f"delta {record['delta_bytes'] / 1e3:.0f} kB = {record['params_share']:.2%} of the model{schema.note(record)}"
    )


def lacking(record: Any, wanted: Mapping[str, Any]) -> str:
    """The first entry that a record lacks, or that is of another type than `wanted`, {key: type}, says; else empty."""
    if not isinstance(record, dict):
        return "all of it: it is no JSON object"
    return next((k for k, kind in wanted.items() if not isinstance(record.get(k), kind)), "")


def check_assistants(path: Path) -> Record:
    """The record at `path`, as c1_unlearn_vlm.py writes it. SlugError if it is not whole."""
    record = files.read_object(path)
    lacks = lacking(record, OF_ASSISTANTS)
    if lacks:
        raise SlugError(f"{path} is no whole record: it lacks {lacks}; delete it and run its stage again")
    files.inside(path.parent, record["delta"])
    return record


def read_assistants(folder: Path, label: str, wanted: Mapping[str, Any]) -> list[Record]:
    """The records of an assistant. SlugError where there is none, or one is of other weights or questions than `wanted`."""
    made = []
    for file in sorted(folder.glob(f"{files.safe_name(label)}-*.json")):
        record = check_assistants(file)
        own = file_name(record["model"], record["name"], ".json")
        if own == file.name:
            made.append(record)
        else:
            print(f"note: {file} is left out: its record is of {own}")
    if not made:
        raise SlugError(f"{folder} has no record of {label}; make them with src/vlm/c1_unlearn_vlm.py")
    stale = [r["name"] for r in made if any(r.get(k) != v for k, v in wanted.items())]
    if stale:
        said = f"the records of {', '.join(stale)} are of other weights or questions"
        raise SlugError(f"{said}; run c1_unlearn_vlm.py again, or remove them")
    return made


def is_number(value: Any) -> bool:
    """Whether a value of a record is a number that a table can show: NaN, too, but nothing of astronomical size."""
    return isinstance(value, (int, float)) and not abs(value) > 1e18


def missing(record: Record) -> str:
    """What a record lacks of what reports read, in words; empty for a whole record."""
    texts = [k for k in ("method", "name", "kind", "model", "layer") if not isinstance(record.get(k), str)]
    if texts or record["kind"] not in schema.KINDS:
        return texts[0] if texts else "kind"
    if isinstance(record["splits"], dict) and (odd := set(record["splits"]) - set(schema.SPLITS)):
        return f"sound splits: {', '.join(sorted(odd))} is none"
    for split in schema.SPLITS:
        states = record["splits"].get(split) if isinstance(record["splits"], dict) else None
        for state in (schema.ORIGINAL, record["method"]):
            figures = states.get(state) if isinstance(states, dict) else None
            if not isinstance(figures, dict):
                return f"the figures of {state}, {split} split"
            wanted = schema.FIGURES + (() if state == schema.ORIGINAL else schema.CHANGES)
            bad = [k for k in wanted if k not in figures] + [k for k, v in figures.items() if not is_number(v)]
            if bad:
                return f"{bad[0]} of {state}, {split} split"
    lacks = [k for k in NUMBERS if not is_number(record.get(k))]
    lacks += [k for k in COSTS if k in record and not is_number(record[k])]
    lacks += [k for k in ("settings", "winner_validation") if not isinstance(record.get(k), dict)]
    if "fronts" in record and not lacks:  # of SLUG: its plot is drawn from these
        lacks += [f"{k} of winner_validation" for k in PLOTTED if not is_number(record["winner_validation"].get(k))]
        lacks += [f"settings of {k}" for k in ("select_pictures", "trace") if not isinstance(record["settings"].get(k), int)]
        lacks += [k for k in ("delta",) if not isinstance(record.get(k), str)]
        lacks += [] if _are_fronts(record["fronts"]) else ["fronts"]
    return lacks[0] if lacks else ""


def _are_fronts(found: Any) -> bool:
    """Whether these are {encoder: its Pareto front} as records hold them."""
    if not isinstance(found, dict) or not all(isinstance(part, list) for part in found.values()):
        return False
    layers = [layer for part in found.values() for layer in part]
    numbers = ("importance", "alignment")
    return all(
        isinstance(r, dict) and isinstance(r.get("name"), str) and all(is_number(r.get(k)) for k in numbers) for r in layers
    )


def check_whole(path: Path, record: Any) -> Record:
    """The record that `path` holds. SlugError if it is not a whole record."""
    lacks = missing(record) if isinstance(record, dict) and "splits" in record else "its splits"
    if lacks:
        raise SlugError(f"{path} is no whole record: it lacks {lacks}; delete it and run its stage again")
    if record.get("delta"):
        files.inside(path.parent, record["delta"])
    return record


def check_splits(record: Record, seed: int, imagenet_share: float) -> None:
    """SlugError unless a record was made with this seed and share, which draw the splits.

    With other splits, pictures that chose the edit would report it.
    """
    for name, here in (("seed", seed), ("imagenet_share", imagenet_share)):
        made = record["settings"].get(name)
        if made != here:
            flag = f"--{name.replace('_', '-')}"
            raise SlugError(
                f"the record of {record['method']} for {record['name']} was made with {flag} {made}, this run has {flag} "
                f"{here}: pictures that chose the edit would report it; give {flag} {made}, or run its stage again"
            )


def read_all(folder: Path, label: str | None = None) -> list[Record]:
    """All records in results/clip, or those of one model, sorted by kind and name; copies of records under other names are
    left out, and named. SlugError for one that is not whole."""
    found = []
    for path in sorted(folder.glob("*.json")):
        record = files.read_json(path)
        if isinstance(record, dict) and "splits" in record:
            own = record_file(check_whole(path, record))
            if own == path.name:
                found.append(record)
            else:
                print(f"note: {path} is left out: its record is of {own}")
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
