"""The comparison's own pieces; a whole run is in tests/stages/test_a3.py."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch

from slug import methods
from slug.core import selection
from slug.core.edit import Edit
from slug.core.selection import Candidate
from slug.errors import SlugError
from slug.experiments import comparison
from slug.experiments.baseline import Baseline, Scored, changed
from slug.methods._training import Schedule
from slug.settings import Compare, Data

SETTINGS = Compare(data=Data(celeb_name=("Alien",)), lr=(1e-4, 1e-5, 1e-4), epochs=3, forget_epochs=5)


def baseline(method, settings=SETTINGS, **more):
    """A Baseline that scores nothing."""
    common = {"clip": SimpleNamespace(label="m"), "folder": Path("r"), "made_with": {}, "stored": None, "seconds": (0, 0)}
    common["model_hash"] = "abc"
    method = methods.get(method) if isinstance(method, str) else method
    made = {"name": "Alien", "method": method, "settings": settings, "evaluators": dict}
    return Baseline(**(made | common | more))


def test_the_grid_is_that_of_the_flags_ascending():
    assert baseline("ga").grid == [1e-5, 1e-4] and baseline("ssd").grid == [10.0]


def test_the_rivals_run_only_where_they_are_asked_for():
    assert comparison.default_methods() == ["ft", "ga", "gaft", "salun", "ssd"]
    assert methods.get("ccup").asked and not methods.get("ssd").asked


def test_a_method_that_trains_may_have_candidates_of_its_own_number():
    assert [baseline(m).count for m in ("task_negation", "cliperase", "nest")] == [21, 20, 6]


def test_optimiser_steps_may_be_candidates_of_what_trains_by_epochs():
    by_steps = dataclasses.replace(SETTINGS, step_candidates=12)
    assert [baseline(m, by_steps).count for m in ("ft", "ga", "ssd", "cliperase")] == [12, 12, 10, 20]
    made = dict.fromkeys(("wd", "epochs", "batch_size", "warmup", "seed"), 1)
    assert comparison.argument(methods.get("ga"), 1e-3, made | {"step_candidates": 12}).candidates == 12
    assert comparison.argument(methods.get("ga"), 1e-3, made).candidates == 0  # a record of before


def test_every_rival_has_at_least_forty_candidates():
    asked = [m for m in map(methods.get, methods.names(methods.CLIP, searched=False)) if m.asked and not m.retains]
    assert len(asked) == 9 and all(m.count * len(baseline(m).grid) >= 40 for m in asked)


def test_a_stored_choice_is_the_whole_grid():
    found = baseline("ga", stored=(1e-3, 2))
    assert (found.grid, found.only) == ([1e-3], 2)


def test_a_method_without_flags_has_its_own_grid():
    method = dataclasses.replace(methods.get("ssd"), setting="factor", grid=(0.5, 0.1))
    assert baseline(method).grid == [0.1, 0.5]


def test_candidates_of_a_job_are_epochs_or_dampenings():
    assert [baseline(m).count for m in ("ft", "ga", "ga_o", "ssd")] == [3, 5, 5, 10]


def test_a_job_is_named_by_its_setting():
    assert baseline("ga_o").label(1e-5) == "lr 1e-05" and baseline("ssd").label(10.0) == "alpha 10"
    assert baseline("ga").path(".json", 3.2e-4).name == "m-ga-Alien-lr0.00032.json"


def test_a_training_gets_a_schedule_and_others_the_setting_itself():
    made = {"wd": 0.1, "epochs": 3, "batch_size": 8, "warmup": 0, "seed": 1}
    assert comparison.argument(methods.get("ga"), 1e-4, made) == Schedule(1e-4, 0.1, 3, 8, 0, 1)
    assert comparison.argument(methods.get("ssd"), 10.0, made) == 10.0


def candidate(layer, step, accuracy, retained):
    preference = selection.preference(
        forgotten=accuracy == 0, retained=retained, accuracy=accuracy, margin=-1.0, step=float(step)
    )
    return Candidate(Edit({}, layer, step), {}, accuracy == 0, 1.0, retained, preference)


class Evaluator:
    """Gives out candidates that were made before, and remembers what they had to beat."""

    def __init__(self, clip, candidates):
        self.evaluation, self.candidates, self.beat = SimpleNamespace(clip=clip), list(candidates), []
        self.whole = []

    def score(self, edit, best=None, *, log_all=False):
        self.beat.append(best)
        self.whole.append(log_all)
        return self.candidates.pop(0)


def test_each_candidate_has_to_beat_the_best_of_all_jobs_so_far(clip):
    ahead = candidate("lr 1", 1, 0.0, 0.8)
    made = [candidate("lr 2", n, 0.0, retained) for n, retained in enumerate((0.7, 0.9, 0.6), 1)]
    evaluator = Evaluator(clip, made)
    scored = Scored(evaluator, ahead)
    for _ in made:
        scored.score(Edit(), dict(clip.parameters))
    assert evaluator.beat == [ahead, ahead, made[1]]
    assert scored.best is made[1] and scored.candidates == made


@pytest.mark.parametrize("whole", [False, True])
def test_where_what_retains_most_is_kept_every_candidate_is_scored_in_full(clip, whole):
    made = [candidate("lr 2", 1, 0.9, 0.8)]
    evaluator = Evaluator(clip, made)
    Scored(evaluator, None, whole=whole).score(Edit(), dict(clip.parameters))
    assert evaluator.whole == [whole]


@pytest.mark.parametrize("retained", [(0.3, 0.9), (0.9, 0.3)])
def test_where_none_forgets_the_lowest_forget_accuracy_and_then_the_highest_retained_accuracy_is_kept(clip, retained):
    """Of a candidate that does not forget retained accuracy is left out at first; it decides among equals."""
    left_out = [candidate("lr 2", n, a, math.nan) for n, a in enumerate((0.5, 0.2, 0.2, 0.4), 1)]
    full = [candidate("lr 2", n, a, r) for n, a, r in zip((1, 2, 3), (0.5, 0.2, 0.2), (0.99, *retained), strict=True)]
    made = [left_out[0], full[0], left_out[1], full[1], left_out[2], full[2], left_out[3]]
    scored = Scored(Evaluator(clip, made), None)
    for _ in left_out:
        scored.score(Edit(), dict(clip.parameters))
    assert scored.best is max(full[1:], key=lambda c: c.retained) and scored.candidates == [*full, left_out[3]]


def test_the_weights_of_the_best_candidate_of_a_job_are_kept(clip):
    """Also where an earlier job has a better one: the job's file is read only if it holds the choice."""
    base = {n: p.detach().clone() for n, p in clip.parameters.items()}
    scored = Scored(Evaluator(clip, [candidate("lr 2", n, 0.0, r) for n, r in ((1, 0.7), (2, 0.6))]), None)
    name = next(iter(base))
    for _ in range(2):
        with torch.no_grad():
            clip.parameters[name].add_(1)
        scored.score(Edit(), base)
    assert list(scored.weights) == [name] and torch.allclose(scored.weights[name], base[name] + 1)


def test_only_changed_parameters_are_kept(clip):
    base = {n: p.detach().clone() for n, p in clip.parameters.items()}
    assert changed(clip, base) == {}


def table(path, **columns):
    row = {"name": "Bento Box", "method": "ga", "split": "validation", "layer": "lr 0.001", "step": 2}
    pd.DataFrame([row | columns, row | {"split": "test", "layer": "lr 5"}]).to_csv(path, index=False)
    return str(path)


def test_choices_are_read_from_the_validation_rows_of_a_table(tmp_path):
    found = comparison.stored_choices(table(tmp_path / "table.csv"), ["Bento_Box"], ["ga"])
    assert found == {("Bento Box", "ga"): (0.001, 2)}


def test_a_table_without_the_method_is_refused(tmp_path):
    with pytest.raises(SlugError, match="has no row of ft for Bento Box"):
        comparison.stored_choices(table(tmp_path / "table.csv"), ["Bento_Box"], ["ga", "ft"])


@pytest.mark.parametrize("method", ("salun", "nest"))
def test_the_retain_gradient_is_read_by_those_that_need_it(method):
    found = SimpleNamespace(forget={"w": 1}, retain={"w": 2})
    gradients = SimpleNamespace(load=lambda name, variant: found, seconds=lambda *which: 3.0 if "train" in which else 1.0)
    made, own, shared = comparison.read_passes(gradients, "Alien", method)
    wanted = {"gradient": found.forget} | ({"retain_gradient": found.retain} if method == "nest" else {})
    assert made == wanted and (own, shared) == (1, 3 if method == "nest" else 0)


@pytest.fixture
def material():
    return methods.Material(tiny.pairs(6), tiny.pairs(8, seed=1), methods.get("ga").variant)


SETTINGS_OF_A_RECORD = {"wd": 0.1, "epochs": 2, "batch_size": 4, "warmup": 0, "seed": 0}
RECORD = {"method": "ga", "name": "Alien", "setting": 1e-3, "step": 1, "settings": SETTINGS_OF_A_RECORD}


def test_a_choice_is_made_again_without_changing_the_model(clip, material):
    before = {n: p.detach().clone() for n, p in clip.parameters.items()}
    one, again = (comparison.redo(clip, RECORD, material) for _ in range(2))
    two = comparison.redo(clip, RECORD | {"step": 2}, material)
    assert tiny.same_tensors(one, again) and not tiny.same_tensors(one, two)
    assert tiny.same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)


def test_a_choice_that_the_settings_do_not_reach_is_refused(clip, material):
    with pytest.raises(SlugError, match="ga of Alien has no candidate 3; run its stage again"):
        comparison.redo(clip, RECORD | {"step": 3}, material)
