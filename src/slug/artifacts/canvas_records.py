"""Records of pipelines, as b2_unlearn_sd.py writes them."""

from pathlib import Path

from slug import files
from slug.artifacts.records import Record
from slug.errors import SlugError


def file_stem(pipeline: str, method: str, kind: str, name: str) -> str:
    """Name of a concept's result files, without their endings."""
    return files.safe_name(f"{pipeline}-{method}-{kind}-{name.replace(' ', '_')}")


def read_records(folder: Path, pipeline: str, base: str, prompts: str) -> list[Record]:
    """The records of a pipeline with these prompts.

    Args:
        pipeline, base: tag and hash of a models.diffusion.Diffusion.
        prompts: path of the CSV.
    Raises:
        SlugError: there is no record, or one is of other weights.
    """
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


def __getattr__(name: str) -> object:
    """The old names, until the last caller is converted."""
    from slug.reports import pipelines

    if name in ("curve", "tidy", "one_line"):
        return getattr(pipelines, name)
    raise AttributeError(name)
