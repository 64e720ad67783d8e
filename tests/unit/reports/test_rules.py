"""The constants of the rule that a report goes by are those of the runs that it is about."""

import json

import pandas as pd
import pytest

from slug.reports import claims, clip_tables, rules, study_report
from slug.reports.claims import FORGETTING, Statement

COLUMNS = {"variant": "standard", "kind": "identity", "model": "m", "error": None, "n_forget": 100, "forget_acc1": 0.03}


def runs(limit):
    """A study's runs on ten names, of each of which 3% is still recognised."""
    said = json.dumps({"flags": {"max_forget": limit, "protocol": "ours"}})
    return pd.DataFrame([COLUMNS | {"name": f"n{i}", "settings": said} for i in range(10)])


@pytest.mark.parametrize(("limit", "verdict"), [(0.02, "fails"), (0.05, "holds")])
def test_a_study_goes_by_the_limit_of_its_runs(limit, verdict):
    frame = runs(limit)
    found = claims.compare(frame, Statement("standard", claims.LIMIT, FORGETTING))
    assert found.verdict == verdict
    assert f"{100 * limit:g}% or below" in claims.rule(frame)
    said = study_report._statement(Statement("standard", claims.LIMIT, FORGETTING), found, rules.max_forget(frame))
    assert said.startswith(f"at most {100 * limit:g}% is still recognised")


def record(**settings):
    states = {"original": {"forget_acc1": 1.0}, "slug": {"forget_acc1": 0.03}}
    about = {"method": "slug", "name": "x", "kind": "identity", "model": "m", "seed": 0, "protocol": "ours"}
    return about | {"splits": {"test": states}, "settings": settings}


def test_a_table_has_the_limit_of_its_records_where_it_is_not_the_usual_one():
    usual, other = (clip_tables.table([record(max_forget=x)]) for x in (0.02, 0.05))
    assert "max_forget" not in usual and rules.max_forget(usual) == 0.02
    assert set(other["max_forget"]) == {0.05} and rules.max_forget(other) == 0.05


@pytest.mark.parametrize("text", ["[]", "{}", '{"flags": 1}', "null"])
def test_settings_that_do_not_say_it_leave_the_default(text):
    assert rules.max_forget(pd.DataFrame({"settings": [text]})) == 0.02
