"""The baseline of docs/extend.md: one file of thirty lines, and no other is touched."""

import importlib.util
import json
import re
import shutil

import pandas as pd
import pytest
import tiny

from slug import methods
from slug.files import ROOT

OUTSIDE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(encoding="utf-8"), re.S)[1]


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """The new method, known as long as the tests of this file run."""
    methods.names()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "_registry", dict(methods._registry))
        path = tmp_path_factory.mktemp("outside") / "shrink.py"
        path.write_text(OUTSIDE)
        spec = importlib.util.spec_from_file_location("shrink", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        yield methods.get("shrink")


@pytest.fixture(scope="module")
def compared(done, registered):
    """A comparison of the new method, reported beside SLUG; (run, what the trade-off plots were given)."""
    from slug.reports import plots

    run = done.another("outside")
    shutil.copytree(done.results / "clip", run.results / "clip")
    flags = [*run.a1(), *run.evaluation, "--trace", "8", "--grow", "0"]
    tiny.run("a3_unlearn_compare", *flags, "--unlearn-method", "shrink")
    run.drawn, draw = [], plots.tradeoff
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "tradeoff", lambda points, *a, **how: run.drawn.append(points) or draw(points, *a, **how))
        tiny.run("a4_report", "--result-dir", run.results)
    return run


def test_the_file_has_thirty_lines():
    assert len([line for line in OUTSIDE.splitlines() if line.strip()]) <= 30


def test_its_name_is_a_choice_of_a3(registered):
    settings = tiny.stage("a3_unlearn_compare").parse_args(["--celeb-name", "A", "--unlearn-method", "shrink"])
    assert settings.unlearn_method == ("shrink",)


def test_its_gradients_are_a_choice_of_a1(registered):
    settings = tiny.stage("a1_compute_grad").parse_args(["--celeb-name", "A", "--unlearn-method", "shrink"])
    assert settings.unlearn_method == ("shrink",)


def test_it_is_tried_over_its_grid_and_chosen(compared):
    record = json.loads((compared.results / "clip" / "open_clip-shrink-Alien.json").read_text())
    assert record["grid"] == [0.1, 0.5] and record["n_candidates"] == 6
    assert record["layer"] in ("factor 0.1", "factor 0.5") and record["step"] in (1, 2, 3)
    assert 0.04 < record["params_share"] < 0.06
    assert record["splits"]["test"]["shrink"]["forget_acc1"] < record["splits"]["test"]["original"]["forget_acc1"]


def test_it_is_in_the_table(compared):
    table = pd.read_csv(compared.results / "clip" / "report" / "table.csv")
    assert set(table["method"]) == {"original", "slug", "shrink"}
    assert (table.groupby(["name", "split", "method"]).size() == 1).all()


def test_it_is_in_the_report(compared):
    text = (compared.results / "clip" / "report" / "report.md").read_text()
    assert "## Comparison" in text and "| shrink |" in text


def test_it_is_in_the_trade_off_plots(compared):
    assert len(compared.drawn) == 2 and all(list(points)[-1] == "shrink" for points in compared.drawn)
    assert len(list((compared.results / "clip").glob("*-tradeoff-*.png"))) == 2
