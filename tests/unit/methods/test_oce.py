"""OCE against SciPy's solution of the orthogonal Procrustes problem, and by what a rotation keeps."""

import pytest
import tiny
import torch
from scipy import linalg

from slug.methods import PipelineMaterial, oce

OWN, NEUTRAL, OTHERS = ["a bell in Noto", "a key in Noto"], ["a bell", "a key"], ["a dog", "a cat"]
MATERIAL = PipelineMaterial(OWN, NEUTRAL, OTHERS, [], 0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("weight", [0.1, 1.0, 30.0])
def test_the_matrix_solves_the_procrustes_problem(weight):
    w, c, target, kept = draw(4, 6), draw(3, 6, seed=1), draw(3, 6, seed=2), draw(9, 6, seed=3)
    r = oce.turn(w, weight * target.T @ c + kept.T @ kept)
    assert torch.allclose(r @ r.T, torch.eye(4).double(), atol=1e-12)
    texts = torch.cat([weight**0.5 * c, kept])
    goals = torch.cat([weight**0.5 * target, kept])
    wanted, _ = linalg.orthogonal_procrustes((texts @ w.T).numpy(), (goals @ w.T).numpy())
    assert torch.allclose(r, torch.from_numpy(wanted).T, atol=1e-10)


def test_a_reflection_stays_one():
    """Where texts are to change sides, R mirrors: its determinant is not made positive."""
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).double()
    r = oce.turn(torch.eye(3).double(), mirror)
    assert torch.allclose(r, mirror) and torch.linalg.det(r) < 0


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny.load_pipeline(tiny_pipeline)


@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_lengths_and_angles_of_all_texts_are_kept(pipeline, weight):
    (edit,) = oce.candidates(pipeline, MATERIAL, weight)
    assert set(edit.changes) == {n for n in pipeline.tensors if "attn2.to_k" in n or "attn2.to_v" in n}
    assert (edit.layer, edit.step) == (f"weight {weight:g}", 1)
    for name, change in edit.changes.items():
        w = pipeline.tensors[name].double()
        moved = w + change.double()
        assert torch.allclose(moved.T @ moved, w.T @ w, atol=1e-5), name
        assert change.norm() > 1e-3 * w.norm(), name


def test_texts_of_the_concept_go_where_the_neutral_ones_are(pipeline):
    """Computed anew by SciPy: mean texts of the concept, weighted, and of the others, each prompt with all of its tokens."""
    (edit,) = oce.candidates(pipeline, MATERIAL, 3.0)
    c, to, kept = (pipeline.embed(p).flatten(0, 1).double() for p in (OWN, NEUTRAL, OTHERS))
    tie = (oce.TIE * kept.square().mean()).sqrt() * torch.eye(c.shape[1]).double()
    texts, goals = (torch.cat([(3 / 2) ** 0.5 * rows, kept / 2**0.5, tie]) for rows in (c, to))
    for name, change in edit.changes.items():
        w = pipeline.tensors[name].double()
        r, _ = linalg.orthogonal_procrustes((texts @ w.T).numpy(), (goals @ w.T).numpy())
        assert torch.allclose(w + change.double(), torch.from_numpy(r).T @ w, atol=1e-5), name


def test_a_concept_that_is_already_like_its_neutral_texts_changes_nothing(pipeline):
    (edit,) = oce.candidates(pipeline, MATERIAL._replace(neutral=OWN), 3.0)
    assert all(t.abs().max() < 1e-4 for t in edit.changes.values())


MANY = MATERIAL._replace(concepts=["bell", "key"])


def test_the_last_state_is_that_of_a_name_or_of_the_last_word(pipeline):
    states = pipeline.embed(["a bell in Noto"])[0].double()
    tokens = pipeline.pipe.tokenizer("a bell", add_special_tokens=False).input_ids
    assert torch.equal(oce.last_states(pipeline, ["a bell in Noto"], ["bell"])[0], states[len(tokens)])
    whole = pipeline.pipe.tokenizer("a bell in Noto", add_special_tokens=False).input_ids
    assert torch.equal(oce.last_states(pipeline, ["a bell in Noto"])[0], states[len(whole)])
    assert torch.equal(oce.last_states(pipeline, ["a bell in Noto."])[0], pipeline.embed(["a bell in Noto."])[0][len(whole)])


@pytest.mark.parametrize("weight", [1.0, 1e4])
def test_several_concepts_are_turned_and_lengths_are_kept(pipeline, weight):
    (edit,) = oce.several(pipeline, MANY, weight)
    for name, change in edit.changes.items():
        w = pipeline.tensors[name].double()
        moved = w + change.double()
        assert torch.allclose(moved.T @ moved, w.T @ w, atol=1e-5), name


def test_a_basis_is_orthonormal_and_spans_the_columns():
    columns = torch.cat([draw(5, 2), draw(5, 2) @ draw(2, 1, seed=3)], 1)
    found = oce.basis(columns)
    assert found.shape == (5, 2) and torch.allclose(found.T @ found, torch.eye(2).double(), atol=1e-10)
    assert torch.allclose(found @ found.T @ columns, columns, atol=1e-10)
