"""The tasks of a CLIP under an edit: what is reused gives the answers of a model built anew."""

import itertools

import pytest
import torch
from clip_world import Both, random_edit

from slug.core.edit import Edit, InPlace
from slug.errors import SlugError
from slug.evaluation import zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Task
from slug.models import towers

LAYERS = {  # open_clip -> Hugging Face
    "visual.proj": "visual_projection.weight",
    "visual.transformer.resblocks.1.mlp.c_fc.weight": "vision_model.encoder.layers.1.mlp.fc1.weight",
    "visual.transformer.resblocks.0.attn.in_proj_weight": "vision_model.encoder.layers.0.self_attn.v_proj.weight",
    "text_projection": "text_projection.weight",
}


def all_rows(world, task):
    return torch.arange(len(world.evaluation.tasks[task].pictures.labels))


def test_the_taught_model_knows_its_world(world):
    for task in world.evaluation.tasks:
        assert zeroshot.accuracies(world.evaluation.ranks(task, all_rows(world, task)))[0] > 0.9


@pytest.fixture(params=LAYERS)
def edit(request, world):
    """A strong edit of one layer of the world's model."""
    layer = request.param if world.clip.family != "hf" else LAYERS[request.param]
    return world.edit(layer, 3.0)


@pytest.fixture
def anew(world, edit):
    """An Evaluation whose unedited model is the edited one."""
    with edit.applied(world.clip):
        return world.evaluation_now()


def test_an_edit_has_the_ranks_of_a_model_built_anew(world, edit, anew):
    for task in world.evaluation.tasks:
        rows = all_rows(world, task)
        with world.evaluation.carrying(edit):
            world.evaluation.ranks(task, rows[::3])  # some pictures are known by now, others are not
            found = world.evaluation.ranks(task, rows)
        assert torch.equal(found, anew.ranks(task, rows))
        assert not torch.equal(found, world.evaluation.ranks(task, rows))  # the edit changes something


def test_an_edit_in_place_has_the_ranks_of_a_model_built_anew(world, edit, anew):
    with edit.applied(world.clip), world.evaluation.carrying(InPlace.of(world.clip, "lr 0.1", 1)):
        for task in world.evaluation.tasks:
            rows = all_rows(world, task)
            assert torch.equal(world.evaluation.ranks(task, rows), anew.ranks(task, rows))


def test_an_edit_has_the_scores_of_a_model_built_anew(world, edit, anew):
    found = world.evaluator().score(edit, log_all=True)
    with edit.applied(world.clip):
        wanted = ClipEvaluator(anew, world.target, world.pairs, world.masks, seed=0).score(Edit(), log_all=True)
    for column, value in found.scores.items():
        if column != "seconds":
            assert value == pytest.approx(wanted.scores[column], abs=1e-5, nan_ok=True), column


def test_several_steps_in_one_pass_are_judged_as_one_by_one(world, edit):
    rows, steps = world.evaluator().forget_rows, [0.5, -1.0, 2.0]
    together = world.evaluation.forget_under_steps(world.target, rows, edit, steps)
    for step, (ranks, margins) in zip(steps, together, strict=True):
        with world.evaluation.carrying(edit.scaled(step)):
            wanted_ranks, wanted_margins = world.evaluation.forget(world.target, rows)
        assert torch.equal(ranks, wanted_ranks) and (margins - wanted_margins).abs().max() < 1e-5


def test_after_an_edit_the_model_is_as_it_was(open_clip_world):
    world = open_clip_world
    before = {n: p.clone() for n, p in world.clip.parameters.items()}
    with pytest.raises(KeyboardInterrupt), world.evaluation.carrying(world.edit("visual.proj", 3.0)):
        raise KeyboardInterrupt
    assert all(torch.equal(p, before[n]) for n, p in world.clip.parameters.items())
    assert world.evaluation.edit is None


@pytest.fixture
def towers_asked(monkeypatch):
    """The towers whose features are computed, one entry for each time."""
    asked, features = [], towers.Tower.features
    monkeypatch.setattr(
        towers.Tower, "features", lambda self, *a, **k: asked.append(self.encoder) or features(self, *a, **k)
    )
    return asked


def language_edit(clip):
    return random_edit(clip, next(n for n, e in clip.candidates().items() if e == "language"))


def test_what_evaluators_ask_of_one_edit_is_computed_once(clip, tmp_path, towers_asked):
    evaluation, edit, rows = Both(clip, tmp_path).evaluations[0], language_edit(clip), torch.arange(4)
    towers_asked.clear()
    with evaluation.carrying(edit):
        first = evaluation.sides("objects", rows)[1]
        with evaluation.carrying(edit):
            assert torch.equal(evaluation.sides("objects", rows)[1], first)
    assert towers_asked == ["language"]


def test_nothing_is_remembered_from_one_edit_to_the_next(clip, tmp_path, towers_asked):
    evaluation, edit, rows = Both(clip, tmp_path).evaluations[0], language_edit(clip), torch.arange(4)
    towers_asked.clear()
    for _ in range(2):
        with evaluation.carrying(edit):
            evaluation.sides("objects", rows)
    assert towers_asked == ["language", "language"]


@pytest.mark.parametrize("same", [True, False])
def test_a_low_precision_is_used_only_where_it_changes_no_answer(clip, tmp_path, monkeypatch, capfd, same):
    answers = itertools.repeat(0) if same else itertools.count()
    guessed = property(lambda task: torch.full((len(task.features),), next(answers)))
    monkeypatch.setattr(Task, "guessed", guessed)
    clip.autocast = torch.bfloat16
    task = Both(clip, tmp_path).evaluations[0].tasks["objects"]
    assert clip.autocast == (torch.bfloat16 if same else None)
    assert ("24 of 24 top-1 answers; evaluations are in float32" in capfd.readouterr().out) != same
    with torch.no_grad():
        exact = (task.features - clip.encode_image(task.pictures.images)).abs().max()
    assert 1e-4 < exact < 0.05 if same else exact < 1e-6


def test_a_target_is_found_in_any_spelling(open_clip_world):
    evaluation = open_clip_world.evaluation
    assert evaluation.target("BENTO_box") == ("BENTO box", "object", "objects", 6)
    assert evaluation.target("Alien_Monster").label != open_clip_world.target.label


def test_a_name_nobody_has_is_refused(open_clip_world):
    with pytest.raises(SlugError, match="no identity and no object of the evaluation is called 'Nobody Atall'"):
        open_clip_world.evaluation.target("Nobody_Atall")


def test_pictures_of_no_task_have_their_features_and_do_not_pile_up(world, edit):
    """Those of the last ones are held; the share of the budget of the others is given back."""
    evaluation, left = world.evaluation_now(), []
    pictures = next(iter(evaluation.tasks.values())).pictures.images
    for images in [pictures[i : i + 3].clone() for i in (0, 1, 2)]:
        before = evaluation.features_of(images)
        with edit.applied(world.clip):
            wanted = zeroshot.image_features(world.clip, images)
        with evaluation.carrying(edit):
            assert torch.allclose(evaluation.features_of(images), wanted, atol=1e-5)
        assert torch.equal(evaluation.features_of(images), before)
        left.append(evaluation._budget.left)
    assert len(evaluation._others) == 1 and len(set(left)) == 1
