"""Sound files with absurd contents: each is read as what it says, left out and counted, or refused in one line.

Where test_damaged_inputs.py flips bytes, each file here is a whole JSON, CSV, tar, parquet, safetensors or PyTorch file: its
keys, types, shapes, names and numbers are what no sane tool would write.
"""

import copy
import io
import json
import random
import shutil
import signal
import tarfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slug import files, models
from slug.artifacts import canvas_records, deltas, gradient_files, records
from slug.data import curation, evaluation_sets, sources
from slug.data.pairs import load_pairs
from slug.errors import SlugError
from slug.experiments import runner, study_variants
from slug.models import LOCAL
from slug.reports import (
    assistants,
    bench,
    clip_report,
    clip_tables,
    durability_report,
    pipelines,
    reading,
    several,
    study_report,
)

INPUTS, SECONDS = 18, 30  # of each file; for each of them
ABSURD = [None, True, False, -1, 0, 1e308, float("nan"), float("-inf"), 10**400, "", " ", "../x", "/etc/passwd", "a" * 5000]
ABSURD += ["\0", "\ud800", [], [[]], {}, {"a": {}}, "nan", "-1", "Ünï cödé", [None, 1, "x"], "trust_remote_code"]
DEEP = "[" * 20000 + "]" * 20000
DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn]

# ------------------------------------------------------------------------------------- one absurd version of each format


def nodes(value, path=()):
    """The paths of all values within a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from nodes(inner, (*path, key))


def json_file(path, rng):
    value = json.loads(path.read_text())
    *way, last = rng.choice([p for p in nodes(value) if p])
    holder = value
    for key in way:
        holder = holder[key]
    action = rng.choice(["replace", "replace", "replace", "delete", "rename", "wrap", "deep"])
    old = holder[last]
    if action == "delete":
        del holder[last]
    elif action == "rename" and isinstance(holder, dict):
        holder[str(last).upper()] = holder.pop(last)
    else:
        holder[last] = {"wrap": [old], "deep": "DEEP"}.get(action, rng.choice(ABSURD))
    path.write_text(json.dumps(value).replace('"DEEP"', DEEP), encoding="utf-8")
    return f"{action} {(*way, last)} {str(holder[last])[:40] if action in ('replace', 'wrap') else ''}"


def text_file(path, rng):
    """A CSV or another list of lines."""
    lines = path.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    row = rng.randrange(len(cells))
    column = rng.randrange(len(cells[row]))
    word = str(rng.choice(ABSURD)).encode("utf-8", "replace").decode()
    action = rng.choice(
        ["cell", "cell", "cell", "column", "row", "twice", "header only", "extra", "semicolons", "reversed", "bom"]
    )
    if action == "cell":
        cells[row][column] = word
    elif action == "column":
        cells = [c[:column] + c[column + 1 :] for c in cells]
    elif action == "row":
        del cells[row]
    elif action == "twice":
        cells.insert(row, cells[row])
    elif action == "header only":
        cells = cells[:1]
    elif action == "extra":
        cells[row].append(word)
    elif action == "reversed":
        cells = cells[::-1]
    text = "\n".join((";" if action == "semicolons" else ",").join(c) for c in cells) + "\n"
    path.write_text(("\ufeff" if action == "bom" else "") + text, encoding="utf-8")
    return f"{action} {row} {column} {word[:40]!r}"


def tar_file(path, rng):
    with tarfile.open(path) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar if m.isfile()]
    at = rng.randrange(len(members))
    member, content = copy.copy(members[at][0]), members[at][1]
    stem, _, kind = member.name.rpartition(".")
    action = rng.choice(["name", "name", "name", "link", "folder", "device", "twice", "content", "lost"])
    if action == "name":
        ways = [
            "../{}.{}",
            "/etc/{}.{}",
            "./a/b/{}.{}",
            "{}.b.{}",
            " {}.{}",
            "{}\n.{}",
            "{}.{}.",
            "é{}.{}",
            "{}{}",
            "a" * 300 + "{}.{}",
        ]
        member.name = rng.choice(ways).format(stem, rng.choice([kind, kind.upper()]))
    elif action == "link":
        member.type, member.linkname, content = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE]), "/etc/passwd", b""
    elif action in ("folder", "device"):
        member.type, content = tarfile.DIRTYPE if action == "folder" else tarfile.CHRTYPE, b""
    elif action == "content":
        content = rng.choice([b"", b"\0" * 9, "\ufeffcaption".encode(), "caption".encode("utf-16"), b"\xff\xfe", b"\n\n"])
    member.size = len(content)
    members[at : at + (action != "twice")] = [] if action == "lost" else [(member, content)]
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return f"{action} {member.name!r} {content[:12]!r}"


def parquet_file(path, rng):
    table = pq.read_table(path)
    name = rng.choice(table.column_names)
    at, values = table.column_names.index(name), [None if v is None else str(v) for v in table[name].to_pylist()]
    ways = {
        "dropped": lambda: table.drop_columns([name]),
        "upper": lambda: table.rename_columns([c.upper() if c == name else c for c in table.column_names]),
        "large": lambda: table.set_column(at, name, pa.array(values, pa.large_string())),
        "dictionary": lambda: table.set_column(at, name, pa.array(values).dictionary_encode()),
        "binary": lambda: table.set_column(at, name, pa.array([str(v).encode() for v in values], pa.binary())),
        "numbers": lambda: table.set_column(at, name, pa.array(range(len(values)))),
        "floats": lambda: table.set_column(at, name, pa.array([float("nan")] * len(values))),
        "nulls": lambda: table.set_column(at, name, pa.nulls(len(values))),
        "some null": lambda: table.set_column(at, name, pa.array([None, *values[1:]], pa.string())),
        "lists": lambda: table.set_column(at, name, pa.array([[v] for v in values])),
        "structs": lambda: table.set_column(at, name, pa.array([{"a": v} for v in values])),
        "twice": lambda: table.append_column(name, table[name]),
        "empty": lambda: table.slice(0, 0),
        "double": lambda: pa.concat_tables([table, table]),
        "more": lambda: table.append_column("../x", table[name]),
    }
    action = rng.choice(list(ways))
    pq.write_table(ways[action](), path)
    return f"{action} {name}"


def absurd_tensors(tensors, rng):
    """(what was done, tensors) with one tensor of another name, shape, type or content."""
    name = rng.choice(sorted(tensors))
    t = tensors[name]
    ways = {
        "dropped": lambda: None,
        "renamed": lambda: {f"{name}_": t},
        "extra": lambda: {name: t, "more": t.clone()},
        "flat": lambda: {name: t.flatten()},
        "first": lambda: {name: t.flatten()[:1].clone()},
        "scalar": lambda: {name: t.flatten()[0].clone()},
        "turned": lambda: {name: t.t().contiguous() if t.ndim == 2 else t[None]},
        "longer": lambda: {name: torch.cat([t, t]) if t.ndim else t[None]},
        "none": lambda: {name: t.flatten()[:0].clone()},
        "nan": lambda: {name: torch.full_like(t, float("nan"))},
        "inf": lambda: {name: torch.full_like(t, float("inf"))},
        "dtype": lambda: {name: t.to(rng.choice(DTYPES))},
    }
    action = rng.choice(list(ways))
    out = {n: x for n, x in tensors.items() if n != name} | (ways[action]() or {})
    return f"{action} {name} {out.get(name, torch.zeros(0)).dtype}", out


def safetensors_file(path, rng):
    with safe_open(path, "pt") as f:
        header = f.metadata() or {}
    tensors = load_file(path)
    if header.keys() > {"format"} and rng.random() < 0.6:  # a delta's
        key, word = rng.choice(sorted(header)), rng.choice(ABSURD)
        if rng.random() < 0.2:
            del header[key]
        elif key == "metrics" and rng.random() < 0.7:
            metrics = {rng.choice(["method", "forget_acc1", "chosen", "together_with", "split"]): word}
            header[key] = rng.choice([json.dumps(metrics), json.dumps([metrics]), '{"a":' + DEEP + "}"])
        else:
            header[key] = str(word).encode("utf-8", "replace").decode()
        said = f"header {key} {word!r:.60}"
    else:
        said, tensors = absurd_tensors(tensors, rng)
    save_file(tensors, path, metadata=header or None)
    return said


def pt_file(path, rng):
    grads = torch.load(path, weights_only=True)
    said, tensors = absurd_tensors(grads, rng)
    other = {
        "a list": list(grads.values()),
        "a tensor": next(iter(grads.values())),
        "nested": {"state_dict": grads},
        "empty": {},
    }
    other |= {
        "numbers": dict.fromkeys(grads, 1.0),
        "int keys": dict(enumerate(grads.values())),
        "complex": {"a": torch.ones(2) * 1j},
    }
    if rng.random() < 0.4:
        said = rng.choice(list(other))
        tensors = other[said]
    torch.save(tensors, path)
    if rng.random() < 0.5:  # whoever wrote it wrote the fingerprint as well
        fingerprint = files.read_json(path.with_suffix(".json"))
        files.write_json(path.with_suffix(".json"), fingerprint | {"sha256": files.file_hash(path)})
    return said


# ------------------------------------------------------------------------------------------------- sound files and readers


@pytest.fixture(scope="module")
def sound(tiny_clip, tiny_world, tmp_path_factory):
    """A folder with one good file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    shutil.copytree(tiny_clip, folder, dirs_exist_ok=True)
    for part in ("celeba", "ImageNet"):
        shutil.copytree(tiny_world / part, folder / part)
    tiny.write_pairs(folder / "pairs.tar", ["a dog", "alien", "a cat", "tree", "car"])
    tiny.write_shard(folder / "shards", 0, ["alien", "an alien icon", "a dog", "ALIEN", "cat"])
    clip = tiny.load(folder)
    edit = {"visual.proj": 0.01 * torch.ones_like(clip.parameters["visual.proj"])}
    deltas.save(
        folder / "a.delta.safetensors", clip, edit, name="a", layer="visual.proj", step=1.0, metrics={"method": "slug"}
    )
    deltas.apply(folder / "a.delta.safetensors", folder / "open_clip", folder / "edited")
    gradient_files.save(folder / "grads.pt", {n: torch.ones_like(p) for n, p in clip.parameters.items()}, {"model": "m"})
    for file in (tiny.ROOT / "results" / "demo").glob("mini-clip-Lion*"):
        tiny.write_file(folder / "records" / file.name, file.read_bytes())
    copy_tables(folder)
    settings = files.read_json(tiny.ROOT / "results/demo/uncanvas/settings.json")
    files.write_json(folder / "sd/canvas.json", settings["common"] | settings["records"][0])
    files.write_json(folder / "vlm/assistant.json", ASSISTANT)
    return folder


ASSISTANT = {"method": "slug", "name": "Frog", "model": "m", "layer": "l", "step": 1.0, "delta": "m-Frog.delta.safetensors"}
ASSISTANT |= {"seconds": 1.0, "peak_mem_mb": 1.0, "params_share": 0.1, "n_candidates": 3, "delta_bytes": 5}


def canvas_record(d):
    canvas_records.stem_of(canvas_records.check_whole(d / "sd/canvas.json", files.read_json(d / "sd/canvas.json")))


def assistant_record(d):
    record = records.check_assistants(d / "vlm/assistant.json")
    assert f"{record['step']:.3g} {record['delta_bytes'] / 1e3:.0f}"  # as reports write them


KINDS = pd.DataFrame([{"name": "Lion", "kind": "colour", "before": 0.9, "after": 0.8, "n": 30}])
TABLES = {  # committed table: the report on it, and the columns that its readers ask for
    "bench/table.csv": (bench.table, ()),
    "demo/table.csv": (clip_report.markdown, ()),
    "demo/multi/table.csv": (lambda f: several.parts_report([(f, [])]), reading.SEVERAL),
    "demo/uncanvas/table.csv": (lambda f: pipelines.report(f, "x"), ()),
    "demo/uncanvas/tokens.csv": (pipelines.tokens, ()),
    "demo/uncanvas/multi.csv": (lambda f: pipelines.together(f, "slug"), ()),
    "demo/uncanvas/candidates.csv": (lambda f: str(pipelines.curve(f[f["method"] == "slug_w"], [0.9])), ()),
    "demo/vlm/table.csv": (lambda f: assistants.report(f, KINDS), ()),
    "demo/vlm/curve.csv": (lambda f: assistants.curve_report(f, "x.png"), ()),
    "demo/study/runs.parquet": (lambda f: study_report.report(f, "x.png"), study_variants.SCHEMA),
    "demo/lasting/runs.parquet": (lambda f: durability_report.report(f) + durability_report.page_block(f), None),
}


def copy_tables(folder):
    """The committed tables, in tables/."""
    for name in TABLES:
        source, target = tiny.ROOT / "results" / name, folder / "tables" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def table_report(name):
    """What reads a table: as the stage or the tool does that reports on it."""
    make, columns = TABLES[name]

    def read(d):
        path = d / "tables" / name
        if path.suffix == ".csv":
            reading.report(path, make, "again", columns)
            return
        frame = runner.read_table(path, "again", columns)
        with reading.as_written(path, "again"):
            make(frame)

    return read


def transform(image):
    return torch.zeros(3, 8, 8, dtype=torch.uint8)


def weights_of(clip, path):
    """The loaded weights are those of the file: what a run uses is what was given."""
    given = load_file(path)
    assert all(torch.equal(p, given[n].float()) for n, p in clip.module.state_dict().items() if n in given)
    assert not [n for n, _ in clip.module.named_parameters() if n not in given and f"{n}s" not in given]


def open_clip_folder(d):
    weights_of(models.load(f"{LOCAL}{d / 'open_clip'}"), d / "open_clip" / "open_clip_model.safetensors")


def hugging_face_folder(d):
    weights_of(models.load(clip_model_id=str(d / "hugging_face")), d / "hugging_face" / "model.safetensors")


def applied(d):
    deltas.apply(d / "a.delta.safetensors", d / "open_clip", d / "made/applied")
    before, after = (load_file(f / "open_clip_model.safetensors") for f in (d / "open_clip", d / "made/applied"))
    change, _ = deltas.read(d / "a.delta.safetensors")
    (moved,) = change.values()
    assert torch.allclose(after["visual.proj"].float() - before["visual.proj"].float(), moved.float().T, atol=2e-3)


def reverted(d):
    deltas.revert("a.delta.safetensors", d / "edited", d / "made/back")
    was, now = (load_file(f / "open_clip_model.safetensors") for f in (d / "open_clip", d / "made/back"))
    assert all(torch.equal(t, now[n]) for n, t in was.items()), "what was reverted is not the original"


def gradients(d):
    """A changed file is not used unless its hash says that it was meant."""
    got = gradient_files.load(d / "grads.pt", {"model": "m"}, "a1")
    assert files.read_json(d / "grads.json")["sha256"] == files.file_hash(d / "grads.pt")
    assert all(isinstance(t, torch.Tensor) for t in got.values())


def report(d):
    table = clip_tables.table(records.read_all(d / "records"))
    clip_report.markdown(table)


def pairs(d):
    found = load_pairs(d / "pairs.tar", transform)
    assert len(found.captions) == len(found.images) and all(c.strip() == c or c for c in found.captions)


def curated(d):
    units = sources.shards(d / "shards")
    curation.curate(units, ["Alien"], d / "made/tars", d / "made/pictures", d / "made/work")


READERS = {  # file -> (how to make it absurd, what reads it)
    "pairs.tar": (tar_file, pairs),
    "shards/00000.tar": (tar_file, curated),
    "shards/00000.parquet": (parquet_file, curated),
    "open_clip/open_clip_config.json": (json_file, open_clip_folder),
    "open_clip/tokenizer_config.json": (json_file, open_clip_folder),
    "open_clip/open_clip_model.safetensors": (safetensors_file, open_clip_folder),
    "hugging_face/config.json": (json_file, hugging_face_folder),
    "hugging_face/preprocessor_config.json": (json_file, hugging_face_folder),
    "hugging_face/model.safetensors": (safetensors_file, hugging_face_folder),
    "a.delta.safetensors": (safetensors_file, applied),
    "edited/slug_edits/base.safetensors": (safetensors_file, reverted),
    "edited/slug_edits/a.delta.safetensors": (safetensors_file, reverted),
    "edited/open_clip_model.safetensors": (safetensors_file, reverted),
    "grads.pt": (pt_file, gradients),
    "grads.json": (json_file, gradients),
    "records/mini-clip-Lion.json": (json_file, report),
    "records/mini-clip-Lion-steps.csv": (text_file, report),
    "celeba/list_identity_celeba.txt": (text_file, lambda d: evaluation_sets.load_celeba(d / "celeba", transform)),
    "celeba/frequent_celebs.txt": (text_file, lambda d: evaluation_sets.load_celeba(d / "celeba", transform)),
    "celeba/groups.csv": (text_file, lambda d: evaluation_sets.load_celeba(d / "celeba", transform)),
    "ImageNet/classes.csv": (text_file, lambda d: evaluation_sets.load_imagenet(d / "ImageNet/val", transform)),
    "ImageNet/groups.csv": (text_file, lambda d: evaluation_sets.load_imagenet(d / "ImageNet/val", transform)),
}
READERS |= {"sd/canvas.json": (json_file, canvas_record), "vlm/assistant.json": (json_file, assistant_record)}
READERS |= {f"tables/{name}": (text_file if name.endswith(".csv") else parquet_file, table_report(name)) for name in TABLES}


@pytest.mark.parametrize("name", READERS)
def test_absurd_contents_are_refused_in_one_line_or_used_as_they_are(sound, tmp_path, name):
    place = tmp_path / "place"
    shutil.copytree(sound, place)
    make, read = READERS[name]
    content, rng, fingerprint = (place / name).read_bytes(), random.Random(name), (place / "grads.json").read_bytes()
    read(place)  # sound, it is read
    shutil.rmtree(place / "made", ignore_errors=True)
    before = {p for p in place.rglob("*") if p.is_file()}

    def too_long(*_):
        raise AssertionError(f"{said}: no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    failures = []
    for _ in range(INPUTS):
        (place / name).write_bytes(content)
        (place / "grads.json").write_bytes(fingerprint if name != "grads.json" else content)
        said = make(place / name, rng)
        signal.alarm(SECONDS)
        try:
            read(place)
        except SlugError as err:
            if "\n" in str(err) or len(str(err)) >= 600:
                failures.append(f"{said}: not one short line: {str(err)[:300]!r}")
        except Exception as err:
            failures.append(f"{said}: {type(err).__name__} {str(err)[:200]}")
        finally:
            signal.alarm(0)
        made = {p for p in place.rglob("*") if p.is_file()} - before
        if tiny.left_over(place) or not all("made" in p.parts for p in made):
            failures.append(f"{said}: left {sorted(map(str, made))[:3]}")
        shutil.rmtree(place / "made", ignore_errors=True)
    assert not failures, "\n".join(failures).encode("utf-8", "backslashreplace").decode()


def test_there_are_enough_of_them():
    assert INPUTS * len(READERS) >= 390
