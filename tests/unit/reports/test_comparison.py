"""The comparison with the baselines, of records made by hand."""

import math

import hand_made
import numpy as np
import pytest

from slug.reports import clip_tables, comparison


@pytest.fixture
def frame():
    return clip_tables.table(hand_made.clip_records())


def rows_of(text):
    return {tuple(x.strip() for x in line.split("|")[1:3]): line for line in text.splitlines()}


def test_changes_have_the_t_interval_over_names(frame):
    values = 100 * np.array([-0.30, -0.299, -0.298])
    margin = 4.302653 * values.std(ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom
    wanted = f"{values.mean():+.1f} ({values.mean() - margin:+.1f} to {values.mean() + margin:+.1f})"
    assert wanted in rows_of(comparison.beside(frame).text)["identity", "ga"]


def test_accuracies_membership_and_the_papers_figures_stand_beside_them(frame):
    lines = rows_of(comparison.beside(frame).text)
    ga = lines["identity", "ga"]
    assert "| 60.0 |" in ga and "| 50.0 |" in ga and "61.0 (50.0)" in ga and ga.endswith("| 0, 24.92, 35.88, 89.96 |")
    assert "| 90.0 |" in lines["identity", "original"]


def test_slug_is_compared_with_each_baseline(frame):
    said = comparison.statements(frame)
    assert "SLUG against GA: other identities -0.9 against -29.9 points (SLUG retains more)" in said
    assert "other objects -1.0 against -30.0 points (SLUG retains more); FA@1 0.0% against 0.0%" in said


def test_a_setting_at_the_end_of_its_grid_is_named(frame):
    assert "c, ga: the chosen setting (x) is at the end of its grid" in comparison.statements(frame)


def test_baselines_that_did_not_forget_are_marked():
    made = hand_made.clip_records()
    lost = next(r for r in made if r["method"] == "ga")
    lost["caveat"] = "not forgotten: no candidate met the rule"
    table, said, _ = comparison.parts(clip_tables.table(made))
    assert "| ga (!) |" in table and "| slug |" in table and f"(!) ga, {lost['name']}: {lost['caveat']}." in said


def test_one_name_has_no_statement(frame):
    assert "an interval over names needs two" in comparison.statements(frame[frame["name"] == "a"])


def test_costs_are_means_over_names(frame):
    assert "| slug | 2.0 | 8.0 | 8.0 | 3.0 | 100 | 50.0% | 2 |" in comparison.costs(comparison.compared(frame)).text


def test_names_that_a_method_was_not_run_on_are_left_out():
    made = [r for r in hand_made.clip_records() if not (r["name"] == "b" and r["method"] == "ga")]
    assert set(comparison.compared(clip_tables.table(made))["name"]) == {"a", "c"}


def test_baselines_are_all_methods_but_slug(frame):
    ours = frame[frame["method"] != "ga"]
    assert comparison.has_baselines(frame) and not comparison.has_baselines(ours)
    assert not comparison.has_baselines(ours.replace("slug", "slug_ws"))


def test_the_tabular_has_words_and_no_nan_and_bold_is_the_best(frame):
    text = comparison.latex(frame)
    assert "nan" not in text and "unedited model" in text
    lines = {tuple(x.strip() for x in line.split("&")[:2]): line for line in text.splitlines() if "&" in line}
    assert ("identity", "gradient ascent (GA)") in lines
    assert lines["identity", "SLUG"].count("textbf") >= 3 and "textbf" not in lines["identity", "unedited model"]


@pytest.mark.parametrize("column", ["mia_mean", "seconds", "objects_acc1", "forget_acc1"])
@pytest.mark.parametrize("methods", [["ga"], ["ga", "slug"], ["ga", "slug", "original"]])
def test_what_was_not_measured_is_an_empty_cell_of_the_tabular(frame, column, methods):
    frame.loc[frame["method"].isin(methods), column] = math.nan
    text = comparison.latex(frame)
    (ours,) = [line for line in text.splitlines() if line.startswith("identity & SLUG")]
    assert "nan" not in text.lower() and ("&  &" in ours or "&  \\\\" in ours) == ("slug" in methods)
