"""Finished work is kept in files of rows, and work is dealt to processes."""

import os

import pandas as pd
import pyarrow as pa
import pytest
import tiny
import torch

from slug.errors import SlugError
from slug.experiments.runner import Parts, deal, read_table

KEY = ("name", "test")


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path, KEY, "mark")


def row(name, test="edit", mark="m", **more):
    return {"name": name, "test": test, "mark": mark, "value": 1.0, **more}


def names(frame):
    return list(frame["name"])


# -------------------------------------------------------------------------------------------------------------- parts


def test_rows_of_finished_work_are_read_back(parts):
    parts.write([row("a"), row("a", value=2.0)], "a", "edit")
    assert parts.rows("m", "a", "edit") == [row("a"), row("a", value=2.0)]


def test_the_file_is_named_by_the_key(parts, tmp_path):
    parts.write([row("Bento Box")], "Bento Box", "other/spelling")
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["Bento_Box-other-spelling.parquet"]
    assert not tiny.left_over(tmp_path)


def test_rows_of_another_mark_are_stale(parts):
    parts.write([row("a")], "a", "edit")
    assert parts.rows("another", "a", "edit") == []


def test_work_that_was_never_done_has_no_rows(parts):
    assert parts.rows("m", "a", "edit") == []


def test_a_damaged_part_has_no_rows(parts):
    parts.write([row("a")], "a", "edit")
    path = parts.path("a", "edit")
    path.write_bytes(path.read_bytes()[:100])
    assert parts.rows("m", "a", "edit") == []


def test_a_schema_gives_the_columns_their_types(tmp_path):
    types = [("name", pa.string()), ("mark", pa.string()), ("value", pa.float64()), ("count", pa.int64())]
    parts = Parts(tmp_path, ("name",), "mark", pa.schema(types))
    parts.write([{"name": "a", "mark": "m", "value": 1}], "a")
    assert parts.rows("m", "a") == [{"name": "a", "mark": "m", "value": 1.0, "count": None}]
    parts.merge(parts.rows("m", "a"))
    assert pa.parquet.read_schema(parts.table).names == [name for name, _ in types]


def test_collecting_merges_parts_into_the_table_and_removes_them(parts):
    parts.write([row("a")], "a", "edit")
    parts.write([row("b"), row("b", value=2.0)], "b", "edit")
    frame = parts.collect("again")
    assert sorted(names(frame)) == ["a", "b", "b"]
    assert pd.read_parquet(parts.table).equals(frame) and not list((parts.folder / "parts").iterdir())


def test_collecting_puts_new_rows_in_place_of_old_ones_of_their_key(parts):
    parts.merge([row("a"), row("a", "linear probe"), row("b")])
    parts.write([row("a", value=5.0)], "a", "edit")
    frame = parts.collect("again").set_index(["name", "test"])["value"]
    assert frame.to_dict() == {("a", "edit"): 5.0, ("a", "linear probe"): 1.0, ("b", "edit"): 1.0}


def test_the_latest_of_two_parts_of_one_key_counts(parts):
    for time, value in ((2, 7.0), (1, 3.0)):  # e.g. of a process that was killed, in a file of another name
        parts.write([row("a", value=value)], "a", str(value))
        os.utime(parts.path("a", str(value)), (time, time))
    assert list(parts.collect("again")["value"]) == [7.0]


def test_collecting_nothing_gives_an_empty_table_and_writes_none(parts):
    frame = parts.collect("again")
    assert list(frame.columns) == [*KEY, "mark"] and frame.empty and not parts.table.exists()


@pytest.mark.parametrize("content", [b"PAR1, and no more", b""])
def test_a_damaged_table_is_refused_with_its_remedy(parts, content):
    parts.table.write_bytes(content)
    with pytest.raises(SlugError, match=r"is not a whole Parquet file .*; do it again"):
        parts.collect("do it again")


def schema(*names):
    return pa.schema([(name, pa.string()) for name in names])


def test_a_table_without_a_column_is_refused(parts):
    parts.merge([row("a")])
    with pytest.raises(SlugError, match="has no column other; again"):
        read_table(parts.table, "again", schema("name", "other"))


def test_a_table_without_rows_is_refused_where_columns_are_asked_for(parts):
    pd.DataFrame(columns=["name"]).to_parquet(parts.table)
    assert read_table(parts.table, "again").empty
    with pytest.raises(SlugError, match="has no rows; again"):
        read_table(parts.table, "again", schema("name"))


# ----------------------------------------------------------------------------------------------------------- processes


def test_one_job_works_here_with_all_threads():
    found = list(deal(lambda item: (item, os.getpid(), torch.get_num_threads()), "abc"))
    assert found == [(item, os.getpid(), torch.get_num_threads()) for item in "abc"]


def test_several_jobs_keep_the_order_and_share_the_threads():
    def work(item):  # nested, so that it is sent by value: other processes cannot import this module
        return item, os.getpid(), torch.get_num_threads()

    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = list(deal(work, "abcd", jobs=2))
    finally:
        torch.set_num_threads(threads)
    assert [item for item, _, _ in found] == list("abcd")
    assert os.getpid() not in {pid for _, pid, _ in found} and {n for _, _, n in found} == {2}
