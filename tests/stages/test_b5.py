"""b5_unlearn_multi.py, against a pipeline folder that carries the deltas, judged anew."""

import copy
import dataclasses
import json
import shutil

import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny_canvas import STYLES

from slug import models
from slug.artifacts import deltas
from slug.evaluation import canvas_classifiers
from slug.evaluation.canvas_prompts import OTHER, Concept
from slug.models import diffusion

CONCEPTS = [Concept("style", "Noto"), Concept("object", "palm tree")]


@pytest.fixture(scope="module")
def out(canvas_run, tmp_path_factory):
    """Folder of a run on a style and an object, with a README to fill."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "README.md").write_text("<!-- uncanvas-multi -->\n<!-- /uncanvas-multi -->\n")
    more = ["--style", "Noto", "--object", "palm_tree", "--out", folder, "--readme", folder / "README.md"]
    canvas_run.run("b5_unlearn_multi", *canvas_run.pipeline, *canvas_run.judged, *more)
    return folder


@pytest.mark.parametrize("method", ["original", "sum"])
def test_figures_are_those_of_a_folder_that_carries_both_deltas(canvas_run, tiny_canvas, out, tmp_path, method):
    table, source = pd.read_csv(out / "multi.csv"), tiny_canvas
    if method == "sum":
        source = tmp_path
        for part in ("pipeline", "hugging_face"):
            deltas.apply(
                [canvas_run.delta(f"slug-{c}") for c in ("style-Noto", "object-palm_tree")],
                tiny_canvas / part,
                tmp_path / part,
            )
    clip = models.load(clip_model_id=str(source / "hugging_face"))
    pipe = diffusion.load(str(source / "pipeline"), clip, steps=2, guidance=2, batch_size=8)
    asked, classifiers = canvas_run.asked("test"), canvas_classifiers.load_classifiers(tiny_canvas / "classifiers")
    images = pipe.generate([r.prompt for r in asked], [r.seed for r in asked])
    right = canvas_classifiers.correct(asked, classifiers.logits(images), classifiers.labels)
    rest = torch.tensor([r.style == "Blob_Old" and r.object != "palm_tree" for r in asked])
    shares = {kind: right[kind][rest].float().mean().item() for kind in OTHER}
    for concept in CONCEPTS:
        own = torch.tensor(concept.shown_by(asked))
        row = table[(table["method"] == method) & (table["name"] == concept.name)].iloc[0]
        assert (row["n_own"], row["n_rest"]) == (int(own.sum()), 4)
        ua = 1 - right[concept.kind][own].float().mean().item()
        found = (row["UA"], row["IRA"], row["CRA"])
        assert found == pytest.approx((ua, shares[concept.kind], shares[OTHER[concept.kind]]), abs=1e-5)
        assert row["UA_low"] <= row["UA"] <= row["UA_high"]


def test_the_table_has_two_rows_for_each_concept(canvas_run, out):
    table = pd.read_csv(out / "multi.csv")
    assert set(table["count"]) == {2} and len(table) == 4 and not (canvas_run.results / "uncanvas/multi.csv").exists()


def test_changes_are_paired(out):
    table = pd.read_csv(out / "multi.csv").query("name == 'Noto'").set_index("method")
    change = table.loc["sum", "IRA"] - table.loc["original", "IRA"]
    assert table.loc["sum", "IRA_change"] == pytest.approx(change, abs=1e-5)


def test_the_readme_gets_the_report(out):
    text = (out / "multi.md").read_text()
    assert "| Noto " in text and "| palm tree " in text
    assert text in (out / "README.md").read_text() and not tiny.left_over(out)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--style", "Noto"], "give two styles or objects"),
        (["--style", "Noto", "--object", "bell"], "no record of slug for the object bell"),
        (["--style", "Noto", "--object", "palm_tree", "--method", "esd"], "no record of esd for the style Noto"),
        (["--style", *STYLES], "every prompt shows one of Noto, Blob_Old"),
    ],
    ids=["one", "no record", "no method", "nothing left"],
)
def test_concepts_that_cannot_be_forgotten_together_are_said_in_one_line(canvas_run, monkeypatch, capfd, more, said):
    given = ["b5_unlearn_multi", *canvas_run.pipeline, *canvas_run.judged, *more, *canvas_run.common]
    assert said in tiny.failure(monkeypatch, capfd, *given)


@pytest.fixture(scope="module")
def ways(canvas_run, tmp_path_factory):
    """A run of all ways and rivals, with a result folder of its own."""
    run, folder = copy.copy(canvas_run), tmp_path_factory.mktemp("ways")
    run.results = folder / "results"
    for part in ("sd", "grads"):
        shutil.copytree(canvas_run.results / part, run.results / part, symlinks=True)
    run.common = ["--result-dir", run.results, *canvas_run.common[2:]]
    ways = ["--ways", "sum", "joint", "assigned", "--rivals", "uce", "speed", "oce"]
    concepts = ["--style", "Noto", "--object", "palm_tree", "--out", folder]
    run.flags = ["b5_unlearn_multi", *run.pipeline, *run.judged, *concepts, *ways]
    run.run(*run.flags)
    return run


def chosen(run, way):
    """The record of what was chosen."""
    (path,) = (run.results / "sd/together").glob(f"pipeline-slug-{way}-*.json")
    return json.loads(path.read_text())


def test_every_way_and_rival_has_rows(ways):
    table = pd.read_csv(ways.results.parent / "multi.csv")
    known = {"original", "sum", "joint", "uce", "speed", "oce"}
    assert known <= set(table["method"]) <= known | {"assigned"}
    assert (table.groupby("method").size() == 2).all() and (table["UA_low"] <= table["UA"]).all()
    text = (ways.results.parent / "multi.md").read_text()
    assert "| together | how |" in text and "`joint`: one system" in text


@pytest.mark.parametrize("kept", [0, 1])
def test_a_part_of_a_joint_edit_reverts_alone(canvas_run, tiny_canvas, ways, tmp_path, kept):
    """Exact: the folder with both parts, after the revert of one, is that with the other one."""
    parts = [ways.results / "sd/together" / name for name in chosen(ways, "joint")["deltas"]]
    assert len(parts) == 2
    both, one = tmp_path / "both", tmp_path / "one"
    deltas.apply(parts, tiny_canvas / "pipeline", both)
    deltas.apply(parts[kept], tiny_canvas / "pipeline", one)
    deltas.revert(parts[1 - kept], both, tmp_path / "reverted")
    found, expected = (load_file(f / "text_encoder/model.safetensors") for f in (tmp_path / "reverted", one))
    assert found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in found)


def test_what_was_chosen_is_kept(ways, monkeypatch):
    from slug.evaluation.canvas_groups import GroupEvaluator

    before = (ways.results.parent / "multi.csv").read_bytes()
    monkeypatch.setattr(GroupEvaluator, "score", lambda *a, **k: pytest.fail("a choice that is kept was made again"))
    ways.run(*ways.flags)
    assert (ways.results.parent / "multi.csv").read_bytes() == before


def test_a_choice_by_other_edits_is_made_again(ways, tmp_path):
    path = next((ways.results / "sd/together").glob("pipeline-slug-uce-*.json"))
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"seed": 5, "setting": "stale"}))
    ways.run(*ways.flags)
    again = json.loads(path.read_text())
    assert {**again, "tried": 0} == {**found, "tried": 0} and len(again["tried"]) == len(found["tried"])


def test_a_forget_set_that_has_changed_is_refused(ways, monkeypatch, capfd):
    for path in (ways.results / "sd/together").glob("*joint*.json"):
        path.unlink()
    record = ways.results / "sd/pipeline-slug-style-Noto.json"
    before = record.read_text()
    record.write_text(json.dumps(json.loads(before) | {"retain_hash": "other"}))
    try:
        assert "retain set of Noto has changed" in tiny.failure(monkeypatch, capfd, *ways.flags, *ways.common)
    finally:
        record.write_text(before)


def test_a_way_that_keeps_no_edit_changes_nothing_and_says_so(ways, monkeypatch, tmp_path):
    """Now, and when its record is read again."""
    from slug.evaluation.canvas_groups import GroupEvaluator

    shutil.rmtree(ways.results / "sd/together")
    score = GroupEvaluator.score
    monkeypatch.setattr(GroupEvaluator, "score", lambda *a, **k: dataclasses.replace(score(*a, **k), preference=None))
    flags = [*ways.flags[: ways.flags.index("--ways")], "--ways", "joint", "--rivals", "uce", "--out", tmp_path]
    said = []
    for _ in range(2):
        ways.run(*flags)
        table, text = pd.read_csv(tmp_path / "multi.csv"), (tmp_path / "multi.md").read_text()
        said.append((table.drop(columns="caveat").to_csv(), text))
        monkeypatch.setattr(GroupEvaluator, "score", lambda *a, **k: pytest.fail("a choice that is kept was made again"))
    assert said[0] == said[1] and not text.startswith("The edits of `slug`, added up")
    before, *others = (table[table["method"] == m].set_index("name") for m in ("original", "joint", "uce"))
    assert before["caveat"].isna().all()
    for rows, line in zip(
        others, ("slug, Noto: joint: nothing was forgotten", "uce, Noto: nothing was forgotten"), strict=True
    ):
        assert (rows["UA"] == before["UA"]).all() and rows["caveat"].str.contains("no edit kept enough").all()
        assert f"(!) {line}" in text or f"; {line.partition(': ')[2]}" in text


@pytest.mark.parametrize("way", ["joint", "assigned"])
def test_ways_that_need_a_search_are_refused_for_other_methods(canvas_run, monkeypatch, capfd, way):
    more = ["--style", "Noto", "--object", "palm_tree", "--method", "uce", "--ways", way]
    given = ["b5_unlearn_multi", *canvas_run.pipeline, *canvas_run.judged, *more, *canvas_run.common]
    assert f"--ways {way} needs the single steps" in tiny.failure(monkeypatch, capfd, *given)
