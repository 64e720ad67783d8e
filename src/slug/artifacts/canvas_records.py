"""Records of pipelines, and the tables made of them."""

import math
import statistics

import slug.torchvision_cpu  # noqa: F401  (before timm)

from slug import files
from slug.errors import SlugError
from slug.evaluation.canvas_prompts import names_of, shows
from slug.evaluation.unlearncanvas import Scores


def file_stem(pipeline, method, kind, name):
    """Name of a concept's result files, without their endings."""
    return files.safe_name(f"{pipeline}-{method}-{kind}-{name.replace(' ', '_')}")


def read_records(folder, pipeline, base, prompts):
    """The records that b2_unlearn_sd.py wrote of a pipeline with these prompts.

    Args:
        pipeline, base: models.diffusion.Diffusion's tag and hash.
        prompts: path of the CSV.
    Raises:
        SlugError: there are none, or they are of other weights.
    """
    found = [files.read_json(p) for p in sorted(folder.glob(f"{pipeline}-*.json"))]
    prompts_hash = files.file_hash(files.existing(prompts, "prompts", "give --prompts"))
    # A pipeline's tag may begin as another one's, with a hyphen after it.
    found = [r for r in found if (r["pipeline"], r["prompts_hash"]) == (pipeline, prompts_hash)]
    if not found:
        raise SlugError(f"{folder} has no record of {pipeline} with these prompts; make them with src/sd/b2_unlearn_sd.py")
    stale = [r["name"] for r in found if r["pipeline_hash"] != base]
    if stale:
        raise SlugError(f"the records of {', '.join(stale)} are of other weights or settings; run b2_unlearn_sd.py again")
    return found


def curve(steps, shares):
    """What a method can reach on the validation split: for each share the mean over concepts of the best UA among those
    that leave at least this part of the original's IRA, and of its CRA.

    A candidate without IRA and CRA, since it could not win, counts nowhere: the true curve may lie higher.

    Args:
        steps: DataFrame of a method's candidates, the unedited pipeline being step 0 of each concept: name, step, UA, IRA,
            CRA.
    """
    best = []
    for _, part in steps.groupby("name"):
        start = part[part["step"] == 0].iloc[0]
        known = [c for c in ("IRA", "CRA") if not math.isnan(start[c])]
        left = part[known] / start[known]
        best.append([part.loc[(left >= share - 1e-9).all(axis=1), "UA"].max() for share in shares])
    return [statistics.fmean(values) for values in zip(*best, strict=True)]


def said_by_clip(asked):
    """Markdown line of what figures of ClipClassifiers are of, for Requests of the test split."""
    names = names_of(asked)["object"]
    counts = sorted({sum(shows("object", n, asked)) for n in names})
    return (
        f"Judged by the unedited CLIP, zero-shot among {', '.join(names)}; "
        f"{' or '.join(map(str, counts))} pictures of each, in seeds that chose nothing."
    )


def one_line(record):
    """A record of b2_unlearn_sd.py in one line for the terminal."""
    before, after = record["original_validation"], record["winner_validation"]
    chosen = ", ".join(f"{layer} {step:.4g}" for layer, step in record["chosen"]) or "nothing"
    known = (f"{k} {before[k]:.1%} -> {after[k]:.1%}" for k in Scores._fields if not math.isnan(before[k]))
    return (
        f"{record['kind']} {record['name']}, {record['method']}: {chosen}; validation split: {', '.join(known)}; "
        f"{record['n_candidates']} candidates, {record['seconds']:.0f} s, delta {record['delta_bytes'] / 1e3:.0f} kB = "
        f"{record['params_share']:.2%} of the pipeline"
    )


COLUMNS = (
    "method kind name UA IRA CRA FID seconds peak_mem_mb storage_bytes n_images params_share layer step n_candidates seed "
    "inside_grid"
).split()


def tidy(frame):
    """Rows of results/uncanvas/table.csv in DESIGN.md's columns and order."""
    return frame.reindex(columns=COLUMNS).sort_values(["kind", "method", "name"], ascending=[False, True, True])
