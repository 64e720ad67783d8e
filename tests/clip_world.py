"""Small evaluations of a CLIP, shared by the tests of what scores and searches edits."""

import tiny
import torch
from PIL import Image

from slug.core import gradients, layers, losses
from slug.core.edit import Edit
from slug.core.search import Plan, Schedule
from slug.core.slug import over_layers
from slug.data import evaluation_sets
from slug.data.evaluation_sets import PictureSet
from slug.data.images import decode
from slug.data.pairs import Pairs
from slug.data.splits import validation_mask
from slug.evaluation import reference, zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, TaskSet

NAME = "alien"


class World:
    """The tiny world as a model of one family sees it, with the forget gradient of NAME."""

    def __init__(self, taught, world, family):
        self.clip = tiny.load(taught, family)
        identities = evaluation_sets.load_celeba(world / "celeba", self.clip.transform)
        objects = evaluation_sets.load_imagenet(world / "ImageNet" / "val", self.clip.transform)
        self.sets = [
            TaskSet("identities", "identity", identities, zeroshot.IDENTITY_TEMPLATES),
            TaskSet("objects", "object", objects, zeroshot.object_templates()),
        ]
        self.evaluation = self.evaluation_now()
        self.target = self.evaluation.target(NAME)
        self.masks = {s.name: validation_mask(s.pictures, 0) for s in self.sets}
        rows = self.evaluation.rows("identities", label=self.target.label)
        self.pairs = Pairs(identities.images[rows], [NAME] * len(rows), [str(i) for i in rows], 0)
        self.forget, _ = gradients.compute(self.clip, self.pairs, losses.cosine_embedding)
        self.retain, _ = gradients.compute(self.clip, tiny.pairs(16), losses.contrastive)

    def evaluation_now(self, sets=None):
        """An Evaluation whose unedited model has the present weights."""
        return Evaluation(self.clip, sets or self.sets, batch_size=64)

    def evaluator(self, masks=None, evaluation=None, **more):
        """A ClipEvaluator of NAME, on the validation split where no masks are given."""
        evaluation = evaluation or self.evaluation
        return ClipEvaluator(evaluation, self.target, self.pairs, masks or self.masks, seed=0, **more)

    def edit(self, layer, relative=0.3):
        """A step on a layer's group, `relative` times as large as its weights."""
        group = self.clip.group(layer)
        first = layers.first_step([self.clip.parameters[n] for n in group], [self.forget[n] for n in group])
        return Edit.along(self.clip, layer, self.forget, 10 * relative * first)

    def with_noise(self, split):
        """The world's sets with noise instead of the pictures of one split, "validation" or "test"."""
        sets = []
        for part, mask in zip(self.sets, self.masks.values(), strict=True):
            images, g = part.pictures.images.clone(), torch.Generator().manual_seed(0)
            hit = mask if split == "validation" else ~mask
            images[hit] = torch.randint(0, 256, images[hit].shape, dtype=torch.uint8, generator=g)
            sets.append(part._replace(pictures=part.pictures._replace(images=images)))
        return sets

    def searched(self, sets=None):
        """What the search of some layers of both fronts finds on the validation split of `sets`."""
        evaluator = self.evaluator(evaluation=self.evaluation_now(sets), limit=20)
        fronts = layers.fronts(layers.figures(self.clip, self.forget, self.retain))
        front = [*fronts["vision"][:2], *fronts["language"][:2]]
        return over_layers(self.clip, evaluator, front, self.forget, Plan(schedule=Schedule(evaluations=5)))


def random_edit(clip, layer, relative=0.3, seed=0):
    """A random change of a layer's group, `relative` times as large as the weights."""
    g = torch.Generator().manual_seed(seed)
    changes = {}
    for n in clip.group(layer):
        noise = torch.randn(clip.parameters[n].shape, generator=g)
        changes[n] = relative * clip.parameters[n].norm() / noise.norm() * noise
    return Edit(changes, layer, 1.0)


class Both:
    """One model, one small evaluation on pictures of noise, and an evaluator of the fast and of the plain way."""

    def __init__(self, clip, folder, classes=6, each=2):
        size = clip.transform(Image.new("RGB", (8, 8))).shape[-1]
        g = torch.Generator().manual_seed(1)
        sets = []
        for task, kind, templates in (
            ("identities", "identity", zeroshot.IDENTITY_TEMPLATES),
            ("objects", "object", zeroshot.object_templates()),
        ):
            names, paths = [f"{task} thing {i}" for i in range(classes)], []
            for i in range(classes * each):
                paths.append(folder / f"{task}-{i}.png")
                noise = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=g)
                Image.fromarray(noise.numpy()).save(paths[-1])
            paths = [str(p) for p in paths]
            images, _ = decode(paths, clip.transform)
            labels, seen = torch.arange(classes).repeat_interleave(each), torch.ones(classes * each, dtype=torch.bool)
            pictures = PictureSet(images, labels, names, torch.zeros(classes), paths, seen, 0, tuple(paths))
            sets.append(TaskSet(task, kind, pictures, templates))
        self.clip, masks = clip, {s.name: torch.ones(classes * each, dtype=torch.bool) for s in sets}
        self.evaluations = [Evaluation(clip, sets), reference.PlainEvaluation(clip, sets)]
        self.target = self.evaluations[0].target("identities thing 0")
        first = sets[0].pictures
        pairs = Pairs(first.images[:each], first.names[:1] * each, ["0"] * each, 0)
        self.evaluators = [ClipEvaluator(e, self.target, pairs, masks) for e in self.evaluations]

    def search(self, chosen, which=0, **plan):
        """What a search of the layers `chosen` along random directions finds, by the fast way (0) or the plain way (1)."""
        front = [layers.Layer(n, self.clip.tower(n), 1.0, 0.0) for n in chosen]
        forget = {n: t for layer in chosen for n, t in random_edit(self.clip, layer).changes.items()}
        return over_layers(self.clip, self.evaluators[which], front, forget, Plan(**plan))

    def walk(self, layer, count):
        """Take `count` steps of a layer both ways: cosines agree to 1e-5, and so do top-5 predictions but at ties."""
        edit = random_edit(self.clip, layer)
        for n in range(1, count + 1):
            scaled, found = edit.scaled(n / count), []
            for evaluation, evaluator in zip(self.evaluations, self.evaluators, strict=True):
                with evaluation.carrying(scaled):
                    sides = {t: evaluation.sides(t, torch.arange(len(k.features))) for t, k in evaluation.tasks.items()}
                    found.append((evaluator.score(scaled, log_all=True), sides))
            (fast, a), (slow, b) = found
            near = torch.zeros(1, dtype=torch.bool)
            for task in a:
                cosines = [(features @ weights.T).cpu() for features, weights in (a[task], b[task])]
                assert (cosines[0] - cosines[1]).abs().max() < 1e-5
                top = [c.topk(5).values for c in cosines]
                assert (top[0] - top[1]).abs().max() < 1e-5
                near = (top[1].diff(dim=1).abs() < 2e-5).any(1)
                same = (cosines[0].topk(5).indices == cosines[1].topk(5).indices).all(1)
                assert (same | near).all()
            if not near.any():
                assert without_time(fast.scores) == tiny_approx(without_time(slow.scores))


def without_time(scores):
    """Scores without their seconds."""
    return {k: v for k, v in scores.items() if k != "seconds"}


def tiny_approx(scores, tolerance=1e-4):
    """Scores to compare with up to rounding."""
    import pytest

    return pytest.approx(scores, abs=tolerance, nan_ok=True)
