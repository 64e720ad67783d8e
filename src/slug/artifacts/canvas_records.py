"""Records of pipelines, as b2_unlearn_sd.py writes them."""

from pathlib import Path

from slug import files
from slug.artifacts.records import Record
from slug.errors import SlugError


def file_stem(pipeline: str, method: str, kind: str, name: str) -> str:
    """Name of a concept's result files, without their endings."""
    return f"{files.safe_name(f'{pipeline}-{method}-{kind}')}-{files.name_stem(name)}"


def stem_of(record: Record) -> str:
    """`file_stem` of a record."""
    return record["delta"].removesuffix(".delta.safetensors")


def check_apart(path: Path, prompts_hash: str, select: str) -> None:
    """SlugError where there is a record of other prompts or another judge (--select), which a run would replace."""
    try:
        record = files.read_json(path)
    except SlugError:  # none, or a damaged one
        return
    if (record["prompts_hash"], record["settings"]["select"]) != (prompts_hash, select):
        raise SlugError(f"{path} is of other prompts or another judge; give another --result-dir, or --force to replace it")


def read_records(folder: Path, pipeline: str, base: str, prompts: str | Path) -> list[Record]:
    """The records of a pipeline, by its tag and its hash `base`, with these prompts. SlugError: none, or other weights."""
    found = [files.read_json(p) for p in sorted(folder.glob(f"{pipeline}-*.json"))]
    prompts_hash = files.file_hash(files.existing(prompts, "prompts", "give --prompts"))
    # The tag of another pipeline may begin like this one's, followed by a hyphen.
    found = [r for r in found if (r["pipeline"], r["prompts_hash"]) == (pipeline, prompts_hash)]
    if not found:
        raise SlugError(f"{folder} has no record of {pipeline} with these prompts; make them with src/sd/b2_unlearn_sd.py")
    stale = [r["name"] for r in found if r["pipeline_hash"] != base]
    if stale:
        raise SlugError(f"the records of {', '.join(stale)} are of other weights or settings; run b2_unlearn_sd.py again")
    return found
