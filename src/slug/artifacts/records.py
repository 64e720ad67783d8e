"""The files that results live in: step logs in the published format, JSON records, and what makes a record valid."""

import hashlib
import re

import pandas as pd

from slug import files
from slug.artifacts import deltas
from slug.errors import SlugError
from slug.reports.plots import short

CONVENTION = "# ratio is the step size; a positive step ADDS the gradient of 1 - cos. Validation split; nan: not evaluated."

KINDS = ("identity", "object", "style", "group")
FIGURES = ("forget_acc1", "identities_acc1", "objects_acc1", "n_forget")  # of every state of a record
CHANGES = tuple(f"{task}_change{end}" for task in ("identities", "objects") for end in ("", "_low", "_high"))


def file_name(label, name, end, part=""):
    """Name of a result file: `{model}-{name}{end}`, or `{model}-{part}-{name}{end}`."""
    middle = f"-{part}" if part else ""
    return f"{files.safe_name(label)}{middle}-{files.safe_name(name.replace(' ', '_'))}{end}"


def record_file(record):
    """Name of a record's own file."""
    part = "" if record["method"].startswith("slug") else record["method"]
    return file_name(record["model"], record["name"], ".json", part)


def steps_file(record):
    """Name of the CSV of a record's candidates, the unedited model first."""
    return record_file(record).removesuffix(".json") + "-steps.csv"


def log_line(n, step):
    """One line of a step log in the published format: fractions in [0, 1], MIA in %.

    Args:
        n: number of the evaluation, 0 for the unedited model.
        step: search.Step.
    """
    return (
        f"iter: {n}, ratio: {step.step:.6g}, fgt_acc@1: {step.forget_acc1:.4f}, fgt_acc@5: {step.forget_acc5:.4f}, "
        f"celeba100@1: {step.identities_acc1:.4f}, celeba100@5: {step.identities_acc5:.4f}, "
        f"test_acc@1: {step.objects_acc1:.4f}, test_acc@5: {step.objects_acc5:.4f}, "
        f"MIA: {step.mia_mean:.2f}±{step.mia_std:.2f}"
    )


LINE = re.compile(
    r"iter: (?P<iter>\d+), ratio: (?P<ratio>\S+), fgt_acc@1: (?P<forget_acc1>\S+), fgt_acc@5: (?P<forget_acc5>\S+), "
    r"celeba100@1: (?P<identities_acc1>\S+), celeba100@5: (?P<identities_acc5>\S+), "
    r"test_acc@1: (?P<objects_acc1>\S+), test_acc@5: (?P<objects_acc5>\S+), "
    r"MIA: (?P<mia_mean>\S+?)±(?P<mia_std>[^\s,]+)(?:, time: (?P<time>\S+))?$"
)


def parse_log(path):
    """The lines of a step log or a comparison log: [{column: float}], NaN where there is none.

    Raises SlugError if a line that begins like one of the format does not follow it.
    """
    rows = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        if line.startswith("iter:"):
            found = LINE.match(line)
            if not found:
                raise SlugError(f"{path}, line {number} is not in the log format: {line[:80]}")
            rows.append({k: float(v.rstrip(",") if v else "nan") for k, v in found.groupdict().items()})
    return rows


def step_log(start, steps, layer):
    """The step log of one layer: convention, the unedited model as iter 0, then each evaluation in order."""
    lines = [f"# {layer}", CONVENTION, *(log_line(n, s) for n, s in enumerate([start, *steps]))]
    return "\n".join(lines) + "\n"


def write_search(stem, model, edit, *, method, name, chosen, start, steps, best, counts, columns=()):
    """Write what a search on a pipeline or assistant found: the CSV of its candidates and the delta. Returns the record's
    part that says so.

    Args:
        stem: path without ending; `-steps.csv` and `.delta.safetensors` are added.
        model: models.host.HostModel at its base weights.
        edit: {parameter name: change}.
        method: slug, or what else made the edit: see card.MADE.
        name: what is forgotten.
        chosen: [(layer, step)].
        start, steps, best: the judge's rows (NamedTuples): of the unedited model, of all candidates, of what was chosen.
        counts: {n_forget, n_retain, ...}: of what the judge's figures are.
        columns: (name, value) that every row of the CSV gets besides.
    """
    rows = pd.DataFrame([row._asdict() for row in [start, *steps]]).assign(**dict(columns))
    files.write_text(stem.with_name(f"{stem.name}-steps.csv"), rows.to_csv(index=False, lineterminator="\n"))
    delta = stem.with_name(f"{stem.name}.delta.safetensors")
    where = " + ".join(layer for layer, _ in chosen)
    metrics = best._asdict() | counts | {"split": "validation", "method": method, "chosen": chosen}
    deltas.save(delta, model, edit, name=name, layer=where, step=chosen[-1][1] if chosen else 0.0, metrics=metrics)
    touched = sum(t.numel() for t in edit.values())
    return {
        "chosen": chosen,
        "delta": delta.name,
        "delta_bytes": delta.stat().st_size,
        "params_touched": touched,
        "params_share": touched / model.parameter_count,
        "n_candidates": len(steps),
        "original_validation": start._asdict(),
        "winner_validation": best._asdict(),
    }


def inputs_hash(model_hash, gradients, evaluations, tars=()):
    """One hash of everything a method depends on besides its settings.

    Args:
        model_hash: gradients.model_hash.
        gradients: [{parameter name: tensor}].
        evaluations: [data.PictureSet].
        tars: paths of pairs that the method reads.
    """
    digest = hashlib.sha256(model_hash.encode())
    for part in (*map(files.tensor_hash, gradients), *map(files.file_hash, tars)):
        digest.update(part.encode())
    for pictures in evaluations:
        digest.update(pictures.images.contiguous().numpy().tobytes())
        digest.update(repr((pictures.labels.tolist(), pictures.groups, pictures.names)).encode())
    return digest.hexdigest()


def valid(path, settings):
    """The record at `path` if it was made with these settings and inputs and the weights it names are there; else None."""
    try:
        record = files.read_json(path)
    except SlugError:
        return None
    same = all(record.get(k) == v for k, v in settings.items())
    return record if same and (not record.get("delta") or (path.parent / record["delta"]).is_file()) else None


def one_line(record):
    """A record in one line for the terminal."""
    after, before = record["splits"]["test"][record["method"]], record["splits"]["test"]["original"]
    return (
        f"{record['name']}, {record['method']}: {short(record['layer'])} step {record['step']:.4g}, test split: "
        f"FA@1 {before['forget_acc1']:.1%} -> {after['forget_acc1']:.1%} (at most {after['forget_upper']:.1%}), "
        f"identities {100 * after['identities_change']:+.2f}, objects {100 * after['objects_change']:+.2f} points, "
        f"delta {record['delta_bytes'] / 1e3:.0f} kB = {record['params_share']:.2%} of the model"
    )


def missing(record):
    """What a record lacks of what reports read, as text; empty for a whole one."""
    texts = [k for k in ("method", "name", "kind", "model", "layer") if not isinstance(record.get(k), str)]
    if texts or record["kind"] not in KINDS:
        return f"{texts[0] if texts else 'kind'}"
    for split in ("validation", "test"):
        states = record["splits"].get(split) if isinstance(record["splits"], dict) else None
        for state in ("original", record["method"]):
            figures = states.get(state) if isinstance(states, dict) else None
            if not isinstance(figures, dict):
                return f"the figures of {state}, {split} split"
            changes = () if state == "original" else CHANGES
            bad = [k for k in (*FIGURES, *changes) if not isinstance(figures.get(k), (int, float))]
            if bad:
                return f"{bad[0]} of {state}, {split} split"
    return ""


def check_whole(path, record):
    """The record that `path` holds. SlugError if it is none, or not whole."""
    lacks = missing(record) if isinstance(record, dict) and "splits" in record else "its splits"
    if lacks:
        raise SlugError(f"{path} is no whole record: it lacks {lacks}; delete it and run its stage again")
    return record


def check_halves(record, args):
    """SlugError unless a record was made with the --seed and --imagenet-share of `args`, which draw the splits: else
    pictures that chose the edit would report it."""
    for flag in ("seed", "imagenet_share"):
        made, here = record.get("settings", {}).get(flag), getattr(args, flag)
        if made != here:
            flag = f"--{flag.replace('_', '-')}"
            raise SlugError(
                f"the record of {record['method']} for {record['name']} was made with {flag} {made}, this run has {flag} "
                f"{here}: pictures that chose the edit would report it; give {flag} {made}, or run its stage again"
            )


def read_all(folder, label=None):
    """All records of results/clip, sorted by kind and name. SlugError for one that is not whole."""
    found = []
    for path in sorted(folder.glob("*.json")):
        record = files.read_json(path)
        if isinstance(record, dict) and "splits" in record:
            found.append(check_whole(path, record))
    return sorted((r for r in found if label in (None, r["model"])), key=lambda r: (r["kind"], r["name"]))


def write_important_layers(folder, label):
    """`{model}-important_layers.txt`: per name the fronts and the winner."""
    lines = []
    for record in (r for r in read_all(folder, label) if "fronts" in r):
        lines.append(f"{record['name']}: winner {record['layer']}, step {record['step']:.6g}")
        for encoder, front in record["fronts"].items():
            lines += [
                f"  {encoder} {r['name']}: importance {r['importance']:.4g}, alignment {r['alignment']:+.4f}" for r in front
            ]
    files.write_text(folder / f"{files.safe_name(label)}-important_layers.txt", "\n".join(lines) + "\n")
