"""What a pipeline forgets by: methods in rounds, the grid of a baseline, layers and steps."""

import contextlib
import math
import types
from dataclasses import replace

import pytest

from slug import methods
from slug.core.edit import Edit
from slug.core.selection import Candidate
from slug.errors import SlugError
from slug.evaluation.canvas_prompts import Concept
from slug.experiments.pipelines import Forgetting
from slug.methods import PIPELINE, Method
from slug.settings import ForgetPipeline

# ------------------------------------------------------------------------------------------------------------ settings


def test_a_method_in_rounds_is_its_variant_with_three_rounds():
    assert ForgetPipeline(method="slug_w_rounds") == ForgetPipeline(method="slug_w", rounds=3)


def test_a_method_in_rounds_takes_the_rounds_that_are_given():
    assert ForgetPipeline(method="slug_ws_rounds", rounds=2) == ForgetPipeline(method="slug_ws", rounds=2)


@pytest.mark.parametrize(
    ("given", "label"), [({"method": "slug_w", "rounds": 2}, "slug_w_rounds"), ({"method": "uce"}, "uce"), ({}, "slug")]
)
def test_records_name_the_method_with_its_rounds(given, label):
    assert ForgetPipeline(**given).label == label


def test_the_first_round_of_a_method_in_rounds_is_the_variant_alone():
    assert replace(ForgetPipeline(method="slug_w_rounds"), rounds=1) == ForgetPipeline(method="slug_w")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "uce", "rounds": 2}, "only SLUG has --rounds"),
        ({"layer": "a"}, "--layer and --step go together"),
        ({"step": 1.0}, "--layer and --step go together"),
        ({"layer": "a", "step": 1.0, "rounds": 2}, "are for one step of SLUG"),
        ({"layer": "a", "step": 1.0, "method": "slug_rounds"}, "are for one step of SLUG"),
        ({"layer": "a", "step": 1.0, "method": "esd"}, "are for one step of SLUG"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given, said):
    with pytest.raises(SlugError, match=said):
        ForgetPipeline(**given)


# ----------------------------------------------------------------------------------------------------------- baselines


class Liking:
    """An evaluator that likes weights the more, the nearer they are to `best`; none where it is None."""

    def __init__(self, best):
        self.concept, self.own, self.others, self.best = Concept("style", "Noto"), [], [], best
        self.start = self.candidate(Edit(), (0.0, 1.0))

    def candidate(self, edit, preference):
        return Candidate(edit, {"UA": 0.5}, False, 0.5, 1.0, preference)

    def score(self, edit, best=None):
        """The layer of an edit is `weight` and its weight."""
        if self.best is None:
            return self.candidate(edit, None)
        return self.candidate(edit, (1 / (1 + abs(math.log(float(edit.layer.split()[1]) / self.best))), 1.0))


def run_baseline(best):
    """The Outcome of a baseline whose candidates are named by their weights."""

    def candidates(pipeline, material, weight):
        yield Edit({"a": weight}, f"weight {weight:g}", 1)

    method = Method("test", "Test", "a test", (PIPELINE,), candidates=candidates, setting="weight", grid=(0.1, 1, 10))
    settings = types.SimpleNamespace(run=types.SimpleNamespace(seed=0))
    forgetting = types.SimpleNamespace(method=method, settings=settings, pipeline=None)
    return Forgetting.baseline(forgetting, Liking(best))


@pytest.mark.parametrize(
    ("best", "tried", "inside"),
    [
        (0.012, [0.0032, 0.01, 0.032, 0.1, 1, 10], True),
        (1, [0.1, 1, 10], True),
        (1e9, [0.1, 1, 10, 32, 100, 320, 1000], False),
        (None, [0.1, 1, 10], None),
    ],
)
def test_a_baselines_grid_grows_while_the_best_is_at_its_end(best, tried, inside):
    outcome = run_baseline(best)
    assert outcome.figures == {"grid": tried, "inside_grid": inside} and len(outcome.candidates) == len(tried)


def test_a_baselines_best_edit_is_kept_with_its_setting():
    outcome = run_baseline(1)
    assert outcome.edit.changes == {"a": 1} and outcome.chosen == [("weight 1", 1)]


def test_a_baseline_that_no_candidate_of_may_be_kept_changes_nothing():
    outcome = run_baseline(None)
    assert not outcome.edit.changes and outcome.chosen == [] and outcome.best.layer == ""


def test_candidates_of_a_baseline_do_not_keep_their_tensors():
    assert all(not c.edit.changes for c in run_baseline(1).candidates)


def test_every_method_of_pipelines_can_be_asked_for():
    wanted = {"slug", "slug_w", "slug_ws", "slug_rounds", "slug_w_rounds", "slug_ws_rounds", "uce", "esd"}
    assert wanted <= set(methods.names(PIPELINE)) and all(ForgetPipeline(method=m) for m in wanted)


# -------------------------------------------------------------------------------------------------------------- rounds


class Rounds:
    """A Forgetting in up to three rounds, whose layers are searched by `finds`: {layer: UA that it reaches}."""

    def __init__(self, finds, rounds=3):
        self.finds, self.taken = dict(finds), 0
        self.settings = types.SimpleNamespace(rounds=rounds)
        self.pipeline = types.SimpleNamespace(clip=None)
        self.canvas = types.SimpleNamespace(edit=lambda record: Still({"first": 1}))
        self.files = types.SimpleNamespace(load=lambda name, variant: types.SimpleNamespace(left_out=[]))
        self.variant = None

    def gradients_now(self, name, left_out):
        self.taken += 1
        return {}, {}

    def one_layer(self, evaluator, forget, retain, best):
        layer, ua = self.finds.popitem()
        found = Candidate(Still({layer: 1}, layer, 1.0), {}, ua >= 1, ua, 1.0, (ua, 1.0))
        best = found if found.preference > best.preference else best
        return types.SimpleNamespace(candidates=[found], winner=best), []


class Still(Edit):
    """An edit that changes no model."""

    def applied(self, model):
        return contextlib.nullcontext()

    def __add__(self, other):
        return Still({**self.changes, **other.changes})


def further(finds, chosen=(("first", 2.0),), **how):
    """(Outcome of the rounds after one that reached 0.5, times that gradients were taken)."""
    forgetting = Rounds(finds, **how)
    evaluator = types.SimpleNamespace(concept=Concept("style", "Noto"))
    evaluator.candidate = lambda edit, row: Candidate(edit, row, row["UA"] >= 1, row["UA"], 1.0, (row["UA"], 1.0))
    winner = {"layer": "first", "step": 2.0, "UA": 0.5}
    record = {"winner_validation": winner, "chosen": [list(c) for c in chosen]}
    return Forgetting.further_rounds(forgetting, evaluator, record), forgetting.taken


def test_rounds_add_a_layer_each_until_the_concept_is_forgotten():
    outcome, taken = further({"never": 1.0, "third": 1.0, "second": 0.7}, rounds=9)
    assert outcome.chosen == [("first", 2.0), ("second", 1.0), ("third", 1.0)] and taken == 2
    assert set(outcome.edit.changes) == {"first", "second", "third"} and outcome.best.layer == "third"


def test_there_are_no_more_rounds_than_are_asked_for():
    outcome, taken = further({"third": 0.8, "second": 0.7}, rounds=2)
    assert outcome.chosen == [("first", 2.0), ("second", 1.0)] and taken == 1


def test_a_round_without_a_better_candidate_is_the_last():
    outcome, taken = further({"never": 1.0, "second": 0.4})
    assert outcome.chosen == [("first", 2.0)] and set(outcome.edit.changes) == {"first"} and taken == 1
    assert [c.layer for c in outcome.candidates] == ["second"] and outcome.best.layer == "first"


def test_a_first_round_that_kept_nothing_has_no_further_ones():
    outcome, taken = further({"second": 1.0}, chosen=())
    assert outcome.chosen == [] and taken == 0
