"""Scores of an edit on one split of a CLIP's tasks."""

import math

import pytest
import torch
from clip_world import Both, tiny_approx, without_time

from slug.core.edit import Edit
from slug.core.search import Schedule
from slug.errors import SlugError
from slug.evaluation import clip_evaluator, zeroshot
from slug.evaluation.clip_tasks import Evaluation


@pytest.fixture(params=["visual.proj", "text_projection"])
def edited(request, open_clip_world, monkeypatch):
    """(evaluator, edit, its accuracy on each task) of an edit that harms; retained tasks are scored 8 pictures at a time."""
    monkeypatch.setattr(clip_evaluator, "CHUNK", 8)
    evaluator, edit = open_clip_world.evaluator(), open_clip_world.edit(request.param, 3.0)
    with open_clip_world.evaluation.carrying(edit):
        accuracies = {t: zeroshot.accuracies(r)[0] for t, r in evaluator.ranks().items() if t != "forget"}
    assert 0.1 < sum(accuracies.values()) / 2 < 0.99
    return evaluator, edit, accuracies


def test_what_can_still_win_is_scored_in_full(edited):
    evaluator, edit, accuracies = edited
    with evaluator.evaluation.carrying(edit):
        for beat in (-math.inf, 0.0, sum(accuracies.values()) / 2):  # a tie is no loss
            found = evaluator.retained(beat)
            assert {t: found[f"{t}_acc1"] for t in accuracies} == pytest.approx(accuracies)


def test_what_cannot_win_any_more_is_given_up(edited):
    evaluator, edit, accuracies = edited
    with evaluator.evaluation.carrying(edit):
        assert evaluator.retained(sum(accuracies.values()) / 2 + 3e-6) == {}


def test_a_candidate_has_every_column_in_order(open_clip_world):
    evaluator = open_clip_world.evaluator(trace=4)
    for candidate in (evaluator.start, evaluator.score(open_clip_world.edit("visual.proj", 0.001))):
        assert list(candidate.scores) == evaluator.columns
    assert list(evaluator.start.row())[:3] == ["layer", "step", "forget_acc1"]


def test_retained_tasks_are_not_scored_where_the_name_is_not_forgotten(open_clip_world):
    found = open_clip_world.evaluator(trace=4).score(open_clip_world.edit("visual.proj", 1e-6))
    assert not found.forgotten and math.isnan(found.scores["identities_acc1"]) and math.isnan(found.retained)
    assert found.scores["identities_trace"] > 0.5  # what plots need is


def test_log_all_scores_everything(open_clip_world):
    found = open_clip_world.evaluator().score(open_clip_world.edit("visual.proj", 1e-6), log_all=True)
    assert not math.isnan(found.scores["identities_acc1"] + found.scores["objects_acc5"] + found.scores["mia_mean"])


def test_a_candidate_is_made_again_from_its_row(open_clip_world):
    evaluator = open_clip_world.evaluator()
    wanted = evaluator.start
    row = wanted.row()
    scores = {k: v for k, v in row.items() if k not in ("layer", "step")}
    again = evaluator.candidate(Edit({}, row["layer"], row["step"]), scores)
    assert (again.preference, again.forgotten) == (wanted.preference, wanted.forgotten)
    assert again.scores == tiny_approx(wanted.scores, 0)


def test_the_forgotten_pictures_leave_the_retained_tasks(open_clip_world):
    world, evaluator = open_clip_world, open_clip_world.evaluator()
    labels = world.sets[0].pictures.labels
    assert set(labels[evaluator.forget_rows].tolist()) == {world.target.label}
    assert world.target.label not in labels[evaluator.retain_rows["identities"]].tolist()
    assert len(evaluator.forget_rows) + len(evaluator.retain_rows["identities"]) == int(world.masks["identities"].sum())
    assert len(evaluator.retain_rows["objects"]) == int(world.masks["objects"].sum())


def test_the_forgotten_name_stays_among_the_classes(open_clip_world):
    """Pictures of another identity are taken for the name if its classifier is theirs."""
    world, evaluator = open_clip_world, open_clip_world.evaluator()
    labels, rows = world.sets[0].pictures.labels, evaluator.retain_rows["identities"]
    task, other = world.evaluation.tasks["identities"], (world.target.label + 1) % 4
    before = task.weights.clone()
    try:
        task.weights[world.target.label] = before[other]
        rank = world.evaluation.ranks("identities", rows)
    finally:
        task.weights.copy_(before)
    mine = labels[rows] == other
    assert (rank[mine] >= 1).all() and (rank[~mine] < 1).any()


def test_retained_pictures_are_limited_within_the_split(open_clip_world):
    evaluator, again = (open_clip_world.evaluator(limit=5) for _ in range(2))
    for task, rows in evaluator.retain_rows.items():
        assert len(rows) == 5 and open_clip_world.masks[task][rows].all()
        assert torch.equal(rows, again.retain_rows[task])
    assert len(evaluator.forget_rows) > 5


def test_a_split_without_the_name_is_refused(open_clip_world):
    none = {task: torch.zeros_like(mask) for task, mask in open_clip_world.masks.items()}
    with pytest.raises(SlugError, match="one split has no picture of alien"):
        open_clip_world.evaluator(none)


def rows_of(found):
    """All candidates of a search without their seconds, as text: NaN is where nothing was scored."""
    return repr([without_time(c.row()) for c in found.candidates])


def test_pictures_of_the_test_split_have_no_say_in_the_search(open_clip_world):
    world, found = open_clip_world, open_clip_world.searched()
    assert found.winner.forgotten and len({c.step for c in found.curves[found.winner.layer]}) > 1
    assert rows_of(world.searched(world.with_noise("test"))) == rows_of(found)
    assert rows_of(world.searched(world.with_noise("validation"))) != rows_of(found)


def every(clip, count):
    return list(clip.candidates())[::count]


def test_looking_ahead_changes_no_step_and_no_score(clip, tmp_path, monkeypatch):
    both, asked, ask = Both(clip, tmp_path), [], Evaluation.forget_under_steps
    monkeypatch.setattr(Evaluation, "forget_under_steps", lambda self, *a: asked.append(len(a[-1])) or ask(self, *a))
    found = []
    for lookahead in (1, 3):
        schedule = Schedule(evaluations=5, lookahead=lookahead)
        found.append(both.search(every(clip, 7), log_all=True, schedule=schedule).candidates)
        assert bool(asked) == (lookahead > 1)
    assert max(asked) > 3
    for one, ahead in zip(*found, strict=True):
        assert one.layer == ahead.layer and one.step == pytest.approx(ahead.step, abs=1e-5)
        assert without_time(one.scores) == tiny_approx(without_time(ahead.scores), 1e-5)


def test_the_winner_is_the_same_with_everything_scored(clip, tmp_path):
    both = Both(clip, tmp_path)
    quick, full = (
        both.search(every(clip, 5), log_all=log_all, schedule=Schedule(evaluations=4)).winner for log_all in (False, True)
    )
    assert (quick.layer, quick.step) == (full.layer, full.step)
    assert quick.retained == pytest.approx(full.retained) or not full.forgotten
