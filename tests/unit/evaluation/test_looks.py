"""What a reader can look at of an edit: pictures with answers, and how every other name fares."""

import pytest

from slug.evaluation import looks, zeroshot


def test_pictures_are_those_that_the_unedited_model_recognises_with_its_first_answers(open_clip_world):
    evaluator = open_clip_world.evaluator()
    found = looks.answers(evaluator, seed=0, count=2)
    names = evaluator.evaluation.tasks["identities"].pictures.names
    assert len(found.images) == len(found.truth) == len(found.own) == len(found.said) and any(found.own)
    for name, own, said in zip(found.truth, found.own, found.said, strict=True):
        assert said[0][0] == name and own == (name == names[evaluator.target.label])
        shares = [share for _, share in said]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1 + 1e-5 and len(shares) <= 5


def test_other_names_are_counted_as_their_task_counts_them(open_clip_world):
    evaluator = open_clip_world.evaluator()
    found, ranks = looks.by_name(evaluator), evaluator.ranks()
    for task, rows in evaluator.retain_rows.items():
        own = [counts for (of, _), counts in found.items() if of == task]
        assert sum(total for _, total in own) == len(rows)
        assert sum(correct for correct, _ in own) / len(rows) == pytest.approx(zeroshot.accuracies(ranks[task])[0])


def test_only_names_that_changed_are_kept():
    before, after = {("t", "a"): (5, 9), ("t", "b"): (3, 9)}, {("t", "a"): (5, 9), ("t", "b"): (1, 9)}
    assert looks.changed(before, after) == [{"task": "t", "name": "b", "pictures": 9, "before": 3, "after": 1}]
