"""RECE against UCE, and against a least-squares solver."""

import itertools

import pytest
import tiny
import torch

from slug.methods import PipelineMaterial, rece, uce
from slug.methods._closed_forms import texts

MATERIAL = PipelineMaterial(["a bell in Noto", "a key in Noto"], ["a bell", "a key"], ["a dog", "a cat"], [], 0)


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


def changes(pipeline, weight=2.0, ridge=1e-3, count=3):
    return list(itertools.islice(rece.rounds(pipeline, MATERIAL, weight, ridge), count))


def test_no_round_is_uce(pipeline):
    (edit,) = uce.candidates(pipeline, MATERIAL, 2.0)
    found = changes(pipeline, count=1)[0]
    assert set(found) == set(edit.changes)
    assert all(torch.allclose(found[n], t, atol=1e-6) for n, t in edit.changes.items())


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 3.0])
def test_substitutes_are_the_least_squares_solution(ridge):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    weights, c = [draw(7, 5), draw(3, 5)], draw(4, 5)
    edited = [w + 0.3 * draw(*w.shape) for w in weights]
    rows = torch.cat([*edited, ridge**0.5 * torch.eye(5, dtype=torch.float64)])
    goal = torch.cat([*(w @ c.T for w in weights), torch.zeros(5, 4, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(rows, goal).solution.T
    assert torch.allclose(rece.substitutes(weights, edited, c, ridge), wanted, atol=1e-10)


def test_substitutes_of_an_edit_that_does_nothing_are_the_texts_themselves():
    w, c = torch.eye(5, dtype=torch.float64)[[0, 2, 1, 4, 3]], torch.arange(10.0, dtype=torch.float64).view(2, 5)
    assert torch.allclose(rece.substitutes([w], [w], c, 1e-9), c, atol=1e-6)


def test_a_round_erases_what_the_round_before_left(pipeline):
    """UCE at the edited weights, whose texts of the concept are the substitutes; computed here by plain steps."""
    first, second = changes(pipeline, count=2)
    c, target, kept = texts(pipeline, MATERIAL)
    before = {n: pipeline.tensors[n].double() for n in first}
    edited = {n: w + first[n].double() for n, w in before.items()}
    left = torch.linalg.inv(1e-3 * torch.eye(c.shape[1]).double() + sum(w.T @ w for w in edited.values()))
    c = (left @ sum(w.T @ before[n] for n, w in edited.items()) @ c.T).T
    for name, w in edited.items():
        eye, n, m = torch.eye(c.shape[1]).double(), len(MATERIAL.own), len(MATERIAL.others)
        rows = [c * (2.0 / n) ** 0.5, kept / m**0.5, uce.KEEP**0.5 * eye]
        goal = [target @ w.T * (2.0 / n) ** 0.5, kept @ w.T / m**0.5, uce.KEEP**0.5 * w.T]
        best = torch.linalg.lstsq(torch.cat(rows), torch.cat(goal)).solution.T
        assert torch.allclose(before[name] + second[name].double(), best, atol=1e-4), name
        assert (second[name] - first[name]).norm() > 1e-3 * first[name].norm()


def test_candidates_are_the_rounds_of_every_ridge_without_uce(pipeline):
    found = list(rece.candidates(pipeline, MATERIAL, 2.0))
    assert [(e.layer, e.step) for e in found] == [
        (f"weight 2, ridge {r:g}", float(k)) for r in rece.RIDGES for k in range(1, rece.ROUNDS + 1)
    ]
    for i, ridge in enumerate(rece.RIDGES):
        wanted = changes(pipeline, ridge=ridge, count=rece.ROUNDS + 1)[1:]
        for edit, change in zip(found[i * rece.ROUNDS :], wanted, strict=False):
            assert all(torch.equal(edit.changes[n], t) for n, t in change.items())
