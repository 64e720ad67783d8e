"""The plain way of scoring: the fast way gives the same answers."""

import pytest
import tiny
from clip_world import Both, random_edit

from slug.core.search import Schedule


@pytest.mark.parametrize("tower", ["vision", "language"])
def test_fast_and_plain_walk_ten_steps_alike(clip, tmp_path, tower):
    both = Both(clip, tmp_path)
    for layer in [n for n, e in clip.candidates().items() if e == tower][::6]:
        both.walk(layer, 10)


def test_fast_and_plain_search_alike(clip, tmp_path):
    both, chosen = Both(clip, tmp_path), list(clip.candidates())[::9]
    fast, plain = (both.search(chosen, which, schedule=Schedule(evaluations=3)) for which in (0, 1))
    assert [(c.layer, c.step) for c in fast.candidates] == [(c.layer, c.step) for c in plain.candidates]
    assert (fast.winner.layer, fast.winner.step) == (plain.winner.layer, plain.winner.step)


def test_the_plain_way_edits_a_copy_of_the_model(clip, tmp_path):
    both, layer = Both(clip, tmp_path), next(iter(clip.candidates()))
    module, before = clip.module, {n: p.clone() for n, p in clip.parameters.items()}
    with pytest.raises(KeyboardInterrupt), both.evaluations[1].carrying(random_edit(clip, layer)):
        assert clip.module is not module and not (clip.parameters[layer] == before[layer]).all()
        raise KeyboardInterrupt
    assert clip.module is module and tiny.same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)
