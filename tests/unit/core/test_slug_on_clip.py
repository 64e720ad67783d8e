"""The search of layers and steps on a CLIP."""

import clip_world
import pytest
import tiny

from slug.core import layers, slug
from slug.core.search import Plan, Schedule


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def world(request, taught_clip, tiny_world):
    return clip_world.World(taught_clip, tiny_world, request.param)


@pytest.fixture(scope="module")
def ranked(world):
    """All layers that may be edited, with their figures."""
    return layers.figures(world.clip, world.forget, world.retain)


ONE = Plan(schedule=Schedule(evaluations=1), fronts=99)


def test_each_group_of_tensors_is_searched_once(world, ranked):
    found = slug.over_layers(world.clip, world.evaluator(limit=5), ranked, world.forget, ONE)
    groups = [world.clip.group(name) for name in found.curves]
    assert len(set(groups)) == len(groups) and set(groups) == {world.clip.group(r.name) for r in ranked}


def test_a_group_that_lies_in_two_fronts_is_searched_once(world, ranked):
    found = slug.front_by_front(world.clip, world.evaluator(limit=5), ranked, world.forget, ONE, lambda _: False)
    groups = [world.clip.group(c.layer) for c in found.candidates]
    assert sorted(groups) == sorted({world.clip.group(r.name) for r in ranked})


def test_the_order_of_the_layers_does_not_change_the_winner(world, ranked):
    vision = [r for r in ranked if r.encoder == "vision"]
    plain, deep = (
        slug.front_by_front(
            world.clip,
            world.evaluator(limit=40),
            vision,
            world.forget,
            Plan(deepest_first=first, schedule=Schedule(evaluations=4)),
            lambda _: True,
        )
        for first in (False, True)
    )
    depths = [layers.depth_order(world.clip, n) for n in deep.curves]
    assert depths == sorted(depths, reverse=True) and len(depths) > 1
    assert len(deep.candidates) == len(plain.candidates)
    assert world.clip.group(deep.winner.layer) == world.clip.group(plain.winner.layer)
    assert deep.winner.step == plain.winner.step


def test_the_search_leaves_the_model_as_it_was(world):
    before = {n: p.detach().clone() for n, p in world.clip.parameters.items()}
    world.searched()
    assert tiny.same_tensors({n: p.detach() for n, p in world.clip.parameters.items()}, before)
