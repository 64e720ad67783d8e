"""SPEED by its properties and by a second computation, on small matrices and on a pipeline."""

import pytest
import tiny
import torch

from slug.methods import PipelineMaterial, speed

MATERIAL = PipelineMaterial(["a bell in Noto", "a key in Noto"], ["a bell", "a key"], ["a dog", "a cat"], [], 0)
SIZE = 12


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def small():
    """(w, c, target, still, kept) of small random states; `kept` spans 5 of 12 dimensions."""
    return draw(7, SIZE), draw(3, SIZE, seed=1), draw(3, SIZE, seed=2), draw(2, SIZE, seed=3), draw(5, SIZE, seed=4)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_what_is_retained_stays_exactly_where_it_was(small, ridge):
    w, c, target, still, kept = small
    change = speed.change(w, c, target, still, speed.projector(kept, 1e-6), ridge)
    scale = change.norm()
    assert scale > 1e-2 and (change @ kept.T).norm() < 1e-9 * scale and (change @ still.T).norm() < 1e-8 * scale


def test_what_must_stay_may_lie_among_what_is_retained(small):
    """Its part of the inverse is then rounding alone."""
    w, c, target, still, kept = small
    for both in (kept[:2], torch.cat([kept[:1], still[:1]])):
        change = speed.change(w, c, target, both, speed.projector(kept, 1e-6), 1.0)
        assert (change @ kept.T).norm() < 1e-8 * change.norm() and (change @ both.T).norm() < 1e-8 * change.norm()
    within = speed.change(w, c, target, kept[:2], speed.projector(kept, 1e-6), 1.0)
    nothing = speed.change(w, c, target, torch.zeros(1, SIZE).double(), speed.projector(kept, 1e-6), 1.0)
    assert torch.allclose(within, nothing, atol=1e-9)


def test_the_change_is_the_constrained_minimum(small):
    """Of changes D P with D P c2 = 0 it minimises |(W + D P) c - W c*|^2 + r |D P|^2; solved here by its Lagrange system."""
    w, c, target, still, kept = small
    p = speed.projector(kept, 1e-6)
    change = speed.change(w, c, target, still, p, 1.0)
    values, vectors = torch.linalg.eigh(p)
    free = vectors[:, values > 0.5]  # D P = Z free^T
    a, b = c @ free, still @ free
    goal = (target - c) @ w.T  # what D P c is to be
    n, k = free.shape[1], len(still)
    system = torch.zeros(n + k, n + k, dtype=torch.float64)
    system[:n, :n], system[:n, n:], system[n:, :n] = a.T @ a + torch.eye(n), b.T, b
    right = torch.cat([a.T @ goal, torch.zeros(k, goal.shape[1], dtype=torch.float64)])
    z = torch.linalg.solve(system, right)[:n]
    assert torch.allclose(change, (free @ z).T, atol=1e-8)


def test_the_threshold_is_a_multiple_of_the_mean_eigenvalue():
    kept = torch.diag(torch.tensor([3.0, 1.0, 0.1, 0.0], dtype=torch.float64))
    kinds = [speed.projector(10 * kept, t).diagonal().round().tolist() for t in (1e-6, 0.1, 1.0)]
    assert kinds == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]  # mean eigenvalue of diag(9, 1, 0.01, 0): 2.5


def test_influential_states_are_those_that_move_most():
    kept, moved = torch.eye(3).double(), torch.diag(torch.tensor([1.0, 5.0, 2.0])).double()
    assert torch.equal(speed.influential(kept, moved), kept[1:2])
    assert torch.equal(speed.influential(kept, torch.eye(3).double()), kept)


def test_copies_differ_in_the_direction_that_is_read_least(small):
    w, c, target, _, kept = small
    found = speed.refined(kept, w, c, target, 0)
    of, eye = target.T @ c - c.T @ c, torch.eye(SIZE).double()
    size = (kept @ (w @ of @ torch.linalg.inv(kept.square().mean() * eye + c.T @ c)).T).norm(dim=1)
    own = kept[size > size.mean()]
    assert torch.equal(found[: len(own)], own) and len(found) > len(own)
    assert torch.allclose(found @ w.T, (own @ w.T)[torch.cdist(found @ w.T, own @ w.T).argmin(1)], atol=1e-9)
    assert torch.equal(found, speed.refined(kept, w, c, target, 0))
    assert not torch.equal(found[len(own) :][:1], speed.refined(kept, w, c, target, 1)[len(own) :][:1])


def test_centres_are_those_of_separate_groups():
    rows = torch.cat([draw(9, 4, seed=k) * 0.01 + 10 * k for k in range(3)])
    found = speed.centres(rows, 3)
    wanted = torch.stack([rows[9 * k : 9 * k + 9].mean(0) for k in range(3)])
    assert torch.allclose(found[found[:, 0].argsort()], wanted)
    assert len(speed.centres(rows[:2], 3)) == 2


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


def test_only_values_change_and_the_empty_text_begins_as_before(pipeline):
    (edit,) = speed.candidates(pipeline, MATERIAL, 0.1)
    assert (edit.layer, edit.step) == ("threshold 0.1", 1)
    assert set(edit.changes) == {n for n in pipeline.tensors if "attn2.to_v" in n}
    start = pipeline.embed([""])[0, 0].double()
    for name, change in edit.changes.items():
        moved = (change.double() @ start).norm()
        assert moved < 1e-4 * (pipeline.tensors[name].double() @ start).norm() and change.norm() > 0, name


def test_the_concept_moves_towards_its_neutral_texts(pipeline):
    (edit,) = speed.candidates(pipeline, MATERIAL, 1.0)
    c, target = (pipeline.embed(p).flatten(0, 1).double() for p in (MATERIAL.own, MATERIAL.neutral))
    for name, change in edit.changes.items():
        w = pipeline.tensors[name].double()
        before = ((c - target) @ w.T).norm()
        assert (c @ (w + change.double()).T - target @ w.T).norm() < 0.95 * before, name


def test_a_higher_threshold_brings_the_concept_closer_to_its_neutral_texts(small):
    w, c, target, still, _ = small
    kept, left = torch.diag(torch.logspace(0, -2, SIZE, dtype=torch.float64)), []
    for threshold in (1e-3, 1e-1, 10.0):
        change = speed.change(w, c, target, still, speed.projector(kept, threshold), 0.01)
        left.append(((c @ (w + change).T - target @ w.T).norm() / ((c - target) @ w.T).norm()).item())
    assert left[0] > left[1] > left[2] and left[2] < 0.1


def test_several_concepts_have_both_ridges_and_means_of_their_own(pipeline):
    """With every prompt twice, and two concepts instead of one, the sums over a concept's prompts are the same."""
    twice = PipelineMaterial(MATERIAL.own * 2, MATERIAL.neutral * 2, MATERIAL.others, [], 0)
    names = ["one"] * len(MATERIAL.own) + ["two"] * len(MATERIAL.own)
    found = list(speed.several(pipeline, twice._replace(concepts=names), 0.1))
    assert [e.layer for e in found] == ["threshold 0.1, ridge 1", "threshold 0.1, ridge 0.05"]
    (one,) = speed.candidates(pipeline, twice, 0.1, speed.RIDGE, 2)
    assert all(torch.equal(one.changes[n], c) for n, c in found[0].changes.items())
