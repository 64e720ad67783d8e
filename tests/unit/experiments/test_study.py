"""What each variant of the study searches, on the tiny world."""

import itertools
import shutil
from dataclasses import replace

import pytest
import tiny
import torch
from tiny_run import NAMES

from slug import files
from slug.core import layers, losses, slug
from slug.core.variants import Variant
from slug.data.names import Matcher, plain_name
from slug.data.pairs import some
from slug.errors import SlugError
from slug.experiments import study
from slug.experiments.study_variants import VARIANTS
from slug.settings import ForgetRule


@pytest.fixture(scope="module")
def world(prepared):
    """A StudyWorld with gradients of its own: parts of the retain set are written beside them."""
    run = prepared.another("study", link=False)
    shutil.copytree(prepared.results / "grads", run.results / "grads", symlinks=True)
    return study.StudyWorld(tiny.stage("a6_study").parse_args([str(a) for a in run.a6()]))


@pytest.fixture(scope="module")
def loaded(world):
    """Gradients of Alien."""
    return world.gradients.load("Alien", Variant())


@pytest.fixture(scope="module")
def fronts(world, loaded):
    """{encoder: layers of the Pareto front} of Alien."""
    return layers.fronts(layers.figures(world.clip, loaded.forget, loaded.retain))


@pytest.fixture
def searched(world, loaded, monkeypatch):
    """A function of a variant: ([(front, forget gradient, plan) of each search], the Result), of two steps a layer."""
    real = slug.over_layers

    def find(name):
        calls = []

        def over_layers(clip, evaluator, front, forget, plan):
            calls.append((list(front), forget, plan))
            few = replace(plan.schedule, evaluations=min(plan.schedule.evaluations, 2))
            return real(clip, evaluator, front, forget, replace(plan, schedule=few))

        monkeypatch.setattr(slug, "over_layers", over_layers)
        found = world.search("Alien", VARIANTS[name], loaded.forget, loaded.retain, world.pairs("Alien"))
        return calls, found

    return find


def test_the_standard_searches_both_fronts(world, searched, fronts):
    [(front, _, plan)], found = searched("standard")
    assert front == [*fronts["vision"], *fronts["language"]] and plan == VARIANTS["standard"].plan
    assert tuple(found.edit.changes) == world.clip.group(found.best.layer) and found.moved == [
        (found.best.layer, found.best.step)
    ]
    assert found.n_layers == len(front) and found.n_candidates >= found.n_layers


@pytest.mark.parametrize("tower", ["vision", "language"])
def test_a_tower_alone_is_searched(world, searched, fronts, tower):
    [(front, _, _)], found = searched(tower)
    assert front == fronts[tower] and {world.clip.tower(n) for n in found.edit.changes} == {tower}


@pytest.mark.parametrize("name", ["front_together", "all_together"])
def test_together_moves_every_layer_by_one_step(world, loaded, searched, fronts, name):
    forget = loaded.forget
    ranked = layers.figures(world.clip, forget, loaded.retain)
    wanted = {r.name for r in (ranked if name == "all_together" else [*fronts["vision"], *fronts["language"]])}
    _, found = searched(name)
    assert set(found.edit.changes) == wanted and found.best.layer == layers.TOGETHER and found.n_candidates == 2
    for n, change in found.edit.changes.items():
        torch.testing.assert_close(change, found.best.step * forget[n])
    first = layers.first_step([world.clip.parameters[n] for n in wanted], [forget[n] for n in wanted])
    assert found.best.step / first in (pytest.approx(0.5), pytest.approx(1), pytest.approx(2))


def test_figures_of_many_layers_are_those_of_a_model_that_has_the_weights(world, searched):
    """An edit of both towers leaves nothing that could be reused."""
    _, found = searched("front_together")
    how = {"splits": ["test"]}
    with world.evaluation.carrying(found.edit):
        fast = world.evaluators("Alien", None, **how)["test"].ranks()
        plain = world.evaluators("Alien", None, evaluation=world.evaluation_now(), **how)["test"].ranks()
    assert all(torch.equal(fast[k], plain[k]) for k in ("forget", "identities", "objects"))


@pytest.fixture
def rounds(world, searched):
    """(searches, Result) of three rounds, after which the model is as it was."""
    before = {n: p.detach().clone() for n, p in world.clip.parameters.items()}
    calls, found = searched("rounds_3")
    assert tiny.same_tensors(before, {n: p.detach() for n, p in world.clip.parameters.items()})
    return calls, found


def test_every_round_moves_another_layer(rounds):
    calls, found = rounds
    moved = [layer for layer, _ in found.moved]
    assert len(calls) == 3 and len(set(moved)) == 3 and set(found.edit.changes) == set(moved)
    for (front, _, _), earlier in zip(calls, ([], moved[:1], moved[:2]), strict=True):
        assert not {r.name for r in front} & set(earlier)


def test_every_round_takes_its_gradients_anew(rounds):
    calls, found = rounds
    last = found.moved[2][0]
    gradients = [forget for _, forget, _ in calls]
    assert all(not torch.allclose(a[last], b[last]) for a, b in itertools.pairwise(gradients))


def test_a_rounds_part_of_the_edit_is_its_step_along_its_gradient(rounds):
    """The last layer goes the whole way, the first a third of it; what a row says is enough to take the steps again."""
    calls, found = rounds
    for (layer, step), (_, forget, _) in zip(found.moved, calls, strict=True):
        torch.testing.assert_close(found.edit.changes[layer], step * forget[layer])
    assert found.moved[2] == (found.best.layer, found.best.step)


# ----------------------------------------------------------------------------------------------------- the retain set


def batches(pairs, size=16):
    """How many of so many pairs a contrastive gradient sees: a short last batch is dropped."""
    return pairs if pairs < size else pairs // size * size


@pytest.fixture(scope="module")
def retain_parts(world):
    """{variant: its gradient of a part of the retain set}."""
    found = {}
    for n in ("retain_10", "retain_30", "retain_30_again"):
        world.share(VARIANTS[n], make=True)
        found[n] = world.retain_part(NAMES[0], VARIANTS[n])
    return found


def test_the_part_of_the_retain_set_is_read_back(world, retain_parts):
    for name, found in retain_parts.items():
        assert tiny.same_tensors(found, world.retain_part(NAMES[0], VARIANTS[name]))


def test_the_part_has_fewer_pairs(world, retain_parts):
    total = len(world.every_pair.captions)
    for file, share in (("0.1_0", 0.1), ("0.3_0", 0.3), ("0.3_1", 0.3)):
        record = files.read_json(world.gradients.retain_folder / f"train_grads_{file}.json")
        assert record["pairs"] == batches(round(share * total))


def test_every_part_has_another_gradient(world, loaded, retain_parts):
    name = next(iter(world.clip.candidates()))
    values = [loaded.retain[name], *(g[name] for g in retain_parts.values())]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(values, 2))


def test_the_retain_set_of_a_name_leaves_out_its_pairs_alone(world):
    left = world.retained(NAMES[0]).captions
    own = Matcher([plain_name(NAMES[0])])
    assert left == [c for c in world.every_pair.captions if not own.find(c)] != world.every_pair.captions


def test_a_part_leaves_out_the_pairs_of_its_name(world, retain_parts):
    """A plain second computation, batch by batch."""
    part = some(world.every_pair, world.part_rows(VARIANTS["retain_30"]))
    own, size = Matcher([plain_name(NAMES[0])]), world.model.batch_size
    batches = [range(i, i + size) for i in range(0, len(part.captions) - size + 1, size)]
    kept = [[i for i in b if not own.find(part.captions[i])] for b in batches]
    assert any(len(b) < size for b in kept)
    made = [world.compute(some(part, b), losses.contrastive, "batch")[0] for b in kept]
    for n, g in retain_parts["retain_30"].items():
        plain = torch.stack([m[n] for m in made]).mean(0)
        assert (g - plain).abs().max() <= 1e-5 * plain.abs().max(), n


def test_a_part_that_was_not_made_names_the_stage(world):
    with pytest.raises(SlugError, match=r"no gradients at .*train_grads_0\.5_0\.pt; make them with: python .*a6_study"):
        world.retain_part(NAMES[0], replace(VARIANTS["retain_30"], retain_share=0.5))


# ------------------------------------------------------------------------------------------------------- which are run


def test_quick_takes_two_identities_and_an_object(world, monkeypatch):
    (a, b, c, *_), (x, y, *_) = (pictures.names for pictures in world.pictures)
    monkeypatch.setattr(world.gradients, "names", [x, a.replace(" ", "_"), y, b, c])
    assert study.quick_names(world) == [x, a.replace(" ", "_"), b]


def test_a_run_is_told_apart_by_all_that_it_depends_on(world, monkeypatch):
    def fingerprints():
        return {p.key: p.fingerprint for p in study.plan(world, NAMES, ["standard", "vision"])}

    first = fingerprints()
    assert len(set(first.values())) == 4 and fingerprints() == first
    monkeypatch.setitem(VARIANTS, "vision", replace(VARIANTS["vision"], evaluations=2))
    changed = {key[1:] for key, value in fingerprints().items() if value != first[key]}
    assert changed == {(name, "vision") for name in NAMES}
    monkeypatch.setattr(world, "settings", replace(world.settings, rule=ForgetRule(sigmas=4)))
    assert not set(fingerprints().values()) & set(first.values())
