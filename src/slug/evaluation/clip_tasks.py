"""The zero-shot tasks that edits of a CLIP are judged by, with exact reuse of what an edit leaves alone."""

import contextlib
from typing import NamedTuple

import torch
from tqdm import tqdm

from slug.core.edit import applied
from slug.core.gradients import BOTH
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation.zeroshot import (
    IDENTITY_TEMPLATES,
    guesses,
    margins,
    mean_prompts,
    object_templates,
    prompts,
    ranks,
)
from slug.models import towers


class Task(NamedTuple):
    """One zero-shot task: its pictures, templates, and the unedited model's two sides of it."""

    pictures: object  # data.PictureSet
    templates: tuple[str, ...]
    vision: towers.Tower  # of the pictures
    language: towers.Tower  # of all names in all templates
    features: torch.Tensor  # (N, D)
    weights: torch.Tensor  # (C, D)
    margins: torch.Tensor  # (N,)


def guessed(task):
    """(N,) index of the class that the unedited model takes each picture of a Task for."""
    return guesses(task.features, task.weights, task.pictures.labels, task.pictures.blocks)


class Target(NamedTuple):
    """What is to be forgotten."""

    name: str
    kind: str  # identity or object
    task: str  # identities or objects
    label: int


class Evaluation:
    """Identities and objects, and what an edit does to them.

    What an edit leaves alone is not computed again: a vision edit reuses the text classifiers, a language edit the
    picture features, and either what enters the stage it edits (exact; tested against the plain way).
    """

    def __init__(self, clip, identities, objects, *, batch_size=256, cache_gb=-1.0):
        """
        Args:
            clip: models.Clip at its original weights. Its autocast holds where it changes no top-1 answer of the unedited
                model; else it is switched off, with a note.
            identities, objects: data.PictureSet.
            cache_gb: see fastpath.Budget.
        """
        self.clip, self.batch_size, self.made = clip, batch_size, None
        sets = {"identities": (identities, IDENTITY_TEMPLATES), "objects": (objects, object_templates())}
        self.tasks = self._unedited(sets, cache_gb)
        if clip.autocast:
            low, clip.autocast = clip.autocast, None
            exact = self._unedited(sets, 0)
            changed = sum(int((guessed(exact[t]) != guessed(self.tasks[t])).sum()) for t in exact)
            if changed:
                total = sum(len(t.features) for t in exact.values())
                tqdm.write(f"note: {low} changes {changed} of {total} top-1 answers; evaluations are in float32 instead")
                self.tasks = self._unedited(sets, cache_gb)
            else:
                clip.autocast = low

    def _unedited(self, sets, cache_gb):
        """{task: Task} of {task: (data.PictureSet, templates)} under the present weights."""
        clip, batch_size, tasks = self.clip, self.batch_size, {}
        budget = towers.Budget(cache_gb, clip.device)
        for task, (pictures, templates) in sets.items():
            tokens = clip.tokenize(prompts(pictures.names, templates))
            language = towers.Tower(clip, "language", tokens, batch_size=batch_size, budget=budget)
            vision = towers.Tower(clip, "vision", pictures.images, batch_size=batch_size, budget=budget)
            weights = mean_prompts(language.fill(desc=f"prompts of {task}"), len(pictures.names))
            features = vision.fill(desc=f"features of {task}")
            margin = margins(features, weights, pictures.labels, pictures.blocks)
            tasks[task] = Task(pictures, templates, vision, language, features, weights, margin)
        return tasks

    def target(self, name):
        """Find a name to forget among the identities, then among the objects. SlugError if nobody has it."""
        wanted = plain_name(name).casefold()
        for kind, task in (("identity", "identities"), ("object", "objects")):
            for label, known in enumerate(self.tasks[task].pictures.names):
                if known.casefold() == wanted:
                    return Target(plain_name(name), kind, task, label)
        raise SlugError(f"no identity and no object of the evaluation is called {plain_name(name)!r}; check the spelling")

    @contextlib.contextmanager
    def same_weights(self):
        """Within the context the model's weights stay as they are, so that nothing is computed twice. May be nested."""
        outer, self.made = self.made, {} if self.made is None else self.made
        try:
            yield
        finally:
            self.made = outer

    def applied(self, edit):
        """Context within which the model carries an edit, {parameter name: tensor to add}; one place is swapped."""
        return applied(self.clip, edit)

    def _rivals(self, task, labels):
        """The classes that compete with `labels` (n,), and they themselves: indices, ascending."""
        blocks = self.tasks[task].pictures.blocks
        return torch.nonzero(torch.isin(blocks, blocks[labels])).flatten()

    def _prompts(self, task, classes):
        """Rows of the prompts of `classes` among the task's, class by class."""
        each = len(self.tasks[task].templates)
        return (classes[:, None] * each + torch.arange(each)).flatten()

    def _made(self, side, task, rows, compute):
        """The features (N, D), or the classifier (C, D), of a task under the present weights, right at `rows` at least.

        Args:
            side: "vision" or "language".
            compute: indices -> features; called for those that `same_weights` does not remember.
        """
        made = {} if self.made is None else self.made
        if (side, task) in made:
            values, known = made[side, task]
            missing = rows[~known[rows]]
            if len(missing):
                values, known = values.clone(), known.clone()  # who has the old ones keeps them
        else:
            values = torch.zeros_like(self.tasks[task].features if side == "vision" else self.tasks[task].weights)
            known, missing = torch.zeros(len(values), dtype=torch.bool), rows
        if len(missing):
            values[missing.to(values.device)] = compute(missing)
            known[missing] = True
            made[side, task] = values, known
        return values

    def sides(self, task, rows, edited):
        """(features of `rows`, classifier) of a task under the model's present weights.

        Args:
            edited: what differs from the original weights: the name of the one layer (its group), BOTH encoders, or None.
        """
        t = self.tasks[task]
        features, weights = t.features[rows], t.weights
        encoder = self.clip.encoder(edited) if edited not in (None, BOTH) else edited
        start = self.clip.stage(edited) if edited not in (None, BOTH) else 0
        if encoder in ("vision", BOTH):
            features = self._made("vision", task, rows, lambda missing: t.vision.features(missing, start))[rows]
        if encoder in ("language", BOTH):

            def classifier(missing):
                return mean_prompts(t.language.features(self._prompts(task, missing), start), len(missing))

            weights = self._made("language", task, self._rivals(task, t.pictures.labels[rows]), classifier)
        return features, weights

    def ranks(self, task, rows, edited):
        """Ranks (see `ranks`) of the pictures `rows` of a task under the model's present weights."""
        features, weights = self.sides(task, rows, edited)
        pictures = self.tasks[task].pictures
        return ranks(features, weights, pictures.labels[rows], pictures.blocks)

    def forget(self, target, rows, edited):
        """(ranks (N,), margins (N,)) of a target's pictures `rows` under the model's present weights."""
        features, weights = self.sides(target.task, rows, edited)
        return self._judged(target, rows, features, weights)

    def _judged(self, target, rows, features, weights):
        pictures = self.tasks[target.task].pictures
        sides = features, weights, pictures.labels[rows], pictures.blocks
        return ranks(*sides), margins(*sides)

    def forget_steps(self, target, rows, layer, edit, steps):
        """As `forget`, for each of K steps of an edit of one layer, in one pass: [(ranks (N,), margins (N,))].

        Args:
            edit: {parameter name: tensor} of the layer's group, at step 1; the model is at its original weights.
        """
        t, start = self.tasks[target.task], self.clip.stage(layer)
        if self.clip.encoder(layer) == "vision":
            found = t.vision.features(rows, start, edit=edit, steps=steps)
            return [self._judged(target, rows, x, t.weights) for x in found.unbind(1)]
        classes = self._rivals(target.task, t.pictures.labels[rows])
        found = t.language.features(self._prompts(target.task, classes), start, edit=edit, steps=steps)
        sides = []
        for x in found.unbind(1):
            weights = torch.zeros_like(t.weights)
            weights[classes.to(weights.device)] = mean_prompts(x, len(classes))
            sides.append(self._judged(target, rows, t.features[rows], weights))
        return sides

    def rows(self, task, mask=None, *, label=None, without=None):
        """Indices of a task's pictures: within `mask` (N,) bool, of one label, or of all labels but one."""
        labels = self.tasks[task].pictures.labels
        keep = torch.ones(len(labels), dtype=torch.bool) if mask is None else mask.clone()
        if label is not None:
            keep &= labels == label
        if without is not None:
            keep &= labels != without
        return torch.nonzero(keep).flatten()
