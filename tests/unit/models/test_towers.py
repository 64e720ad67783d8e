"""Towers: features that reuse kept inputs of stages equal those of the library's whole forward pass."""

import pytest
import torch
from clip_world import random_edit
from reuse import TEXTS, check_every_stage, check_steps_in_one_pass, inputs_of, whole

from slug import system
from slug.models import towers
from slug.models.clip import Clip


def test_an_edit_of_any_layer_resumes_at_its_stage(clip):
    """All layers of the tiny models of both families. Embedding, two blocks and the head are four stages."""
    found = check_every_stage(clip, per_stage=100)
    assert found == {"vision": [0, 1, 2, 3], "language": [1, 2, 3]}  # text embeddings are never edited


def test_what_enters_a_stage_does_not_depend_on_its_parameters(clip):
    """`stage` names the first stage that reads a parameter; with an earlier one, reuse would save less than it can."""
    for encoder, x in inputs_of(clip).items():
        for name in (n for n, e in clip.candidates().items() if e == encoder):
            stages = clip.stages(encoder)
            with torch.no_grad():
                before = towers.run(stages[: clip.stage(name)], x, x)
                with random_edit(clip, name).applied(clip):
                    assert torch.equal(towers.run(stages[: clip.stage(name)], x, x), before)
                    after = towers.run(stages[: clip.stage(name) + 1], x, x)
                assert not torch.equal(after, towers.run(stages[: clip.stage(name) + 1], x, x))


@pytest.mark.parametrize(("sizes", "most"), [(1.0, 1), (1.5, 2)])
def test_the_budget_bounds_what_is_kept(clip, capfd, sizes, most):
    """A budget of so many times the inputs of stage 1 (those of stage 3, the pooled tokens, are smaller)."""
    x = inputs_of(clip)["vision"]
    free = towers.Tower(clip, "vision", x, budget=towers.Budget(1.0, clip.device))
    wanted, size = free.fill(), free._size(1)
    budget = towers.Budget(int(sizes * size) / 2**30, clip.device)
    tower = towers.Tower(clip, "vision", x, batch_size=2, budget=budget)
    tower.fill()
    for stage in (3, 1, 2, 3, 1):
        assert (tower.features(start=stage) - wanted).abs().max() < 1e-6
        assert budget.left >= 0 and sum(tower._size(s) for s in tower.kept) == budget.total - budget.left
        assert len(tower.kept) <= most
        assert stage in tower.kept  # the one in use has the room
    assert "--cache-gb" in capfd.readouterr().out


def test_towers_with_one_budget_all_keep_their_deepest_stages(clip):
    """A budget of three quarters of all inputs of stages leaves out shallow ones, whichever tower came first."""
    x, budget = inputs_of(clip)["vision"], towers.Budget(1.0, clip.device)
    several = [towers.Tower(clip, "vision", part, budget=budget) for part in (x, x[:2])]
    towers.reserve(several)
    used = budget.total - budget.left
    budget = towers.Budget(0.75 * used / 2**30, clip.device)
    several = [towers.Tower(clip, "vision", part, budget=budget) for part in (x, x[:2])]
    towers.reserve(several)
    for tower in several:
        wanted = tower.fill()
        assert {2, 3} <= set(tower.kept) and (tower.features(start=2) - wanted).abs().max() < 1e-6
    assert budget.left >= 0 and sum(1 in tower.kept for tower in several) < 2


def test_without_a_budget_nothing_is_kept(clip):
    x = inputs_of(clip)["vision"]
    wanted = towers.Tower(clip, "vision", x, budget=towers.Budget(1.0, clip.device)).fill()
    none = towers.Tower(clip, "vision", x, budget=towers.Budget(0.0, clip.device))
    assert torch.equal(none.fill(), wanted) and (none.features(start=2) - wanted).abs().max() < 1e-6 and not none.kept


def test_the_default_budget_is_a_quarter_of_the_free_memory():
    free = system.free_memory(torch.device("cpu"))
    assert free > 2**28
    assert towers.Budget(-1, torch.device("cpu")).total == pytest.approx(free / 4, rel=0.2)


def test_a_text_is_never_padded_where_the_tower_is_causal(clip):
    tower = towers.Tower(clip, "language", clip.tokenize(TEXTS))
    lengths = clip.text_lengths(clip.tokenize(TEXTS))
    assert len(tower.groups) == len(set(lengths.tolist()))
    for rows, tokens in tower.groups:
        assert (lengths[rows] == tokens.shape[1]).all()


def test_a_tower_of_unknown_structure_is_one_stage(clip, monkeypatch):
    """Its only stage is the library's forward pass, and no text is cut."""
    for name in ("stages", "stage", "text_lengths", "prefix_stages"):
        monkeypatch.setattr(type(clip), name, getattr(Clip, name))
    for encoder, x in inputs_of(clip).items():
        tower = towers.Tower(clip, encoder, x, budget=towers.Budget(1.0, clip.device))
        assert len(tower.stages) == 1 and torch.equal(tower.fill(), whole(clip, encoder, x)) and not tower.kept
        assert len(tower.groups) == 1


def test_many_steps_go_through_in_one_pass(clip):
    check_steps_in_one_pass(clip, layers_per_tower=100)


def test_processes_share_the_inputs_and_each_has_all_features(clip, monkeypatch):
    """Each computes its inputs only; the sum over processes is the whole."""
    x = inputs_of(clip)["vision"]
    wanted = towers.Tower(clip, "vision", x).features()
    parts = []
    monkeypatch.setattr(towers.distributed, "add_up", lambda tensor: parts.append(tensor.clone()))
    monkeypatch.setattr(towers.distributed, "largest", lambda number, device: wanted.shape[1])
    for rank in range(5):  # the fifth process has none of the four inputs
        monkeypatch.setattr(towers.distributed, "mine", lambda rank=rank: (rank, 5))
        towers.Tower(clip, "vision", x).features()
    assert torch.allclose(sum(parts), wanted, atol=1e-6)
    assert [int(p.any(dim=1).sum()) for p in parts] == [1, 1, 1, 1, 0]


def test_operations_are_those_of_the_stages_that_ran(clip):
    """Twice the inputs take twice the operations, and resuming at the last stage adds little."""
    x = inputs_of(clip)["vision"]
    tower = towers.Tower(clip, "vision", x, budget=towers.Budget(1.0, clip.device))
    tower.fill()
    once = tower.floating_operations()
    tower.features(start=len(tower.stages) - 1)
    assert once < tower.floating_operations() < 1.1 * once
    two = towers.Tower(clip, "vision", torch.cat([x, x]))
    two.features()
    assert two.floating_operations() == 2 * once
