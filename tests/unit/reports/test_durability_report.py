"""The verdicts on durability, of runs made by hand."""

import math

import pandas as pd
import pytest
from hand_made import durability_rows

from slug.reports import durability_report


@pytest.fixture(scope="module")
def frame():
    """Three names, of which c is hardly known; every kind of test."""
    rows = durability_rows("edit", [(0.0, 0.8), (0.0, 0.5), (0.0, 0.1)])
    rows += durability_rows("linear probe", [(0.8, 0.9), (0.725, 0.8)], chance=0.5)
    rows += durability_rows("other spelling", [(0.0, 0.8), (0.05, 0.5)], "upper")
    rows += durability_rows("other spelling", [(0.4, 0.8), (0.5, 0.1)], "synonym")  # the model does not know b's synonym
    for steps, value in ((0, 0.0), (5, 0.2), (20, 0.8)):
        rows += durability_rows("relearning", [(value, 0.8)] * 2, f"2 pictures, {steps} steps", steps=steps)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table(frame):
    return durability_report.table(frame).set_index("test")


def test_the_verdict_follows_its_rule():
    say = durability_report.verdict
    assert say(0.1, 0.02, 0.1) == "survives" and say(0.1, 0.02, 0.2) == "survives?"
    assert say(0.11, 0.105, 0.4) == "comes back in part" and say(0.3, -0.1, 0.7) == "comes back in part?"
    assert say(0.5, 0.5, 0.9) == "comes back" and say(0.6, 0.4, 0.8) == "comes back?"
    assert say(0.0, -0.05, 0.05) == "survives"


def test_the_verdict_on_one_name_needs_no_interval():
    assert durability_report.verdict(0.7, math.nan, math.nan) == "comes back"


def test_a_name_that_is_not_known_well_enough_is_left_out(table):
    assert list(table["names"]) == [2, 2, 2, 2]


def test_pictures_are_pooled(table):
    edit = table.loc["edit"]
    assert (edit["correct"], edit["n"], edit["verdict"]) == (0, 80, "survives")
    assert edit["high"] == pytest.approx(0.0368, abs=1e-3)


def test_retained_accuracy_is_a_change(table):
    assert table.loc["edit", "identities"] == pytest.approx(-0.1) and table.loc["edit", "objects"] == 0


def test_the_probe_counts_above_chance(table):
    probe = table.loc["linear probe"]
    assert probe["back"] == pytest.approx(0.75) and probe["verdict"] == "comes back"


def test_each_name_counts_with_the_spelling_that_recovers_most(table):
    spelling = table.loc["other spelling that recovers most"]
    assert spelling["back"] == pytest.approx((0.4 / 0.8 + 0.05 / 0.5) / 2) and spelling["correct"] == 18
    assert spelling["verdict"] == "comes back in part?"  # two names: the interval is wide


def test_relearning_counts_after_the_last_step(table):
    assert table.loc["relearning, 2 pictures, 20 steps"]["back"] == pytest.approx(1)


def test_the_report_has_every_part(frame):
    text = durability_report.report(frame, "curves.png")
    assert "| edit | survives, 0% (0 to 0) |" in text and "](curves.png)" in text
    assert "3 names, 120 pictures of 12 source images" in text and "| b | synonym | 40 | 10% | 50% |" in text
    assert "## Every other spelling" in text and "## Every drawing style" not in text


def test_a_run_that_has_just_started_has_a_report(frame):
    """Nobody is known well enough, and relearning is not done."""
    started = durability_report.report(frame[frame["name"] == "c"])
    assert "1 name, 40 pictures" in started and "![" not in started


def test_curves_are_means_over_names(frame):
    curves, original = durability_report.curves(frame)
    steps, forget, retain = curves["2 pictures"]["slug"]
    assert list(steps) == [0, 5, 20] and list(forget) == pytest.approx([0, 0.2, 0.8]) and list(retain) == [0.5] * 3
    assert original == pytest.approx((0.8, 0.55))


def test_what_gold_shows_as_well_is_no_coming_back(frame):
    """Pairs of the same name, test and setting; a name that no gold model lacks does not count."""
    gold = frame[(frame["name"] != "c") & (frame["test"] != "other spelling")].assign(method="gold")
    gold = gold.assign(value=gold["value"] / 2)
    text = durability_report.beyond_gold(frame, gold)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()[2:]}
    assert set(lines) == {"edit", "relearning, 2 pictures, 20 steps", "linear probe"}
    assert lines["relearning, 2 pictures, 20 steps"] == "| relearning, 2 pictures, 20 steps | 40.0% | +40.0, 2 names |"
    assert "| 38.1% | +38.1 (" in lines["linear probe"]
    whole = pd.concat([frame, gold])
    assert durability_report.table(durability_report.apart(whole)[0]).equals(durability_report.table(frame))
    assert text in durability_report.report(whole) and text in durability_report.page_block(whole)
    assert "never knew" not in durability_report.report(frame)


def test_gold_counts_with_its_own_strongest_spelling():
    """The strongest of several by chance alone is no coming back: gold, which never knew the name, has a strongest, too."""
    rows = [r for s, v in (("a", 0.3), ("b", 0.0)) for r in durability_rows("other spelling", [(v, 0.8), (v, 0.1)], s)]
    gold = [r for s, v in (("a", 0.0), ("b", 0.3)) for r in durability_rows("other spelling", [(v, 0)] * 2, s, "gold")]
    gold += durability_rows("other spelling", [(0.9, 0.0)], "c", "gold")  # the edits have no such setting
    gold = pd.DataFrame(gold).drop(columns="original")
    (line,) = durability_report.beyond_gold(pd.DataFrame(rows), gold).splitlines()[2:]
    assert line == "| other spelling that recovers most | 30.0% | +0.0, 1 names |"


def test_a_name_that_the_unedited_model_hardly_knows_is_not_beside_gold_either():
    frame = pd.DataFrame(durability_rows("edit", [(0.5, 0.8), (0.9, 0.1)]))
    gold = pd.DataFrame(durability_rows("edit", [(0.1, 0), (0.1, 0)], method="gold"))
    assert durability_report.beyond_gold(frame, gold).splitlines()[2:] == ["| edit | 10.0% | +40.0, 1 names |"]
    assert durability_report.beyond_gold(frame[frame["name"] == "b"], gold).splitlines()[2:] == []
