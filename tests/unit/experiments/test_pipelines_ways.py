"""Ways to forget several concepts of a pipeline at once."""

import contextlib
import math

import pandas as pd
import pytest
import torch
from tiny_canvas import OBJECTS, STYLES

from slug.core.edit import Edit, total
from slug.core.selection import Candidate
from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.evaluation.canvas_prompts import Concept
from slug.experiments import pipelines_joint, pipelines_ways

ASKED = canvas_prompts.requests(STYLES, OBJECTS, test=[0], validation=[1000])
A, B, C = Concept("style", "Noto"), Concept("object", "palm tree"), Concept("object", "bell")


def rows_of(*rows):
    """A search's candidates: (layer, step, UA, IRA and CRA, kept)."""
    keys = ("layer", "step", "UA", "IRA", "CRA", "kept")
    return pd.DataFrame([dict(zip(keys, (*r[:4], r[3], r[4]), strict=True)) | {"wanted": 0.9} for r in rows])


def test_the_best_kept_candidate_of_each_layer_counts():
    steps = rows_of(
        (None, 0, 0.0, 1.0, True),
        ("a", 1, 0.5, 1.0, True),
        ("a", 2, 0.95, 0.9, True),
        ("a", 3, 1.0, 0.8, True),  # as much as is wanted, and retains less
        ("b", 1, 1.0, 0.5, False),
        ("c", 1, 0.95, 0.99, True),
    )
    found = pipelines_ways.layer_choices(steps)
    assert [(r["layer"], r["step"]) for r in found] == [("c", 1), ("a", 2)]


def choice(layer, reaches, retains=1.0):
    return {"layer": layer, "step": 1.0, "reaches": reaches, "retains": retains}


def test_no_two_concepts_move_a_tensor_in_common():
    choices = {A: [choice("q", 0.9), choice("fc", 0.8)], B: [choice("q", 0.9), choice("k", 0.9, 0.5), choice("out", 0.1)]}
    tensors = {(c, r["layer"]): frozenset({r["layer"]}) for c, rows in choices.items() for r in rows}
    tensors[A, "q"] = tensors[B, "q"] = frozenset({"q", "k"})  # a group that moves together
    tensors[B, "k"] = frozenset({"k"})
    found = [tuple(r["layer"] for r in rows) for rows in pipelines_ways.assignments(choices, tensors)]
    assert found == [("fc", "q"), ("fc", "k"), ("q", "out"), ("fc", "out")]  # the best of both first
    assert pipelines_ways.assignments({A: choices[A][:1], B: choices[B][:1]}, tensors) == []


@pytest.mark.parametrize(
    ("group", "request_of", "prompt"),
    [
        ([A], 0, "An bell image."),
        ([A, C], 0, "An image."),
        ([C, A], 0, "An image."),
        ([A, B], 1, "An key image."),
        ([C], 0, "An image in Noto style."),
    ],
)
def test_a_neutral_prompt_shows_no_concept_of_the_group(group, request_of, prompt):
    asked = canvas_prompts.requests(STYLES, OBJECTS, test=[0], validation=[])
    assert pipelines_ways.neutral(asked[request_of], group) == prompt


def test_a_part_reverts_alone():
    parts = {c: Edit({"w": torch.full((2, 2), 0.1 * i)}, "w", 1.0) for i, c in enumerate((A, B, C), 1)}
    trial = pipelines_ways.Trial.of("", parts)
    assert torch.equal(trial.without(B).changes["w"], total([parts[A], parts[C]]).changes["w"])
    grown = trial.scaled([B], 2.0)
    assert torch.equal(grown.parts[B].changes["w"], 2 * parts[B].changes["w"])
    assert torch.equal(grown.without(B).changes["w"], trial.without(B).changes["w"])


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("weight", [1.0, 50.0])
def test_the_sum_of_parts_is_the_least_squares_solution(axis, weight):
    """Against the gradient of the stated loss, which is 0 at its minimum."""
    size, out = 6, 4
    inputs = [draw(9, size, seed=k) for k in range(4)]  # retained, prompts of others, two concepts
    moments = [x.T @ x / len(x) for x in inputs]
    changes = [draw(out, size, seed=10 + k) for k in range(2)]
    given = [c if axis == 1 else c.T for c in changes]
    how = (moments, axis, weight)
    parts = [pipelines_joint._part(c.float(), k, *how).double() for k, c in enumerate(given)]
    whole = sum(parts) if axis == 1 else sum(parts).T
    ridge = pipelines_joint.preconditioning.DAMPING * (moments[0] + pipelines_joint.PROMPTS * moments[1]).diagonal().mean()
    x = whole.clone().requires_grad_(True)
    kept = moments[0] + pipelines_joint.PROMPTS * moments[1]
    loss = ((x @ kept) * x).sum() + ridge * x.square().sum()
    for moment, change in zip(moments[2:], changes, strict=True):
        loss = loss + weight * (((x - change) @ moment) * (x - change)).sum()
    loss.backward()
    assert x.grad.norm() < 1e-5 * loss.item()


def test_a_heavy_weight_gives_every_concept_its_own_edit_and_leaves_the_others():
    """Where the concepts read different directions, D does to each what its own edit does."""
    eye = torch.eye(4, dtype=torch.float64)
    moments = [1e-3 * eye, 0 * eye, torch.diag(eye[0]), torch.diag(eye[1])]
    changes = [draw(3, 4, seed=k) for k in range(2)]
    parts = [pipelines_joint._part(c.float(), k, moments, 1, 1e6).double() for k, c in enumerate(changes)]
    whole = sum(parts)
    for k, change in enumerate(changes):
        assert torch.allclose(whole[:, k], change[:, k], atol=1e-5)
        assert torch.allclose(parts[k][:, 1 - k], torch.zeros(3, dtype=torch.float64), atol=1e-6)
    assert not math.isnan(whole.sum().item())


@pytest.fixture
def made():
    """Ways without a pipeline."""
    found = object.__new__(pipelines_ways.Ways)
    found.wanted, found.records, found.method = 0.9, {c: {} for c in (A, B)}, "slug"
    found.edits = {c: Edit({"w": torch.ones(2)}, "w", 1.0) for c in (A, B)}
    return found


@pytest.mark.parametrize(("taken", "count"), [([], 1), ([0], 2), ([0, 1], 3), ([0, 1, 2, 3], 4)])
def test_longer_parts_are_tried_as_long_as_they_are_better(made, monkeypatch, taken, count):
    """What was tried once and not kept is not tried again.

    Args:
        taken: which of the longer ones are better than all before.
    """

    class System:
        def __init__(self, *_):
            pass

        def parts(self, edits, _):
            return edits

    made.canvas = None
    monkeypatch.setattr(pipelines_joint, "gradient_files", lambda *_: None)
    monkeypatch.setattr(pipelines_joint, "JointSystem", System)
    scores = {pipelines_ways.column(A): 0.5, pipelines_ways.column(B): 1.0}
    best, longer = [], -1
    for trial in made.trials("joint", [A, B], lambda: best[0] if best else None):
        longer += "x 1.5" in trial.setting
        if not best or longer in taken:
            best[:] = [(trial, Candidate(trial.edit, scores, False, 0.0, 1.0, None))]
    assert longer + 1 == count


def test_a_choice_says_which_concepts_it_does_not_forget(made):
    row = {"setting": "weight 10", pipelines_ways.column(A): 0.9, pipelines_ways.column(B): 0.6}
    assert made._fails("weight 10", [{"setting": "x"}, row], [A, B]) == {
        B: "not forgotten on the validation split: UA 60%, where 90% is asked for"
    }
    assert set(made._fails(pipelines_ways.NOTHING, [row], [A, B])) == {A, B}


@pytest.mark.parametrize(
    ("method", "ways", "refused"),
    [
        ("slug_ws", ("sum", "joint", "assigned", "uce"), False),
        ("slug_w_rounds", ("sum", "joint"), False),
        ("slug_w_rounds", ("assigned",), True),
        ("speed", ("sum", "uce"), False),
        ("speed", ("sum", "joint"), True),
    ],
)
def test_ways_ask_for_what_a_method_has(method, ways, refused):
    with pytest.raises(SlugError, match="single steps") if refused else contextlib.nullcontext():
        pipelines_ways.check(ways, method)


@pytest.mark.parametrize("clip", ["hugging_face"], indirect=True)
def test_a_moment_is_a_mean_over_tokens_in_whatever_order_the_captions_come(clip):
    """These tokenizers pad to the longest of a set, which need not be the first."""
    captions = ["ant", "a photo of the big bento box and the ant"]
    system = object.__new__(pipelines_joint.JointSystem)
    system.clip, system.how = clip, {"batch_size": 4, "encoder": "language", "padded": True}
    system.sets = [pipelines_joint._prompts(part) for part in (captions, captions[::-1])]
    name = next(n for n in clip.candidates() if "text_model" in n and "fc1" in n)
    (one, other), _ = system.moments([name])[name]
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
