"""Checks that reuse changes nothing, for tests of tiny models and of architectures at true size."""

import torch
from clip_world import random_edit
from PIL import Image
from tiny import same_tensors

from slug.models import towers

TEXTS = ["a", "alien monster.", "a photo of a bento box on a plain background", "2nd place medal"]


def whole(clip, encoder, inputs):
    """Unit features by the library's own forward pass."""
    with torch.no_grad():
        if encoder == "vision":
            return clip.unit(clip.whole_image(clip.normalise(inputs)))
        return clip.unit(clip.whole_text(inputs))


def inputs_of(clip, n=4):
    size = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g)
    return {"vision": images, "language": clip.tokenize(TEXTS[:n])}


def check_every_stage(clip, per_stage=1):
    """For `per_stage` layers of every stage of both towers: an edit resumed from kept activations gives what the library's
    whole forward pass gives, to 1e-5, and so does the next edit of another stage. Returns {encoder: stages edited}."""
    found, inputs = {}, inputs_of(clip)
    for encoder, x in inputs.items():
        tower = towers.Tower(clip, encoder, x, batch_size=3, budget=towers.Budget(1.0, clip.device))
        assert (tower.fill() - whole(clip, encoder, x)).abs().max() < 1e-5
        assert set(tower.kept) == set(range(1, len(tower.stages)))
        names = [n for n, e in clip.candidates().items() if e == encoder]
        by_stage = {}
        for name in names:
            by_stage.setdefault(clip.stage(name), []).append(name)
        for stage, members in sorted(by_stage.items(), reverse=True):
            assert stage < len(tower.stages)
            for name in members[:: max(1, len(members) // per_stage)][:per_stage]:
                with random_edit(clip, name).applied(clip):
                    wanted = whole(clip, encoder, x)
                    for start in {stage, 0}:
                        assert (tower.features(start=start) - wanted).abs().max() < 1e-5, (name, start)
                    some = tower.features(torch.tensor([3, 0]), stage)
                    assert (some - wanted[[3, 0]]).abs().max() < 1e-5
        assert (tower.features(start=len(tower.stages) - 1) - whole(clip, encoder, x)).abs().max() < 1e-5
        found[encoder] = sorted(by_stage)
    return found


def check_steps_in_one_pass(clip, layers_per_tower):
    """Features under several steps of a layer's edit, in one pass, are those under each step by itself; the model's own
    weights stay."""
    inputs, before = inputs_of(clip), {n: p.detach().clone() for n, p in clip.parameters.items()}
    for encoder, x in inputs.items():
        tower = towers.Tower(clip, encoder, x, batch_size=3, budget=towers.Budget(1.0, clip.device))
        tower.fill()
        names = [n for n, e in clip.candidates().items() if e == encoder]
        for name in names[:: max(1, len(names) // layers_per_tower)]:
            edit, steps, rows = random_edit(clip, name), [0.5, -1.0, 2.0], torch.tensor([3, 0, 1])
            together = tower.features(rows, clip.stage(name), edit=edit.changes, steps=steps)
            assert together.shape[:2] == (3, 3)
            for step, found in zip(steps, together.unbind(1), strict=True):
                with edit.scaled(step).applied(clip):
                    assert (found - tower.features(rows, clip.stage(name))).abs().max() < 1e-5, (name, step)
    assert same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)
