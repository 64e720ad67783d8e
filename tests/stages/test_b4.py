"""b4_optimised_tokens.py."""

import copy
import json
import shutil

import pandas as pd
import pytest
import tiny
import tiny_canvas

WORDS = "name,alias,language\nbell,chime,en\nbell,Glocke,de\nkey,Schlüssel,de\n"


def given(run, *more):
    """The stage and its flags."""
    steps = ["--training-steps", 2, "--retain-steps", 1, "--back-seeds", 1]
    return ["b4_optimised_tokens", *run.pipeline, *run.judged, "--style", "Noto", *steps, *more]


@pytest.fixture
def own(canvas_run, tmp_path):
    """The finished run with a result folder of its own, which keeps what the stage counts."""
    run = copy.copy(canvas_run)
    run.results = tmp_path / "results"
    shutil.copytree(canvas_run.results / "sd", run.results / "sd")
    run.common = ["--result-dir", run.results, *canvas_run.common[2:]]
    return run


@pytest.fixture(scope="module")
def finished(canvas_run, tmp_path_factory):
    """A run with tables of all attempts on a style and an object."""
    run, folder = copy.copy(canvas_run), tmp_path_factory.mktemp("back")
    run.results = folder / "results"
    shutil.copytree(canvas_run.results / "sd", run.results / "sd")
    run.common = ["--result-dir", run.results, *canvas_run.common[2:]]
    (folder / "words.csv").write_text(WORDS.replace("bell", "palm tree"))
    run.flags = given(run, "--object", "palm_tree", "--words", folder / "words.csv", "--out", folder / "out")
    run.run(*run.flags)
    return run


def test_tokens_are_learned_for_the_original_and_for_every_edit(own, canvas_run, tmp_path):
    own.run(*given(own, "--out", tmp_path, "--back-seeds", 0))
    assert not (tmp_path / "back.csv").exists()
    table = pd.read_csv(tmp_path / "tokens.csv")
    assert set(table["method"]) == {"original", "slug", "uce"} and set(table["n"]) == {6}
    figures = pd.read_csv(canvas_run.results / "uncanvas/table.csv").query("name == 'Noto'").set_index("method")
    for row in table.to_dict("records"):
        assert row["by_name"] / row["n"] == pytest.approx(1 - figures.loc[row["method"], "UA"], abs=1e-5)


def test_pictures_that_are_nan_are_counted_and_not_scored(own, tmp_path, monkeypatch, capsys):
    seeds = [r.seed for r in own.asked("test") if r.style == "Noto"]
    tiny_canvas.break_pictures(monkeypatch, seeds[0])
    own.run(*given(own, "--out", tmp_path, "--back-seeds", 0))
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


def test_every_attempt_is_made_on_every_edit_and_the_original_stands_beside(finished):
    table = pd.read_csv(finished.results.parent / "out/back.csv").fillna({"form": ""})
    words = {"its name", "wording", "synonym", "language", "training on retained pictures", "optimised token"}
    weights = {"negative of the low-rank part", "merging"}
    for (method, kind), part in table.groupby(["method", "kind"]):
        expected = words | (weights if method != "original" else set())
        assert set(part["attack"]) == expected - (set() if kind == "object" else {"synonym", "language"}), (method, kind)
    assert (table["shown"] <= table["n"]).all() and set(table.query("kind == 'style'")["n"]) == {3, 6}
    text = (finished.results.parent / "out/back.md").read_text()
    assert "| merging 10% of the original |" in text and "No synonym is known of: Noto." in text


def test_what_was_counted_is_kept_for_each_concept_and_attempt(finished, monkeypatch):
    before = (finished.results.parent / "out/back.csv").read_bytes()
    path = finished.results / "uncanvas/back/pipeline-slug-object-palm_tree-training.json"
    for known in (path, path.with_name(path.name.replace("training", "token"))):
        found = json.loads(known.read_text())
        known.write_text(json.dumps(found | {"edit": "another"}))
    drawn = []
    from slug.models.diffusion import Diffusion

    generate = Diffusion.generate
    monkeypatch.setattr(
        Diffusion, "generate", lambda self, prompts, *a, **k: drawn.append(1) or generate(self, prompts, *a, **k)
    )
    finished.run(*finished.flags)
    assert len(drawn) == 3  # by the name and by the token; after the training
    assert (finished.results.parent / "out/back.csv").read_bytes() == before


def test_a_part_writes_no_table(own, tmp_path):
    own.run(*given(own, "--part", 1, 2, "--back-seeds", 0, "--out", tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*")) and len(list((own.results / "uncanvas/back").glob("*-token.json"))) == 3
