"""Damaged inputs of every kind: each is read, skipped and counted, or refused in one line; no traceback, hang or litter."""

import json
import random
import shutil
import signal

import pytest
import tiny
import torch
from PIL import Image

from slug import files, models
from slug.artifacts import deltas, gradient_files, records
from slug.data import curation, evaluation_sets, sources
from slug.data.images import decode
from slug.data.pairs import load_pairs
from slug.errors import SlugError
from slug.models import LOCAL
from slug.reports import clip_report, clip_tables

MUTATIONS, SECONDS = 20, 30  # of each input; for each of them


def mutated(content, rng):
    """Bytes with one kind of damage."""
    n = len(content)
    a, b = sorted(rng.randrange(n + 1) for _ in range(2))
    some = rng.randbytes(rng.randint(1, 64))
    kinds = {
        "cut": lambda: content[:a],
        "empty": lambda: b"",
        "zeros": lambda: content[:a] + bytes(b - a) + content[b:],
        "hole": lambda: content[:a] + content[b:],
        "twice": lambda: content[:b] + content[a:],
        "inserted": lambda: content[:a] + some + content[a:],
        "appended": lambda: content + some,
        "noise": lambda: some,
        "text": lambda: b"<html>404 Not Found</html>",
    }
    if rng.random() < 0.5:  # most often a few bytes only
        out = bytearray(content)
        for _ in range(rng.randint(1, 20)):
            out[rng.randrange(n)] = rng.randrange(256)
        return bytes(out)
    return rng.choice(list(kinds.values()))()


@pytest.fixture(scope="module")
def sound(tiny_clip, tiny_world, tmp_path_factory):
    """A folder with one good file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    shutil.copytree(tiny_clip, folder, dirs_exist_ok=True)
    for part in ("celeba", "ImageNet"):
        shutil.copytree(tiny_world / part, folder / part)
    tiny.write_pairs(folder / "pairs.tar", ["a dog", "alien", "a cat"])
    tiny.write_shard(folder / "shards", 0, ["alien", "an alien icon", "a dog", "ALIEN", "cat"])
    clip = tiny.load(folder)
    edit = {"visual.proj": torch.ones_like(clip.parameters["visual.proj"])}
    deltas.save(folder / "a.delta.safetensors", clip, edit, name="a", layer="visual.proj", step=1.0, metrics={})
    gradient_files.save(folder / "grads.pt", edit, {"model": "m"})
    figures = {"forget_acc1": 0.0, "identities_acc1": 0.5, "objects_acc1": 0.5, "n_forget": 4, "forget_upper": 0.5}
    changes = {f"{t}_change{e}": 0.0 for t in ("identities", "objects") for e in ("", "_low", "_high")}
    whole = {"original": figures, "slug": figures | changes}
    record = {"method": "slug", "name": "Alien", "kind": "identity", "model": "m", "layer": "visual.proj", "step": 1.0}
    record |= {
        "splits": {"validation": whole, "test": whole},
        "seed": 0,
        "delta_bytes": 9,
        "params_share": 0.1,
        "seconds": 1.0,
        "peak_mem_mb": 9,
    }
    record |= {"n_candidates": 1, "settings": {}, "winner_validation": {}}
    (folder / "records").mkdir()
    files.write_json(folder / "records" / "m-Alien.json", record)
    image = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 9).convert("RGB")
    for kind in ("jpg", "png", "webp"):
        image.save(folder / f"picture.{kind}")
    return folder


def transform(image):
    return torch.zeros(3, 8, 8, dtype=torch.uint8)


def report_of(folder):
    return clip_report.markdown(clip_tables.table(records.read_all(folder)))


def curated(folder):
    units = sources.shards(folder / "shards")
    curation.curate(units, ["Alien"], folder / "made/tars", folder / "made/pictures", folder / "made/work")


READERS = {  # file to damage -> what reads it
    "pairs.tar": lambda d: load_pairs(d / "pairs.tar", transform),
    "shards/00000.parquet": curated,
    "shards/00000.tar": curated,
    "picture.jpg": lambda d: decode([str(d / "picture.jpg")], transform),
    "picture.png": lambda d: decode([str(d / "picture.png")], transform),
    "picture.webp": lambda d: decode([str(d / "picture.webp")], transform),
    "open_clip/open_clip_model.safetensors": lambda d: models.load(f"{LOCAL}{d / 'open_clip'}"),
    "open_clip/open_clip_config.json": lambda d: models.load(f"{LOCAL}{d / 'open_clip'}"),
    "hugging_face/model.safetensors": lambda d: models.load(clip_model_id=str(d / "hugging_face")),
    "a.delta.safetensors": lambda d: deltas.apply(d / "a.delta.safetensors", d / "open_clip", d / "made/edited"),
    "grads.pt": lambda d: gradient_files.load(d / "grads.pt", {"model": "m"}, "a1"),
    "grads.json": lambda d: gradient_files.load(d / "grads.pt", {"model": "m"}, "a1"),
    "records/m-Alien.json": lambda d: report_of(d / "records"),
    "celeba/list_identity_celeba.txt": lambda d: evaluation_sets.load_celeba(d / "celeba", transform),
    "celeba/frequent_celebs.txt": lambda d: evaluation_sets.load_celeba(d / "celeba", transform),
    "celeba/groups.csv": lambda d: evaluation_sets.load_celeba(d / "celeba", transform),
    "ImageNet/classes.csv": lambda d: evaluation_sets.load_imagenet(d / "ImageNet/val", transform),
    "ImageNet/groups.csv": lambda d: evaluation_sets.load_imagenet(d / "ImageNet/val", transform),
}


@pytest.mark.parametrize("damaged", READERS)
def test_damage_is_refused_in_one_line(sound, tmp_path, damaged):
    shutil.copytree(sound, tmp_path / "place")
    place = tmp_path / "place"
    content, rng, refused = (place / damaged).read_bytes(), random.Random(damaged), 0
    READERS[damaged](place)  # whole, it is read
    shutil.rmtree(place / "made", ignore_errors=True)
    before = {p for p in place.rglob("*") if p.is_file()}

    def too_long(*_):
        raise AssertionError(f"{damaged} {mutation}: no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    for mutation in range(MUTATIONS):
        (place / damaged).write_bytes(mutated(content, rng))
        signal.alarm(SECONDS)
        try:
            READERS[damaged](place)
        except SlugError as err:
            refused += 1
            assert "\n" not in str(err) and len(str(err)) < 600
        finally:
            signal.alarm(0)
        made = {p for p in place.rglob("*") if p.is_file()} - before
        assert not tiny.left_over(place) and all("made" in p.parts for p in made), (mutation, made)
        shutil.rmtree(place / "made", ignore_errors=True)
    if "picture" not in damaged:  # those are skipped and counted
        assert refused


def test_there_are_enough_of_them():
    assert MUTATIONS * len(READERS) >= 200


def test_a_poisoned_checkpoint_runs_no_code(tmp_path):
    """A pickle that would run a command is refused, for gradients and for the training's checkpoint alike."""

    class Poison:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"visual.proj": Poison()}, tmp_path / "grads.pt")
    (tmp_path / "grads.json").write_text(json.dumps({"model": "m"}))
    with pytest.raises(SlugError, match="damaged"):
        gradient_files.load(tmp_path / "grads.pt", {"model": "m"}, "a1")
    assert not (tmp_path / "ran").exists()
