"""Membership inference."""

import math

import numpy as np
import pytest

from slug.core.edit import Edit
from slug.evaluation import membership


@pytest.mark.parametrize("others", [80, 300])
def test_alike_sets_are_told_apart_by_chance(others):
    rng = np.random.default_rng(0)
    mean, deviation = membership.accuracy(rng.normal(0.2, 0.01, 80), rng.normal(0.2, 0.01, others))
    assert 42 < mean < 58 and 0 < deviation < 20


@pytest.mark.parametrize("others", [80, 300])
def test_sets_far_apart_are_told_apart_with_certainty(others):
    rng = np.random.default_rng(0)
    mean, deviation = membership.accuracy(rng.normal(0.3, 0.01, 80), rng.normal(0.2, 0.01, others))
    assert mean > 99 and deviation < 3


def test_a_single_member_is_not_enough():
    assert all(map(math.isnan, membership.accuracy([0.1], np.linspace(0, 1, 80))))


def test_the_accuracy_is_in_percent_once():
    assert membership.accuracy(np.linspace(0.5, 1, 40), np.linspace(-1, 0, 40)) == (100, 0)


def test_the_accuracy_is_seeded():
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.21, 0.01, 60), rng.normal(0.2, 0.01, 60)
    found = [membership.accuracy(members, others, seed=s) for s in (1, 1, 0)]
    assert found[0] == found[1] != found[2]


def test_pictures_of_the_test_split_have_no_say_on_the_validation_split(open_clip_world):
    world, found = open_clip_world, []
    for sets in (world.sets, world.with_noise("test"), world.with_noise("validation")):
        evaluator = world.evaluator(evaluation=world.evaluation_now(sets))
        found.append(membership.of_edit(evaluator))
    assert found[0] == found[1] != found[2]


def test_membership_is_inferred_under_the_edit(open_clip_world):
    world, evaluator = open_clip_world, open_clip_world.evaluator()
    before = membership.of_edit(evaluator)
    with world.evaluation.carrying(world.edit("visual.proj", 3.0)):
        after = membership.of_edit(evaluator)
    with world.evaluation.carrying(Edit()):
        same = membership.of_edit(evaluator)
    assert set(before) == {"mia_mean", "mia_std", "mia_others_mean", "mia_others_std"}
    assert before == same != after
