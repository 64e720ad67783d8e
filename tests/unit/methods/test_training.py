"""The training loop of the baselines."""

import pytest
import tiny
from plain_training import weights

from slug import methods
from slug.core import losses
from slug.core.edit import kept
from slug.errors import SlugError
from slug.methods import _training
from slug.methods._training import Pass, Schedule


def test_the_learning_rate_warms_up_and_ends_at_zero():
    schedule = Schedule(2.0, warmup=4)
    assert [_training.cosine(s, 24, schedule) for s in (0, 3, 4, 14, 24)] == pytest.approx([0.5, 2, 2, 1, 0])


def test_without_decay_the_learning_rate_is_constant():
    assert [_training.cosine(s, 24, Schedule(2.0, decay=False)) for s in (0, 12, 24)] == [2.0] * 3


def test_too_high_a_learning_rate_is_refused(small):
    before = weights(small.clip)
    with pytest.raises(SlugError, match="choose a lower --lr"), kept(small.clip, small.clip.parameters):
        list(methods.get("ft").candidates(small.clip, small.material, Schedule(1e30, epochs=4)))
    assert tiny.same_tensors(weights(small.clip), before)
    assert not any(p.requires_grad for p in small.clip.parameters.values())


def epochs_of(small, **more):
    passes = [Pass(small.material.retain, losses.contrastive, 1)]
    with kept(small.clip, small.clip.parameters):
        return list(_training.train(small.clip, passes, Schedule(1e-3, epochs=2, batch_size=4), **more)), weights(small.clip)


def test_every_optimiser_step_can_be_looked_at(small):
    assert epochs_of(small)[0] == [1, 2] and epochs_of(small, each_step=True)[0] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "total, count, wanted",
    [(100, 3, [5, 22, 100]), (4, 2, [2, 4]), (3, 9, [1, 2, 3]), (5, 4, [1, 2, 3, 5]), (7, 1, [7]), (7, 0, [])],
)
def test_candidates_among_the_steps_are_early_ones_and_the_last(total, count, wanted):
    assert _training.candidate_steps(total, count) == wanted


def test_a_candidate_is_the_model_after_its_step(small):
    """Of four steps the second and the last: the same weights as where every step is looked at."""
    passes = [Pass(small.material.retain, losses.contrastive, 1)]

    def each(schedule, **more):
        with kept(small.clip, small.clip.parameters):
            return [(n, weights(small.clip)) for n in _training.train(small.clip, passes, schedule, **more)]

    schedule = Schedule(1e-3, epochs=2, batch_size=4)
    every, some = each(schedule, each_step=True), each(schedule._replace(candidates=2))
    assert [n for n, _ in some] == [1, 2]
    assert all(tiny.same_tensors(a, b) for (_, a), (_, b) in zip(some, (every[1], every[3]), strict=True))


def test_a_training_is_repeatable(small):
    assert tiny.same_tensors(epochs_of(small)[1], epochs_of(small)[1])
