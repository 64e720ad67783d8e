"""b4_optimised_tokens.py."""

import pandas as pd
import pytest
import tiny
import tiny_canvas


def given(run, *more):
    """The stage and its flags."""
    return ["b4_optimised_tokens", *run.pipeline, *run.judged, "--style", "Noto", "--training-steps", 2, *more]


def test_tokens_are_learned_for_the_original_and_for_every_edit(canvas_run, tmp_path):
    canvas_run.run(*given(canvas_run, "--out", tmp_path))
    table = pd.read_csv(tmp_path / "tokens.csv")
    assert set(table["method"]) == {"original", "slug", "uce"} and set(table["n"]) == {6}
    figures = pd.read_csv(canvas_run.results / "uncanvas/table.csv").query("name == 'Noto'").set_index("method")
    for row in table.to_dict("records"):
        assert row["by_name"] / row["n"] == pytest.approx(1 - figures.loc[row["method"], "UA"], abs=1e-5)


def test_pictures_that_are_nan_are_counted_and_not_scored(canvas_run, tmp_path, monkeypatch, capsys):
    seeds = [r.seed for r in canvas_run.asked("test") if r.style == "Noto"]
    tiny_canvas.break_pictures(monkeypatch, seeds[0])
    canvas_run.run(*given(canvas_run, "--out", tmp_path))
    table, n = pd.read_csv(tmp_path / "tokens.csv"), seeds.count(seeds[0])
    assert set(table["n"]) == {len(seeds) - n} and set(table["n_black"]) == {n}
    assert f"Noto, original, for its name: left out {n} of {len(seeds)} pictures" in capsys.readouterr().out
    assert "black all over" in (tmp_path / "tokens.md").read_text()


def test_a_concept_without_a_record_is_named(canvas_run, monkeypatch, capfd):
    line = tiny.failure(monkeypatch, capfd, *given(canvas_run, "--object", "bell"), *canvas_run.common)
    assert "no record of bell in" in line


def test_records_of_other_prompts_are_not_taken(canvas_run, tmp_path, monkeypatch, capfd):
    (tmp_path / "other.csv").write_text(canvas_run.prompts.read_text().replace(",1000", ",2000"))
    line = tiny.failure(monkeypatch, capfd, *given(canvas_run, "--prompts", tmp_path / "other.csv"), *canvas_run.common)
    assert "no record of pipeline with these prompts" in line
