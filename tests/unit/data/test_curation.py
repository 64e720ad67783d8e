"""Curation: the same forget sets whatever the number of processes and the stops, and near duplicates."""

import io
import re

import numpy as np
import pytest
import tiny
from PIL import Image

from slug.data import curation, sources
from slug.data.pairs import read_tar
from slug.errors import SlugError

NAMES = ["Elon_Musk", "Jeff_Bezos"]


@pytest.fixture
def shards(tmp_path):
    """Two shards: 6 usable pairs of Elon Musk (4 and 2), one broken, one not downloaded; and a name beside it."""
    captions = ["Elon Musk", "a dog", "elon-musk smiles", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk", "musk", "Elon musk"]
    tiny.write_shard(tmp_path / "shards", 0, captions, broken=(2,))
    tiny.write_shard(tmp_path / "shards", 1, ["elon musk 1", "Elon Musk 2", "elon musk 3"], failed=(1,))
    return tmp_path / "shards"


def curate(shards, out, names=("Elon_Musk",), **how):
    """Curate into `out`; returns (what was found, the folder of the tars)."""
    folders = out / "tars", out / "pictures", out / "work"
    found = curation.curate(sources.shards(shards), list(names), *folders, curation.How(**how))
    assert not list((out / "work").glob("*"))  # nothing is kept of a run that has come to its end
    return found, out / "tars"


def captions_of(path):
    return [caption for _, _, caption in read_tar(path)]


def test_pairs_broken_pictures_and_shards_are_counted(shards, tmp_path):
    found, _ = curate(shards, tmp_path, NAMES)
    assert found[0] == curation.Found("Elon_Musk", 6, 1, 0, {"00000": 4, "00001": 2})
    assert found[1] == curation.Found("Jeff_Bezos", 1, 0, 0, {"00000": 1})


def test_max_count_stops_the_scan(shards, tmp_path, monkeypatch):
    read, find_rows = [], sources.find_rows
    monkeypatch.setattr(sources, "find_rows", lambda path, *a, **k: read.append(path.name) or find_rows(path, *a, **k))
    _, tars = curate(shards, tmp_path, max_count=3)
    assert captions_of(tars / "Elon_Musk.tar") == ["Elon Musk", "ELON_MUSK, CEO", "Jeff Bezos and Elon Musk"]
    assert read == ["00000.parquet"]


def test_two_processes_write_what_one_writes(shards, tmp_path, monkeypatch):
    _, alone = curate(shards, tmp_path / "alone", workers=1)
    monkeypatch.setattr(sources, "WORTH_PROCESSES", 0)
    _, both = curate(shards, tmp_path / "both", workers=2)
    assert (alone / "Elon_Musk.tar").read_bytes() == (both / "Elon_Musk.tar").read_bytes()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SlugError])
@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_run_that_was_stopped_goes_on_where_it_was(shards, tmp_path, monkeypatch, stop, after):
    _, whole = curate(shards, tmp_path / "whole", NAMES)
    seen, usable = [], curation.usable

    def stopping(content):
        if len(seen) == after:
            raise stop("stopped")
        seen.append(content)
        return usable(content)

    monkeypatch.setattr(curation, "usable", stopping)
    with pytest.raises(stop):
        curate(shards, tmp_path, NAMES)
    assert not (tmp_path / "tars" / "Elon_Musk.tar").exists()
    monkeypatch.setattr(curation, "usable", lambda content: seen.append(content) or usable(content))
    _, tars = curate(shards, tmp_path, NAMES)
    assert len(seen) == 7  # Elon Musk's six and the broken one: none is decoded twice
    for name in NAMES:
        assert (tars / f"{name}.tar").read_bytes() == (whole / f"{name}.tar").read_bytes()
    assert tiny.left_over(tmp_path) == []


def test_a_stopped_run_of_other_shards_is_not_resumed(shards, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(curation, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        curate(shards, tmp_path)
    tiny.write_shard(shards, 0, ["elon musk"])
    (shards / "00001.parquet").unlink()
    folders = tmp_path / "tars", tmp_path / "pictures", tmp_path / "work"
    curation.curate(sources.shards(shards), ["Elon_Musk"], *folders)
    assert len(read_tar(tmp_path / "tars" / "Elon_Musk.tar")) == 1


def test_pairs_found_are_written_to_disk_and_not_held(shards, tmp_path, monkeypatch):
    _, whole = curate(shards, tmp_path / "whole")
    held, add = [], curation.Spool.add
    monkeypatch.setattr(curation.Spool, "add", lambda self, *a: add(self, *a) or held.append(len(self.rows)))
    monkeypatch.setattr(curation, "SPOOL_BYTES", 0)
    _, again = curate(shards, tmp_path / "again")
    assert held == [1] * 6 and (again / "Elon_Musk.tar").read_bytes() == (whole / "Elon_Musk.tar").read_bytes()


def picture(seed, size=64, quality=95):
    """A smooth picture as JPEG."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC).resize((size, size), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


CONTENTS = [picture(0), picture(1), picture(0, size=90, quality=60), picture(2), picture(1, quality=30), picture(3)]


@pytest.fixture
def alike(tmp_path):
    """A shard whose pictures 2 and 4 are nearly those of 0 and 1."""
    tiny.write_shard(tmp_path / "s", 0, ["Ann", "Ann", "Ann", "Bob", "Ann and Bob", "Ann"])
    tiny.write_tar(tmp_path / "s" / "00000.tar", {f"00000{i:04d}.jpg": c for i, c in enumerate(CONTENTS)})
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("how", "name", "wanted"),
    [
        ({}, "Ann", [0, 1, 2, 4, 5]),
        ({"near": 4}, "Ann", [0, 1, 5]),
        ({"near": 4}, "Bob", [3, 4]),  # a duplicate of Ann's picture is none of Bob's
        ({"near": 4, "max_count": 3}, "Ann", [0, 1, 5]),
    ],
)
def test_near_duplicates_of_a_name_are_left_out(alike, tmp_path, how, name, wanted):
    _, tars = curate(alike, tmp_path, ["Ann", "Bob"], **how)
    assert [image for _, image, _ in read_tar(tars / f"{name}.tar")] == [CONTENTS[i] for i in wanted]


def test_near_duplicates_are_counted(alike, tmp_path):
    (found,), _ = curate(alike, tmp_path, ["Ann"], near=4)
    assert str(found) == "Ann: 3 pairs (00000: 3), 0 broken pictures and 2 near-duplicates skipped"


@pytest.mark.parametrize("content", [None, b"", b"<html>", picture(0)[:300]])
def test_bytes_that_are_no_whole_picture_are_unusable(content):
    assert curation.usable(content) is None


def test_the_bytes_of_a_jpeg_stay_and_other_formats_become_jpeg():
    assert curation.usable(CONTENTS[0])[0] == CONTENTS[0]
    made, _ = curation.usable(tiny.jpeg(1, kind="PNG"))
    assert Image.open(io.BytesIO(made)).format == "JPEG"


# ---------------------------------------------------------------------------------------------------- folders and reasons


@pytest.mark.parametrize("strange", ["mine.jpg", "Elon_Musk_0.png", "Elon_Musk_0.jpg.bak", "Other_0.jpg", "deep/1.jpg"])
def test_a_folder_that_holds_other_files_is_not_replaced(shards, tmp_path, strange):
    tiny.write_file(tmp_path / "pictures" / "Elon_Musk" / strange, b"dear to somebody")
    with pytest.raises(SlugError, match="which no forget set has; move it"):
        curate(shards, tmp_path)
    assert (tmp_path / "pictures" / "Elon_Musk" / strange).read_bytes() == b"dear to somebody"
    assert not (tmp_path / "tars").exists()


def test_a_folder_of_an_earlier_run_is_replaced(shards, tmp_path):
    for name in ("Elon_Musk_0.jpg", "Elon_Musk_77.jpg", ".DS_Store", "Thumbs.db"):
        tiny.write_file(tmp_path / "pictures" / "Elon_Musk" / name, b"old")
    curate(shards, tmp_path)
    assert {p.name for p in (tmp_path / "pictures" / "Elon_Musk").iterdir()} == {f"Elon_Musk_{i}.jpg" for i in range(6)}


def test_a_file_where_the_folder_goes_is_named(shards, tmp_path):
    tiny.write_file(tmp_path / "pictures" / "Elon_Musk", b"a file")
    with pytest.raises(SlugError, match="is a file where the folder of pictures of Elon_Musk goes"):
        curate(shards, tmp_path)


def test_the_folder_to_write_cannot_be_the_source(tmp_path):
    tiny.write_file(tmp_path / "pictures" / "Ann" / "Ann_0.jpg", tiny.jpeg(0))
    units = sources.folders(tmp_path / "pictures", ["Ann"])
    with pytest.raises(SlugError, match="both the source and the folder to write"):
        curation.curate(units, ["Ann"], tmp_path / "tars", tmp_path / "pictures", tmp_path / "work")


def test_keys_hold_no_dot_where_webdataset_would_end_them(tmp_path):
    tiny.write_shard(tmp_path / "shards", 0, ["Dr. Dre live"])
    _, tars = curate(tmp_path / "shards", tmp_path, ["Dr. Dre"])
    assert [key for key, *_ in read_tar(tars / "Dr._Dre.tar")] == ["Dr-_Dre_0"]
    curate(tmp_path / "shards", tmp_path, ["Dr. Dre"])  # its own folder is replaced


REASONS = {
    "gone": (
        {"000000009.jpg": tiny.jpeg(0)},
        r"2 captions in W name Ann, but none of their pictures is there \(e\.g\. 000000000 of",
    ),
    "broken": ({f"00000000{i}.jpg": b"x" for i in range(2)}, "2 captions .* but none of their pictures can be decoded"),
    "both": (
        {"000000000.jpg": b"x"},
        r"1 of their pictures are not there \(e\.g\. 000000001 of 00000\) and the others cannot be",
    ),
}


@pytest.mark.parametrize("why", REASONS)
def test_each_reason_for_no_pairs_has_a_sentence_of_its_own(tmp_path, why):
    members, said = REASONS[why]
    tiny.write_shard(tmp_path / "shards", 0, ["Ann", "Ann again"])
    tiny.write_tar(tmp_path / "shards" / "00000.tar", members)
    found, _ = curate(tmp_path / "shards", tmp_path, ["Ann", "Nobody"])
    text = curation.reasons(found, "W", folder=False)
    assert re.search(said, text) and text.startswith("no caption in W names Nobody; ") and text.count("no caption") == 1


def test_pictures_that_are_not_there_are_told_apart_after_a_stop_too(tmp_path, monkeypatch):
    tiny.write_shard(tmp_path / "shards", 0, ["Ann"] * 3)
    tiny.write_tar(tmp_path / "shards" / "00000.tar", {"000000001.jpg": b"x", "000000002.jpg": tiny.jpeg(0)})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(curation, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        curate(tmp_path / "shards", tmp_path, ["Ann"])
    (found,), _ = curate(tmp_path / "shards", tmp_path, ["Ann"])
    assert "2 broken pictures (1 of them not there, e.g. 000000000 of 00000)" in str(found)
