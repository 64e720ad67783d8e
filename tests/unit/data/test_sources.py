"""Sources of pairs: the rows whose captions hold a name, in any number of processes."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
