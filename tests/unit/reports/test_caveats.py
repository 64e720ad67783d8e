"""Marks and sentences for edits that do not show that their name was forgotten."""

import pandas as pd

from slug.reports import caveats

WHY = "not forgotten: no candidate met the rule on the validation split (rule)"


def test_a_table_has_the_column_where_a_record_has_a_caveat():
    rows = [{"name": n, "method": "ft", **caveats.of({"caveat": said})} for n, said in (("a", ""), ("b", WHY))]
    assert caveats.columns(rows) == ["caveat"] and caveats.columns(rows[:1]) == []
    frame = pd.DataFrame(rows)
    assert [caveats.mark(r) for r in frame.to_dict("records")] == ["", " (!)"]
    assert caveats.of_part(frame) == " (!)" and caveats.of_part(frame[:1]) == ""
    assert caveats.sentences(frame) == [f"(!) b: {WHY}."] and caveats.sentences(frame[:1]) == []
    assert caveats.sentences(frame, method=True) == [f"(!) ft, b: {WHY}."]


def test_a_table_without_the_column_has_no_marks():
    frame = pd.DataFrame([{"name": "a", "method": "ft"}])
    assert caveats.sentences(frame) == [] and caveats.of_part(frame) == ""
