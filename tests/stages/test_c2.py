"""c2_eval_vlm: tables, transcripts and curves say what the edited model answers."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
import tiny_llava as assistants

from slug import files
from slug.artifacts import deltas
from slug.core.edit import Edit
from slug.evaluation import questions

DELTA = "results/vlm/llava-Frog.delta.safetensors"


@pytest.fixture(scope="module")
def transcript(assistant_run):
    """The lines of Frog's transcript."""
    text = (assistant_run / "results/vlm/llava-Frog.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def tables(assistant_run):
    """{name: DataFrame} of the tables."""
    return {name: pd.read_csv(assistant_run / "results/vlm" / f"{name}.csv") for name in ("table", "curve")}


def answers(model, edit, asked):
    with edit.applied(model):
        return model.answer(asked)


def test_the_transcript_holds_the_edited_models_answers(assistant_run, tiny_llava, transcript):
    asked = [q for q in questions.read(tiny_llava / "questions.jsonl") if q.split == "test"]
    asked += questions.read(assistant_run / "MME")
    said = answers(tiny.load_llava(tiny_llava), Edit(deltas.read(assistant_run / DELTA)[0]), asked)
    wanted = {(q.image.rsplit("/", 1)[-1], q.text): s for q, s in zip(asked, said, strict=True)}
    assert {(line["image"], line["text"]): line["after"] for line in transcript} == wanted


def test_the_table_has_a_row_before_and_a_row_after(tables):
    assert list(tables["table"]["method"]) == ["original", "slug"]
    assert set(tables["table"]["name"]) == {"Frog"}


def test_forget_accuracy_is_that_of_the_transcript(tables, transcript):
    right = [line["right_after"] for line in transcript if line["part"] == "forget"]
    row = tables["table"].iloc[1]
    assert (row["n_forget"], row["forget_acc"]) == (len(right), pytest.approx(np.mean(right)))


def test_a_change_is_the_mean_change_of_the_transcript(tables, transcript):
    lines = [line for line in transcript if line["part"] == "utility"]
    row = tables["table"].iloc[1]
    assert row["n_utility"] == len(lines)
    wanted = np.mean([line["right_after"] - line["right_before"] for line in lines])
    assert row["utility_change"] == pytest.approx(wanted, abs=1e-6)


def test_public_sets_are_asked_too(assistant_run, transcript):
    assert {line["task"] for line in transcript if line["part"] == "utility"} == {"colour", "color"}
    assert "kind of question" in (assistant_run / "results/vlm/report.md").read_text()


def test_a_sheet_shows_images_with_answers(assistant_run):
    assert (assistant_run / "results/vlm/sheet-llava-Frog.png").is_file()


@pytest.mark.parametrize(("factor", "method"), [(0, "original"), (1, "slug")])
def test_the_curve_agrees_with_the_table(tables, factor, method):
    row = tables["curve"][tables["curve"]["factor"] == factor].iloc[0]
    kept = tables["table"][tables["table"]["method"] == method].iloc[0]
    for column in ("forget_acc", "identities_acc", "utility_acc", "n_utility"):
        assert row[column] == pytest.approx(kept[column], nan_ok=True)


@pytest.mark.parametrize("factor", [0.5, 8])
def test_the_curve_is_of_multiples_of_the_step(assistant_run, tiny_llava, tables, factor):
    curve = tables["curve"].set_index("factor")
    asked = [q for q in questions.read(tiny_llava / "questions.jsonl") if q.split == "test"]
    own, marker = [q for q in asked if q.name == "Frog"], questions.Marker(asked)
    edit = Edit({n: factor * t for n, t in deltas.read(assistant_run / DELTA)[0].items()})
    said = answers(tiny.load_llava(tiny_llava), edit, own)
    right = [marker.right(q, s) for q, s in zip(own, said, strict=True)]
    assert curve.loc[factor, "forget_acc"] == pytest.approx(np.mean(right))
    assert curve.loc[factor, "step"] == pytest.approx(factor * curve.loc[1, "step"], rel=1e-5)


def test_the_curve_begins_at_no_change(tables):
    curve = tables["curve"]
    assert list(curve["factor"]) == [0, 0.5, 1, 8]
    assert (curve.loc[0, [c for c in curve if "_change" in c]] == 0).all()


def test_the_readme_quotes_the_report_with_links_from_its_own_place(assistant_run):
    text, link = (assistant_run / "results/vlm/report.md").read_text(), "published/vlm/llava-curve.png"
    assert "](llava-curve.png)" in text
    quoted = (assistant_run / "README.md").read_text().split("<!-- vlm -->")[1].split("<!-- /vlm -->")[0]
    assert quoted.strip() == text.replace("](llava-curve.png)", f"]({link})").strip()
    assert (assistant_run / link).is_file()


@pytest.mark.parametrize(
    "name", ["table.csv", "report.md", "curve.csv", "llava-curve.png", "llava-Frog.jsonl", "sheet-llava-Frog.png"]
)
def test_everything_written_is_copied(assistant_run, name):
    source, copied = assistant_run / "results/vlm" / name, assistant_run / "published/vlm" / name
    assert copied.is_file()
    assert name.endswith(".png") or copied.read_bytes() == source.read_bytes()  # a copied plot has fewer colours


def test_records_of_other_questions_are_refused(assistant_run, tiny_llava, tmp_path, monkeypatch, capfd):
    (tmp_path / "pictures").symlink_to(tiny_llava / "pictures")
    lines = (tiny_llava / "questions.jsonl").read_text().splitlines()
    (tmp_path / "questions.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    given = [*assistants.model_flags(tiny_llava, assistant_run), "--questions", tmp_path / "questions.jsonl"]
    assert "records of Frog are of other weights or questions" in tiny.failure(monkeypatch, capfd, "c2_eval_vlm", *given)


def test_without_records_the_stage_that_makes_them_is_named(tiny_llava, tmp_path, monkeypatch, capfd):
    given = assistants.model_flags(tiny_llava, tmp_path)
    assert "c1_unlearn_vlm.py" in tiny.failure(monkeypatch, capfd, "c2_eval_vlm", *given)


def test_multiples_of_a_step_are_positive(monkeypatch, capfd):
    assert "argument --factors: 0: it must be a number above 0" in tiny.failure(
        monkeypatch, capfd, "c2_eval_vlm", "--factors", 0.5, 0
    )


def test_the_published_scoring_stands_beside_ours(tables, transcript, assistant_run):
    row = tables["table"].iloc[1]
    right = [line["published_after"] for line in transcript if line["part"] == "forget"]
    assert row["forget_published_acc"] == pytest.approx(np.mean(right))
    assert "Scored as published" in (assistant_run / "results/vlm/report.md").read_text()


def test_short_answers_are_the_beginnings_of_answers(tiny_llava):
    """As if no more than 16 tokens had been asked for."""
    model, asked = tiny.load_llava(tiny_llava), questions.read(tiny_llava / "questions.jsonl")[:4]
    said, short = model.answers(asked)
    assert said == model.answer(asked) and any(a != b for a, b in zip(said, short, strict=True))
    model.max_new_tokens = 16
    assert short == model.answer(asked)


def test_own_questions_of_a_folder_are_asked(assistant_run, tiny_llava, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/1.jpg").write_bytes(tiny.jpeg(0, size=64))
    (tmp_path / "own/asked.csv").write_text("image,question,answer\n1.jpg,What is it?,Frog\n1.jpg,Is it red?,yes\n")
    given = ["--rows", tmp_path / "own", "--out", tmp_path / "out"]
    shutil.copytree(assistant_run / "results", tmp_path / "results")
    tiny.run("c2_eval_vlm", *assistants.model_flags(tiny_llava, tmp_path), *given)
    rows = pd.read_csv(tmp_path / "out/rows.csv")
    assert list(rows["part"]) == ["the name", "others"] and list(rows["n"]) == [1, 1]
    assert "own questions" in (tmp_path / "out/report.md").read_text()


def test_probes_of_a_users_own_file_have_a_table_and_change_no_other(assistant_run, tiny_llava, tmp_path):
    lines = (tiny_llava / "questions.jsonl").read_text()
    about = {"image": "pictures/4.png", "text": "is this a frog?", "answer": "yes", "name": "Frog", "group": "Frog/4"}
    probes = [about | {"task": "probe_yes_no"}, about | {"task": "probe_group_yes_no", "asks": "owl"}]
    probes.append({"image": "", "text": "who croaks?", "answer": "frog", "task": "probe_text_only", "asks": "frog"})
    (tmp_path / "pictures").symlink_to(tiny_llava / "pictures")
    (tmp_path / "questions.jsonl").write_text(lines + "".join(json.dumps(p) + "\n" for p in probes))
    shutil.copytree(assistant_run / "results", tmp_path / "results")
    record = tmp_path / "results/vlm/llava-Frog.json"
    digest = questions.digest(tmp_path / "questions.jsonl")
    files.write_json(record, files.read_json(record) | {"questions_hash": digest})
    given = [*assistants.model_flags(tiny_llava, tmp_path), "--questions", tmp_path / "questions.jsonl"]
    tiny.run("c2_eval_vlm", *given, "--utility", assistant_run / "MME", "--factors", 0.5, 8)
    rows = pd.read_csv(tmp_path / "results/vlm/probes.csv")
    assert [*zip(rows["probe"], rows["whom"], strict=True)] == [
        ("probe_yes_no", "name"), ("probe_group_yes_no", "beside"), ("probe_text_only", "name")
    ]  # fmt: skip
    last = rows.iloc[2]
    assert (last["before"], last["change"]) == (last["after"], 0)
    assert "by construction" in (tmp_path / "results/vlm/report.md").read_text()
    before, after = (pd.read_csv(work / "results/vlm/table.csv") for work in (assistant_run, tmp_path))
    pd.testing.assert_frame_equal(before, after)
    assert (tmp_path / "results/vlm/curve.csv").read_bytes() == (assistant_run / "results/vlm/curve.csv").read_bytes()
