"""Records of pipelines, as b2_unlearn_sd.py writes them."""

from pathlib import Path
from typing import Any

from slug import files
from slug.artifacts.records import Record, lacking
from slug.errors import SlugError
from slug.protocols import OURS

WHOLE: dict[str, Any] = dict.fromkeys(("method", "kind", "name", "pipeline", "pipeline_hash", "prompts_hash", "delta"), str)
WHOLE |= {"chosen": list, "settings": dict, "winner_validation": dict, "original_validation": dict}
WHOLE |= dict.fromkeys(("seconds", "peak_mem_mb", "params_share", "n_candidates", "delta_bytes"), (int, float))


def file_stem(pipeline: str, method: str, kind: str, name: str) -> str:
    """Name of a concept's result files, without their endings."""
    return f"{files.safe_name(f'{pipeline}-{method}-{kind}')}-{files.name_stem(name)}"


def stem_of(record: Record) -> str:
    """`file_stem` of a record."""
    return record["delta"].removesuffix(".delta.safetensors")


def check_whole(path: Path, record: Any) -> Record:
    """The record that `path` holds, as b2_unlearn_sd.py writes it. SlugError if it is not whole."""
    lacks = lacking(record, WHOLE)
    if not lacks and not all(
        isinstance(c, list) and len(c) == 2 and isinstance(c[1], (int, float)) for c in record["chosen"]
    ):
        lacks = "chosen"
    if not lacks and record["lora"] and lacking(record["lora"], {"folder": str, "bytes": int}):
        lacks = "lora"
    if lacks:
        raise SlugError(f"{path} is not a complete record: it lacks {lacks}; delete it and run b2_unlearn_sd.py again")
    for file in (record["delta"], record["lora"]["folder"] if record["lora"] else path.name):
        files.inside(path.parent, file)
    return record


def protocol_of(record: Record) -> str:
    """The name of a record's protocol; records of before protocols were made by ours."""
    return record.get("protocol") or record["settings"].get("protocol") or OURS.name


def check_apart(path: Path, prompts_hash: str, select: str, protocol: str = OURS.name) -> None:
    """SlugError where there is a record of other prompts, another judge (--select) or another protocol, which a run would
    replace."""
    try:
        record = check_whole(path, files.read_json(path))
    except SlugError:  # none, or a damaged one
        return
    remedy = "give another --result-dir, or --force to replace it"
    if (record["prompts_hash"], record["settings"].get("select")) != (prompts_hash, select):
        raise SlugError(f"{path} was made with other prompts or another judge; {remedy}")
    if protocol_of(record) != protocol:
        raise SlugError(f"{path} was made by the protocol {protocol_of(record)}, not {protocol}; {remedy}")


def read_records(folder: Path, pipeline: str, base: str, prompts: str | Path, protocol: str = OURS.name) -> list[Record]:
    """The records of a pipeline, by its tag and its hash `base`, with these prompts. SlugError: none, or of other weights or
    another protocol."""
    found = []
    for path in sorted(folder.glob(f"{pipeline}-*.json")):
        record = check_whole(path, files.read_json(path))
        if path.stem == stem_of(record):
            found.append(record)
        else:
            print(f"note: {path} is left out: its record is of {stem_of(record)}.json")
    prompts_hash = files.file_hash(files.existing(prompts, "prompts", "give --prompts"))
    # The tag of another pipeline may begin like this one's, followed by a hyphen.
    found = [r for r in found if (r["pipeline"], r["prompts_hash"]) == (pipeline, prompts_hash)]
    if not found:
        raise SlugError(f"{folder} has no record of {pipeline} with these prompts; make them with src/sd/b2_unlearn_sd.py")
    other = next((r for r in found if protocol_of(r) != protocol), None)
    if other:
        made = protocol_of(other)
        raise SlugError(f"the record of {other['name']} was made by the protocol {made}; give --protocol {made}")
    stale = [r["name"] for r in found if r["pipeline_hash"] != base]
    if stale:
        raise SlugError(
            f"the records of {', '.join(stale)} were made with other weights or settings; run b2_unlearn_sd.py again"
        )
    return found
