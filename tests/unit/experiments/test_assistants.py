"""The examination of an assistant on the test split, on one that answers as a function of the question says."""

import contextlib

import pytest
import torch

from slug import files
from slug.artifacts import records
from slug.core.edit import Edit
from slug.errors import SlugError
from slug.evaluation import statistics
from slug.evaluation.questions import Marker, Question
from slug.experiments import assistants_report as assistants
from slug.experiments.assistants_report import Exam

RECORD = {"method": "slug", "name": "Frog", "layer": "l", "step": 2.0, "seconds": 1.0, "peak_mem_mb": 1.0}
RECORD |= {"params_share": 0.1, "n_candidates": 3, "delta_bytes": 100}


class Scripted:
    """An assistant that knows every answer; with an edit it says `says(question)`."""

    label = "scripted"

    def __init__(self, says):
        self.says, self.parameters = says, {"w": torch.zeros(1)}

    def changing(self, names):
        return contextlib.nullcontext()

    def answers(self, found, desc=None):
        said = [self.says(q) if self.parameters["w"] else q.answer for q in found]
        return said, [" ".join(s.split()[:2]) for s in said]


def exam(says, rows, names=("Frog",)):
    """An Exam of questions (name, image, task)."""
    asked = [Question(image, "?", name.lower(), task, name, image) for name, image, task in rows]
    return Exam(Scripted(says), asked, Marker(asked), names, seed=0)


EDIT = Edit({"w": torch.ones(1)}, "l", 2.0)
ROWS = [("Frog", "1", "who"), ("Frog", "1", "who"), ("Frog", "2", "who"), ("Owl", "3", "who"), ("Owl", "4", "present")]


def test_answers_before_are_those_of_the_unedited_model():
    found = exam(lambda q: "newt", ROWS)
    assert list(found.before.said.values()) == ["frog", "frog", "frog", "owl", "owl"]
    assert all(found.before.right.values())


def test_an_edit_is_reverted_after_its_answers():
    found = exam(lambda q: "newt", ROWS)
    assert set(found.answers(EDIT, ["Frog"], "").said.values()) == {"newt"}
    assert not found.model.parameters["w"].any()


def test_several_wordings_of_one_image_are_one_trial():
    """Frog is named in image 1, in one of two wordings, and not in image 2."""
    first = iter([True])
    found = exam(lambda q: q.answer if q.image == "1" and next(first, False) else "newt", ROWS)
    _, row = found.table(RECORD, found.answers(EDIT, ["Frog"], ""))
    assert (row["n_forget"], row["forget_acc"]) == (3, pytest.approx(1 / 3))
    assert (row["n_pictures"], row["forget_upper"]) == (2, statistics.interval(1, 2)[1])


def test_seen_unseen_and_all_source_images_stand_side_by_side():
    """Frog is still named in its unseen images 5 and 6, of one source image, and in none of 1 and 2."""
    rows = [Question(i, "?", "frog", "who", "Frog", g, seen=s) for i, g, s in
            (("1", "a", True), ("1", "a", True), ("2", "b", True), ("5", "c", False), ("6", "c", False))]  # fmt: skip
    asked = [
        *rows,
        Question("3", "?", "owl", "who", "Owl", "3", seen=True),
        Question("4", "?", "owl", "who", "Owl", "4", seen=False),
    ]
    found = Exam(Scripted(lambda q: "newt" if q.seen else q.answer), asked, Marker(asked), ("Frog",), seed=0)
    _, row = found.table(RECORD, found.answers(EDIT, ["Frog"], ""))
    assert [row[f"forget{end}_acc"] for end in ("", "_unseen", "_all")] == [0, 1, pytest.approx(2 / 5)]
    assert [row[f"n_forget{end}"] for end in ("", "_unseen", "_all")] == [3, 2, 5]
    assert [row[f"n_pictures{end}"] for end in ("", "_unseen", "_all")] == [2, 2, 4]
    assert [row[f"n_drawings{end}"] for end in ("", "_unseen", "_all")] == [2, 1, 3]
    assert row["forget_all_upper"] == statistics.interval(2, 4)[1] and row["forget_unseen_upper"] == 1
    assert [row[f"identities{end}_change"] for end in ("", "_unseen", "_all")] == [-1, 0, -0.5]
    assert row["forget_all_published_acc"] == pytest.approx(2 / 5)


def test_a_name_without_unseen_images_has_no_bound_of_them():
    found = exam(lambda q: "newt", ROWS)
    _, row = found.table(RECORD, found.answers(EDIT, ["Frog"], ""))
    assert row["n_forget_unseen"] == 0 and "forget_unseen_upper" not in row and row["forget_all_acc"] == 0


def probing():
    """Probes of Frog's picture, of Owl's, and without a picture, beside the questions of ROWS."""
    asked = [Question(image, "?", name.lower(), task, name, image) for name, image, task in ROWS]
    about = {"image": "1", "text": "is it?", "task": "probe_yes_no", "name": "Frog", "group": "1"}
    asked += [Question(answer="yes", asks="frog", **about), Question(answer="no", asks="owl", **about)]
    asked += [Question(answer="yes", **about | {"image": "3", "name": "Owl", "group": "3"})]
    asked += [Question("", "who croaks?", "frog", "probe_text_only", asks="frog")]
    return Exam(Scripted(lambda q: "no" if q.shown else q.answer), asked, Marker(asked), ("Frog",), seed=0)


def test_probes_tell_the_name_from_what_is_beside_it_and_from_others():
    found = probing()
    rows = found.probes("Frog", found.answers(EDIT, ["Frog"], "", probes=True))
    assert [(r["probe"], r["whom"], r["before"], r["after"], r["change"], r["n"]) for r in rows] == [
        ("probe_yes_no", "name", 1, 0, -1, 1),
        ("probe_yes_no", "beside", 1, 1, 0, 1),
        ("probe_yes_no", "others", 1, 0, -1, 1),
        ("probe_text_only", "name", 1, 1, 0, 1),
    ]
    assert rows[0]["after_upper"] == statistics.interval(0, 1)[1]


def test_probes_count_for_no_accuracy_and_only_once_for_a_name(tmp_path):
    found, plain = probing(), exam(lambda q: "no", ROWS)
    state = found.answers(EDIT, ["Frog"], "", probes=True)
    assert found.figures("Frog", state) == plain.figures("Frog", plain.answers(EDIT, ["Frog"], ""))
    assert len(found.answers(EDIT, ["Frog"], "").said) == len(ROWS) and len(state.said) == len(ROWS) + 4


def test_the_table_says_what_is_answered_instead():
    found = exam(lambda q: "an owl" if q.image == "1" else "newt" if q.name == "Frog" else q.answer, ROWS)
    _, row = found.table(RECORD, found.answers(EDIT, ["Frog"], ""))
    assert row["said_instead"] == "an owl (2); newt (1)"
    assert (row["commonest_share"], row["known_share"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_retained_accuracy_is_the_naming_of_others():
    found = exam(lambda q: "newt" if q.task == "who" else q.answer, ROWS)
    before, row = found.table(RECORD, found.answers(EDIT, ["Frog"], ""))
    assert (before["retain_acc"], row["retain_acc"], row["utility_acc"], row["n_retain"]) == (1, 0, 1, 1)
    assert (row["identities_change"], row["utility_change"]) == (-1, 0)


def test_changes_of_empty_parts_are_left_out():
    found = exam(lambda q: "newt", ROWS)
    assert not [c for c in found.changes("Frog", found.before) if c.startswith("objects")]


def test_utility_is_told_by_kind_of_question():
    found = exam(lambda q: "newt", [*ROWS, ("Owl", "5", "style")])
    rows = found.kinds("Frog", found.answers(EDIT, ["Frog"], ""))
    assert [(r["kind"], r["before"], r["after"], r["n"]) for r in rows] == [("present", 1, 0, 1), ("style", 1, 0, 1)]


def test_the_curve_asks_no_state_twice(monkeypatch):
    found = exam(lambda q: "newt", ROWS)
    state, asked = found.answers(EDIT, ["Frog"], ""), []
    monkeypatch.setattr(found, "answers", lambda edit, names, desc: asked.append(edit.step) or state)
    rows = found.curve(RECORD, EDIT, state, [0.5, 1.0])
    assert asked == [1.0]
    assert [(r["factor"], r["step"], r["forget_acc"]) for r in rows] == [(0, 0, 1), (0.5, 1, 0), (1, 2, 0)]


class Hashed:
    def weights_hash(self):
        return "abc"


def test_records_of_other_weights_are_refused(tmp_path):
    (tmp_path / "q.jsonl").write_text("")
    files.write_json(tmp_path / "llava-Frog.json", RECORD | {"model": "llava", "delta": "d", "vlm_hash": "other"})
    with pytest.raises(SlugError, match="records of Frog are of other weights or questions"):
        records.read_assistants(tmp_path, "llava", assistants.sources(Hashed(), str(tmp_path / "q.jsonl")))


def test_a_folder_without_records_names_the_stage(tmp_path):
    with pytest.raises(SlugError, match=r"no record of llava.*c1_unlearn_vlm\.py"):
        records.read_assistants(tmp_path, "llava", {})


def test_answers_are_also_scored_as_published():
    """The right answer must lie in the first tokens (two words here); whole words are not asked for."""
    said = {"1": "frogs everywhere", "2": "it is surely a frog", "3": "owl", "4": "owl"}
    found = exam(lambda q: said[q.image], ROWS)
    before, row = found.table(RECORD, found.answers(EDIT, ["Frog"], ""))
    assert (row["forget_acc"], row["forget_published_acc"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (before["forget_published_acc"], row["retain_published_acc"], row["utility_published_acc"]) == (1, 1, 1)


def test_own_questions_are_scored_apart_by_both_scorings():
    found = exam(lambda q: "frogs" if q.task == "who" else "a red hat, sir", ROWS)
    own = [Question("9", "?", "frog", "who", "frog", "9"), Question("8", "?", "hat", "rows", "", "8")]
    first, second = found.own("Frog", EDIT, own)
    assert (first["part"], first["n"], first["before"], first["after"], first["after_published"]) == ("the name", 1, 1, 0, 1)
    assert (second["part"], second["before"], second["after"], second["after_published"]) == ("others", 1, 0, 0)
    assert not found.model.parameters["w"].any() and found.table(RECORD, found.before)[1]["n_forget"] == 3
