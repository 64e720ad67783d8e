"""Sources of pairs: the rows whose captions hold a name, in any number of processes."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from slug import pool
from slug.data import curation, names, sources
from slug.data.names import Matcher
from slug.errors import SlugError


def some_metadata(folder, parts, rows=3000):
    """Metadata of captions from few words, some null; returns (paths, matcher, rows of a plain scan by path)."""
    rng = np.random.default_rng(0)
    words = "elon musk Elon_Musk jeff bezos Ann the a of dog Beyonce\u0301 BEYONCÉ tropical fish".split()
    matcher, paths, plain = Matcher(["Elon Musk", "jeff bezos", "Beyoncé", "fish"], ["tropical fish"]), [], {}
    for part in range(parts):
        captions = [" ".join(rng.choice(words, rng.integers(0, 6))) if rng.random() < 0.95 else None for _ in range(rows)]
        keys = [f"{part}-{i}" for i in range(rows)]
        status = rng.choice(["success", "failed"], rows).tolist()
        paths.append(folder / f"{part:05d}.parquet")
        pq.write_table(pa.table({"caption": captions, "key": keys, "status": status}), paths[-1], row_group_size=700)
        found = [matcher.find(c or "") for c in captions]
        plain[paths[-1]] = [
            (k, c, f) for k, c, f, s in zip(keys, captions, found, status, strict=True) if f and s == "success"
        ]
    return paths, matcher, plain


@pytest.mark.parametrize("screened", [True, False])
def test_rows_found_are_those_of_a_plain_scan(tmp_path, monkeypatch, screened):
    paths, matcher, plain = some_metadata(tmp_path, 2)
    monkeypatch.setattr(names, "MOST_SCREENED", 200 if screened else 0)
    assert (matcher.screen() is not None) == screened
    for path in paths:
        assert sources.Shard(path).rows(matcher, threads=True) == plain[path] and len(plain[path]) > 300


def test_two_processes_find_what_one_finds_in_the_same_order(tmp_path):
    paths, matcher, plain = some_metadata(tmp_path, 5, rows=200)
    find = functools.partial(curation._rows, matcher=matcher, threads=False)
    units = [sources.Shard(p) for p in paths]
    assert list(pool.spread(find, units, workers=2)) == list(pool.spread(find, units)) == list(plain.values())


def test_few_bytes_are_read_by_this_process(tmp_path):
    (tmp_path / "a").write_bytes(bytes(100))
    assert sources.worthwhile([tmp_path / "a"], 4, pool.LOCAL) == 0
    assert sources.worthwhile([tmp_path / "a"], 4, "ray") == 4


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(SlugError, match="holds no shard"):
        sources.shards(tmp_path)


# --------------------------------------------------------------------------------------- tables as other tools write them


CAPTIONS = ["alien", "a dog", "an ALIEN", "alien 3"]
KEYS = [f"{i:09d}" for i in range(4)]


def table(**columns):
    return pa.table({"key": KEYS, "caption": CAPTIONS, "status": ["success"] * 3 + ["failed"]} | columns)


REWRITTEN = {
    "as img2dataset": table(),
    "categories": pa.table({n: c.dictionary_encode() for n, c in zip(table().column_names, table().columns, strict=True)}),
    "large text": table(caption=pa.array(CAPTIONS, pa.large_string()), key=pa.array(KEYS, pa.large_string())),
    "keys as numbers": table(key=[0, 1, 2, 3]),
    "keys as fractions": table(key=[0.0, 1.0, 2.0, 3.0]),
    "bytes": table(key=[k.encode() for k in KEYS], caption=[c.encode() for c in CAPTIONS], status=[b"success"] * 3 + [b"f"]),
    "more columns": table(hash=[1, 2, 3, 4]),
    "a key missing": table(key=[KEYS[0], None, KEYS[2], KEYS[3]]),
}


def of_rows(folder, found, members):
    """What a shard of this table and tar gives for the name Alien: [(caption, picture)]."""
    pq.write_table(found, folder / "00000.parquet")
    tiny.write_tar(folder / "00000.tar", members)
    shard = sources.Shard(folder / "00000.parquet")
    rows = shard.rows(Matcher(["Alien"]), threads=False)
    with shard.pictures() as read:
        return [(caption, read(key)) for key, caption, _ in rows]


@pytest.mark.parametrize("case", REWRITTEN)
def test_a_table_that_another_tool_rewrote_is_read(tmp_path, case):
    members = {f"{k}.jpg": k.encode() for k in KEYS[:3]}
    assert of_rows(tmp_path, REWRITTEN[case], members) == [("alien", KEYS[0].encode()), ("an ALIEN", KEYS[2].encode())]


def test_a_table_without_its_status_takes_the_rows_that_the_tar_has(tmp_path):
    found = of_rows(tmp_path, table().drop_columns(["status"]), {f"{k}.jpg": k.encode() for k in KEYS[:3]})
    assert found == [("alien", KEYS[0].encode()), ("an ALIEN", KEYS[2].encode()), ("alien 3", None)]


@pytest.mark.parametrize("start", ["./", "00000/", "./a/b/"])
def test_pictures_are_found_below_folders_of_the_tar(tmp_path, start):
    found = of_rows(tmp_path, table(), {f"{start}{k}.jpg": k.encode() for k in KEYS[:3]})
    assert found == [("alien", KEYS[0].encode()), ("an ALIEN", KEYS[2].encode())]


def test_a_key_that_may_mean_two_pictures_means_none(tmp_path):
    found = of_rows(tmp_path, table(), {f"{f}/{k}.jpg": k.encode() for f in "ab" for k in KEYS[:3]})
    assert found == [("alien", None), ("an ALIEN", None)]


@pytest.mark.parametrize("column", ["key", "caption"])
def test_a_column_that_is_missing_is_named_with_those_there_are(tmp_path, column):
    pq.write_table(table().rename_columns({column: "other"}), tmp_path / "a.parquet")
    with pytest.raises(SlugError, match=rf"no column {column}, only .*other.*give it these columns"):
        sources.Shard(tmp_path / "a.parquet").rows(Matcher(["Alien"]), threads=False)


def test_a_type_that_cannot_be_searched_is_named(tmp_path):
    pq.write_table(table(caption=pa.array(CAPTIONS, pa.string_view())), tmp_path / "a.parquet")
    with pytest.raises(SlugError, match="column caption is of the type string_view; write it as string"):
        sources.Shard(tmp_path / "a.parquet").rows(Matcher(["Alien"]), threads=False)


def test_tables_without_tars_and_tars_without_tables_are_told(tmp_path, capsys):
    for n in range(3):
        tiny.write_shard(tmp_path, n, ["alien"])
    (tmp_path / "00001.tar").unlink()
    (tmp_path / "00002.parquet").unlink()
    (tmp_path / "._00000.parquet").write_bytes(b"")
    assert [u.label for u in sources.shards(tmp_path)] == ["00000"]
    said = capsys.readouterr().out
    assert "2 files are left out: 00001.parquet has no tar, 00002.tar has no table" in said
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(SlugError, match=r"no shard.*00000\.parquet has no tar"):
        sources.shards(tmp_path)


# ------------------------------------------------------------------------------------------------------- image folders


@pytest.mark.parametrize("folder", ["Ann_Bo", "Ann Bo", "ann_bo", " Ann  Bo"])
def test_a_name_finds_its_folder_however_it_is_spelled(tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / "Cy").mkdir()
    for name in ("Ann_Bo", "Ann Bo"):
        found = sources.folders(tmp_path, [name, "Cy"])
        assert [u.path for u in found] == [tmp_path / folder, tmp_path / "Cy"] and found[0].name == "Ann Bo"


def test_of_two_folders_of_a_name_the_exact_one_is_taken_or_both_are_named(tmp_path):
    (tmp_path / "Ann_Bo").mkdir()
    (tmp_path / "ann bo").mkdir()
    assert sources.folders(tmp_path, ["Ann_Bo"])[0].path.name == "Ann_Bo"
    with pytest.raises(SlugError, match="Ann_Bo and ann bo, which both mean ANN BO"):
        sources.folders(tmp_path, ["ANN BO"])


def test_the_pictures_of_others_are_not_taken_for_a_name_without_a_folder(tmp_path, capsys):
    tiny.write_file(tmp_path / "Cy" / "1.jpg", tiny.jpeg(0))
    tiny.write_file(tmp_path / "2.jpg", tiny.jpeg(1))
    (unit,) = sources.folders(tmp_path, ["Ann"])
    assert [key for key, *_ in unit.rows(Matcher(["Ann"]), threads=False)] == ["2.jpg"]
    assert "left out: 1 in a subfolder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "caption"), [("", "Ann Bo"), (" \n", "Ann Bo"), ("\ufeffa photo\n", "a photo"), ("\ufeff", "Ann Bo")]
)
@pytest.mark.parametrize("end", ["txt", "TXT"])
def test_the_caption_of_a_picture_is_the_text_beside_it_or_the_name(tmp_path, text, caption, end):
    tiny.write_file(tmp_path / "Ann_Bo" / "1.jpg", tiny.jpeg(0))
    (tmp_path / "Ann_Bo" / f"1.{end}").write_text(text, encoding="utf-8")
    (unit,) = sources.folders(tmp_path, ["Ann_Bo"])
    assert [c for _, c, _ in unit.rows(Matcher(["Ann"]), threads=False)] == [caption]


def test_a_csv_that_is_not_utf8_is_named_as_such(tmp_path):
    (tmp_path / "a.csv").write_bytes("image,caption\na.jpg,alien caf\xe9\n".encode("latin-1"))
    with pytest.raises(SlugError, match="not UTF-8 text"):
        sources.Table(tmp_path / "a.csv").rows(Matcher(["Alien"]), threads=False)
