"""The method as a whole on a small trained CLIP, and the search on a scripted evaluator."""

import math

import pytest
import tiny
import torch

from slug.core import selection
from slug.core import slug as core
from slug.core.edit import Edit
from slug.core.layers import Layer
from slug.core.search import Plan, Schedule
from slug.core.selection import Candidate
from slug.data.names import Matcher
from slug.data.pairs import load_pairs, some
from slug.experiments.setup import World
from slug.settings import Data, Model, Run

# ------------------------------------------------------------------------------------------------------- a trained CLIP


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def world(request, taught_clip, tiny_world, tmp_path_factory):
    """World of the trained CLIP on the tiny world, of either family."""
    folder = taught_clip / request.param
    which = {"model": f"local-dir:{folder}"} if request.param == "open_clip" else {"clip_model_id": str(folder)}
    run = Run(device="cpu", workers=0, result_dir=str(tmp_path_factory.mktemp("results")))
    pictures = {"val_data": str(tiny_world / "celeba"), "imagenet_val": str(tiny_world / "ImageNet" / "val")}
    return World(run, Model(**which), Data(celeb_name=("Bento_Box",), **pictures))


@pytest.fixture(scope="module")
def pairs(world, tiny_world):
    """(forget pairs, retain pairs) of Bento Box."""
    every = load_pairs(tiny_world / "laion" / "laion400m" / "00000.tar", world.clip.transform)
    matcher = Matcher(["Bento Box"])
    shows = [bool(matcher.find(c)) for c in every.captions]
    return [some(every, [i for i, s in enumerate(shows) if s is wanted]) for wanted in (True, False)]


@pytest.fixture(scope="module")
def found(world, pairs):
    """What SLUG finds for Bento Box."""
    evaluator = world.evaluators("Bento Box", None, splits=["validation"])["validation"]
    return evaluator, core.slug(world.clip, evaluator, *pairs, Plan(schedule=Schedule(evaluations=6)))


def test_slug_leaves_the_model_as_it_was(found, world, taught_clip):
    loaded = tiny.load_folder(taught_clip / ("hugging_face" if world.clip.family == "hf" else "open_clip"))
    assert tiny.same_tensors(dict(world.clip.parameters), dict(loaded.parameters))


def test_slug_forgets_the_name(found):
    evaluator, result = found
    assert not evaluator.start.forgotten
    assert result.winner.forgotten
    assert result.winner.scores["forget_acc1"] <= 0.02 < evaluator.start.scores["forget_acc1"]


def test_slug_retains_what_was_not_to_be_forgotten(found):
    evaluator, result = found
    assert result.winner.retained >= evaluator.start.retained - 0.1


def test_the_winner_is_a_positive_step_on_one_layer(found, world):
    _, result = found
    assert result.winner.step > 0
    assert tuple(result.winner.edit.changes) == world.clip.group(result.winner.layer)


def test_the_winner_is_the_best_of_all_candidates(found):
    _, result = found
    assert result.winner is selection.winner(result.candidates)
    assert all(c.layer == layer for layer, curve in result.curves.items() for c in curve)


def test_the_winners_scores_are_those_of_its_edit(found):
    evaluator, result = found
    again = evaluator.score(result.winner.edit, log_all=True)
    for column in ("forget_acc1", "identities_acc1", "objects_acc1", "margin"):
        assert again.scores[column] == pytest.approx(result.winner.scores[column], abs=1e-5)


# ------------------------------------------------------------------------------------------------- a scripted evaluator


class Flat:
    """A model of layers a, b and c, whose parameters have norm 1; b1 and b2 move together."""

    def __init__(self):
        self.parameters = {n: torch.ones(1) for n in ("a", "b1", "b2", "c")}

    def group(self, name):
        return ("b1", "b2") if name in ("b1", "b2") else (name.removesuffix(" alone"),)

    def tower(self, name):
        return "vision"

    def stages(self, tower):
        return list(self.parameters)

    def stage(self, name):
        return list(self.parameters).index(name)


class Scripted:
    """An evaluator with `retained[layer]` for layers that forget from their third step on; notes how it was asked."""

    def __init__(self, retained):
        self.retained, self.asked, self.ahead = retained, [], []

    def look_ahead(self, direction, steps):
        self.ahead.append((direction.layer, direction.step, len(steps)))

    def score(self, edit, best=None, *, log_all=False):
        self.asked.append((edit.layer, best.layer if best else None, log_all))
        forgotten = edit.step >= 0.4 and edit.layer in self.retained
        kept = self.retained[edit.layer] if forgotten else math.nan
        how = {"forgotten": forgotten, "retained": kept, "accuracy": 0.0 if forgotten else 1.0, "margin": 0.0}
        preference = selection.preference(**how, step=edit.step)
        return Candidate(edit, {}, forgotten, float(forgotten), kept, preference)


FRONT = [Layer(n, "vision", 1.0, 0.0) for n in ("a", "b1", "b2", "c")]
GRADIENT = {n: torch.ones(1) for n in ("a", "b1", "b2", "c")}
THREE = Plan(schedule=Schedule(evaluations=3))
RETAINED = {"a": 0.5, "b1": 0.9, "c": 0.7}


def layers_asked(evaluator):
    return list(dict.fromkeys(layer for layer, _, _ in evaluator.asked))


def test_a_group_is_searched_once():
    evaluator = Scripted(RETAINED)
    found = core.over_layers(Flat(), evaluator, FRONT, GRADIENT, THREE)
    assert list(found.curves) == layers_asked(evaluator) == ["a", "b1", "c"]
    assert all(len(curve) == 3 for curve in found.curves.values())


def test_the_best_layer_wins():
    assert core.over_layers(Flat(), Scripted(RETAINED), FRONT, GRADIENT, THREE).winner.layer == "b1"


def test_the_deepest_layer_that_forgets_may_be_chosen():
    plan = Plan(choose="deepest", schedule=THREE.schedule)
    assert core.over_layers(Flat(), Scripted(RETAINED), FRONT, GRADIENT, plan).winner.layer == "c"


def test_a_candidate_has_to_beat_the_best_one_so_far():
    evaluator = Scripted(RETAINED)
    core.over_layers(Flat(), evaluator, FRONT, GRADIENT, THREE)
    assert evaluator.asked[0] == ("a", None, False)
    assert evaluator.asked[3] == ("b1", "a", False)
    assert evaluator.asked[6] == ("c", "b1", False)


def test_by_the_papers_rule_no_candidate_is_given_up():
    evaluator = Scripted(RETAINED)
    core.over_layers(Flat(), evaluator, FRONT, GRADIENT, Plan(choose="deepest", schedule=THREE.schedule))
    assert {best for _, best, _ in evaluator.asked} == {None}


def test_everything_may_be_scored():
    evaluator = Scripted(RETAINED)
    core.over_layers(Flat(), evaluator, FRONT, GRADIENT, Plan(log_all=True, schedule=THREE.schedule))
    assert all(log_all for _, _, log_all in evaluator.asked)


def test_an_earlier_candidate_has_to_be_beaten():
    earlier = Candidate(Edit({}, "earlier", 1.0), {}, True, 1.0, 1.0, (1, 1.0, 0.0, -1.0))
    found = core.over_layers(Flat(), Scripted(RETAINED), FRONT, GRADIENT, THREE, best=earlier)
    assert found.winner is earlier
    assert earlier not in found.candidates


def test_a_search_ends_where_its_winner_is_settled():
    evaluator = Scripted(RETAINED)
    found = core.over_layers(Flat(), evaluator, FRONT, GRADIENT, THREE, settled=lambda best: best.forgotten)
    assert (layers_asked(evaluator), found.winner.layer) == (["a"], "a")


def test_layers_may_move_together():
    evaluator = Scripted({"together": 0.9})
    found = core.over_layers(Flat(), evaluator, FRONT, GRADIENT, Plan(together=True, schedule=THREE.schedule))
    assert list(found.curves) == ["together"]
    assert set(found.candidates[0].edit.changes) == set(GRADIENT)


def test_steps_that_may_come_next_are_announced():
    evaluator = Scripted(RETAINED)
    plan = Plan(schedule=Schedule(evaluations=3, lookahead=2))
    core.over_layers(Flat(), evaluator, FRONT[:1], GRADIENT, plan)
    assert evaluator.ahead[0] == ("a", 1.0, 3)


# ------------------------------------------------------------------------------------------------- front after front

# c, then a and b1, are Pareto fronts: high importance, low alignment.
RANKED = [Layer("a", "vision", 3.0, 0.5), Layer("b1", "vision", 2.0, 0.3), Layer("c", "vision", 4.0, 0.1)]


def test_fronts_are_searched_until_a_winner_is_good_enough():
    evaluator = Scripted(RETAINED)
    found = core.front_by_front(Flat(), evaluator, RANKED, GRADIENT, Plan(fronts=2), lambda best: best.retained > 0.6)
    assert (layers_asked(evaluator), found.winner.layer) == (["c"], "c")


def test_the_next_front_is_searched_where_the_winner_will_not_do():
    evaluator = Scripted(RETAINED)
    found = core.front_by_front(Flat(), evaluator, RANKED, GRADIENT, Plan(fronts=2), lambda best: best.retained > 0.8)
    assert (layers_asked(evaluator), found.winner.layer) == (["c", "a", "b1"], "b1")


def test_no_more_fronts_are_searched_than_the_plan_says():
    evaluator = Scripted(RETAINED)
    core.front_by_front(Flat(), evaluator, RANKED, GRADIENT, Plan(fronts=1), lambda best: False)
    assert layers_asked(evaluator) == ["c"]


def test_a_front_may_be_searched_from_its_deepest_layer():
    evaluator = Scripted(RETAINED)
    plan = Plan(fronts=2, deepest_first=True)
    core.front_by_front(Flat(), evaluator, RANKED, GRADIENT, plan, lambda best: False)
    assert layers_asked(evaluator) == ["c", "b1", "a"]
