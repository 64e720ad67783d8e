"""The evaluator of assistants, on one that answers as a function of the question says."""

import contextlib
import dataclasses
import math

import pytest
import torch

from slug.core.edit import Edit
from slug.errors import SlugError
from slug.evaluation import assistant
from slug.evaluation.assistant import AssistantEvaluator
from slug.evaluation.questions import Question

COUNT = 400  # questions of each part


class Scripted:
    """An assistant whose answer to a question is `says(question)`; `asked` counts the questions."""

    def __init__(self, says):
        self.says, self.asked, self.parameters = says, 0, {}

    def changing(self, names):
        return contextlib.nullcontext()

    def ask(self, found, desc=None):
        self.asked += len(found)
        said = [self.says(q) for q in found]
        return said, torch.tensor([1.0 if s == q.answer else -1.0 for q, s in zip(found, said, strict=True)])


def evaluator(says, **rule):
    rows = [("Frog", "frog", "identity"), ("Owl", "owl", "identity"), ("apple", "apple", "object"), ("", "red", "")]
    found = [
        Question("x", "?", answer, "who" if name else "colour", name, f"{name}{i}", "validation", kind=kind)
        for i in range(COUNT)
        for name, answer, kind in rows
    ]
    return AssistantEvaluator(Scripted(says), found, "Frog", **rule)


def knows_all(question):
    return question.answer


def forgets_names(question):
    """Says owl for every name: forgets frog and apple."""
    return "owl" if question.name else question.answer


def rival(found, retained):
    """A candidate that forgets, with this retained accuracy."""
    return dataclasses.replace(found.start, forgotten=True, retained=retained)


def test_retained_tasks_are_not_asked_where_the_name_is_known():
    found = evaluator(knows_all)
    candidate = found.score(Edit(layer="l", step=1.0))
    assert candidate.scores["forget_acc"] == 1
    assert math.isnan(candidate.retained)
    assert found.vlm.asked == COUNT


def test_a_candidate_that_forgets_is_scored_on_every_retained_task():
    candidate = evaluator(forgets_names).score(Edit(layer="l", step=1.0))
    accuracies = [candidate.scores[f"{p}_acc"] for p in ("forget", "identities", "objects", "utility")]
    assert accuracies == [0, 1, 0, 1]
    assert candidate.retained == pytest.approx(2 / 3)


def test_a_candidate_that_cannot_win_is_given_up():
    found = evaluator(lambda q: "owl" if q.name else "blue")
    candidate = found.score(Edit(layer="l", step=1.0), rival(evaluator(knows_all), 0.9))
    assert math.isnan(candidate.retained)
    assert found.vlm.asked < 4 * COUNT


def test_log_all_scores_everything():
    found = evaluator(lambda q: "owl" if q.name else "blue")
    candidate = found.score(Edit(layer="l", step=1.0), rival(evaluator(knows_all), 0.9), log_all=True)
    assert candidate.retained == pytest.approx(1 / 3)


def test_questions_that_the_unedited_model_answers_worst_come_first():
    """A candidate that cannot win is then given up after one chunk of each task."""
    brittle = {f"apple{i}" for i in range(COUNT - 10, COUNT)}
    found = evaluator(lambda q: "nothing" if q.group in brittle or q.name == "Frog" else q.answer)
    best = rival(evaluator(knows_all), 1.0)
    assert math.isnan(found.score(Edit(), best).retained)
    assert found.vlm.asked == 4 * COUNT  # only the last few objects decide
    assert found.start.retained == pytest.approx((1 + (COUNT - 10) / COUNT + 1) / 3)
    found.vlm.asked = 0
    assert math.isnan(found.score(Edit(), best).retained)
    assert found.vlm.asked == COUNT + 3 * assistant.CHUNK
    assert {q.group for q in found.asked["objects"][:10]} == brittle


@pytest.mark.parametrize(
    ("accuracy", "margin", "forgotten"), [(0.0, -1.0, True), (0.0, -0.2, False), (0.1, -1.0, False), (0.05, -1.0, True)]
)
def test_forgetting_takes_an_accuracy_and_margins(accuracy, margin, forgotten):
    found = evaluator(knows_all, wanted=0.05, sigmas=3.0)
    candidate = found.candidate(Edit(), {"forget_acc": accuracy, "margin": margin, "margin_sd": 0.1})
    assert candidate.forgotten is forgotten
    assert candidate.progress == (1 if forgotten else pytest.approx(0.99 * (1 - accuracy)))


def both_kinds(says, seen=(True, True, False)):
    """An evaluator with Frog's pictures, of which some are of source images that training contained."""
    found = [Question("x", "?", "frog", "who", "Frog", f"f{i}", "validation", s) for i, s in enumerate(seen)]
    return AssistantEvaluator(Scripted(says), [*found, Question("x", "?", "owl", "who", "Owl", "o", "validation")], "Frog")


@pytest.mark.parametrize(
    ("left", "seen", "unseen", "forgotten"), [("f2", 0, 1, False), ("f0", 0.5, 0, False), ("", 0, 0, True)]
)
def test_a_name_that_unseen_images_still_get_is_not_forgotten(left, seen, unseen, forgotten):
    candidate = both_kinds(lambda q: "newt" if q.name == "Frog" and q.group != left else q.answer).score(Edit())
    assert (candidate.scores["forget_seen_acc"], candidate.scores["forget_unseen_acc"]) == (seen, unseen)
    assert candidate.forgotten is forgotten and candidate.scores["forget_acc"] == pytest.approx((2 * seen + unseen) / 3)


@pytest.mark.parametrize(
    ("seen", "rows"), [((True, True, False), [0, 1]), ((False,) * 3, [0, 1, 2]), ((True,) * 3, [0, 1, 2])]
)
def test_margins_are_those_of_seen_images_where_there_are_any(seen, rows):
    found = both_kinds(lambda q: "newt", seen)
    margins = torch.tensor([-1.0, -3.0, -50.0])
    found._ask = lambda asked: (torch.zeros(len(asked), dtype=torch.bool), margins[: len(asked)])
    scores = found.score(Edit()).scores
    assert scores["margin"] == pytest.approx(margins[rows].mean().item())
    assert scores["margin_sd"] == pytest.approx(margins[rows].std().item())


def test_counts_tell_seen_from_unseen_images():
    counts = both_kinds(knows_all).counts
    assert (counts["n_forget"], counts["n_forget_seen"], counts["n_forget_unseen"], counts["n_identities"]) == (3, 2, 1, 1)


def test_columns_of_a_candidate_are_those_of_the_table():
    row = evaluator(knows_all).score(Edit(layer="l", step=2.0)).row()
    wanted = "layer step forget_acc identities_acc objects_acc utility_acc forget_seen_acc forget_unseen_acc"
    assert list(row) == f"{wanted} margin margin_sd wanted sigmas seconds".split()
    assert (row["layer"], row["step"], row["wanted"], row["sigmas"]) == ("l", 2.0, 0.0, assistant.SIGMAS)


def test_questions_of_the_other_split_are_not_asked():
    found = [Question("x", "?", n, "who", n, n, split) for n in ("frog", "owl") for split in ("validation", "test")]
    made = AssistantEvaluator(Scripted(knows_all), found, "frog", split="test")
    assert {q.split for part in made.asked.values() for q in part} == {"test"}


@pytest.mark.parametrize("name", ["Dragon", "Owl"])
def test_a_split_that_asks_for_the_name_alone_or_not_at_all_is_refused(name):
    with pytest.raises(SlugError, match=f"validation split has no question about {name}"):
        AssistantEvaluator(Scripted(knows_all), evaluator(knows_all).asked["identities"], name)
