"""Checks that reuse changes nothing, for tests of tiny models and of architectures at true size."""

import pytest
import torch
from PIL import Image
from tiny import same_tensors

from slug.core.edit import applied
from slug.data.evaluation_sets import PictureSet
from slug.data.images import decode
from slug.data.pairs import Pairs
from slug.evaluation import clip_judge, clip_tasks, reference
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


def random_edit(clip, name, seed=0):
    """A change of a layer's group that is 30% of its weights' norm."""
    g = torch.Generator().manual_seed(seed)
    made = {}
    for n in clip.group(name):
        noise = torch.randn(clip.parameters[n].shape, generator=g)
        made[n] = 0.3 * clip.parameters[n].norm() / noise.norm() * noise
    return made


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
                with applied(clip, random_edit(clip, name)):
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
            together = tower.features(rows, clip.stage(name), edit=edit, steps=steps)
            assert together.shape[:2] == (3, 3)
            for step, found in zip(steps, together.unbind(1), strict=True):
                with applied(clip, {n: step * t for n, t in edit.items()}):
                    assert (found - tower.features(rows, clip.stage(name))).abs().max() < 1e-5, (name, step)
    assert same_tensors({n: p.detach() for n, p in clip.parameters.items()}, before)


class Both:
    """One model, one small evaluation of its own pictures, judged by the fast and by the plain way."""

    def __init__(self, clip, folder, classes=6, each=2):
        size = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
        g = torch.Generator().manual_seed(1)
        sets = []
        for task in ("identities", "objects"):
            names, paths = [f"{task} thing {i}" for i in range(classes)], []
            for i in range(classes * each):
                paths.append(folder / f"{task}-{i}.png")
                noise = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=g)
                Image.fromarray(noise.numpy()).save(paths[-1])
            paths = [str(p) for p in paths]
            images, _ = decode(paths, clip.transform)
            labels, seen = torch.arange(classes).repeat_interleave(each), torch.ones(classes * each, dtype=torch.bool)
            sets.append(PictureSet(images, labels, names, torch.zeros(classes), paths, seen, 0, tuple(paths)))
        self.clip, split = clip, {t: torch.ones(classes * each, dtype=torch.bool) for t in ("identities", "objects")}
        self.evaluations = [clip_tasks.Evaluation(clip, *sets), reference.PlainEvaluation(clip, *sets)]
        self.target = self.evaluations[0].target("identities thing 0")
        pairs = Pairs(sets[0].images[:each], sets[0].names[:1] * each, ["0"] * each, 0)
        self.judges = [clip_judge.Judge(clip, e, self.target, pairs, split) for e in self.evaluations]

    def walk(self, layer, count):
        """`count` steps of a layer, both ways: cosines agree to 1e-5, top-5 predictions too but at ties within that."""
        group = self.clip.group(layer)
        edit = random_edit(self.clip, layer)
        for n in range(1, count + 1):
            rows = []
            for evaluation, judge in zip(self.evaluations, self.judges, strict=True):
                with evaluation.applied({p: n * t / count for p, t in edit.items()}), evaluation.same_weights():
                    sides = {
                        t: evaluation.sides(t, torch.arange(len(k.features)), layer) for t, k in evaluation.tasks.items()
                    }
                    rows.append((judge.step(layer, float(n), layer, log_all=True), sides))
            assert set(group) == set(edit)
            (fast, a), (slow, b) = rows
            for task in a:
                cosines = [(features @ weights.T).cpu() for features, weights in (a[task], b[task])]
                assert (cosines[0] - cosines[1]).abs().max() < 1e-5
                top = [c.topk(5).values for c in cosines]
                assert (top[0] - top[1]).abs().max() < 1e-5
                near = (top[1].diff(dim=1).abs() < 2e-5).any(1)
                same = (cosines[0].topk(5).indices == cosines[1].topk(5).indices).all(1)
                assert (same | near).all()
            if not near.any():
                assert fast[2:-1] == pytest.approx(slow[2:-1], abs=1e-4, nan_ok=True)
