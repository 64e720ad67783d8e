"""The zero-shot tasks that edits of a CLIP are judged by. What an edit leaves alone is not computed again."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from slug import progress
from slug.core.edit import Edit
from slug.data.evaluation_sets import PictureSet
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation.zeroshot import guesses, margins, mean_prompts, prompts, ranks
from slug.models import towers
from slug.models.clip import Clip


class TaskSet(NamedTuple):
    """A picture set with the prompts of its classes; without labels, those are the unedited model's answers."""

    name: str  # of the task, e.g. identities: `identities_acc1` is its column
    kind: str  # what one of its classes is, e.g. identity
    pictures: PictureSet
    templates: tuple[str, ...]
    own_answers: bool = False  # whether the labels are replaced by what the unedited model answers among all classes


class Task(NamedTuple):
    """A TaskSet with what the unedited model computes from it."""

    kind: str
    pictures: PictureSet
    templates: tuple[str, ...]
    vision: towers.Tower  # of the pictures
    language: towers.Tower  # of all names in all templates
    features: torch.Tensor  # (N, D)
    weights: torch.Tensor  # (C, D)
    margins: torch.Tensor  # (N,)
    # What several tasks share is computed once, for the first of them: the names with their templates, and the pictures.
    first_with_names: str
    first_with_pictures: str

    @property
    def guessed(self) -> torch.Tensor:
        """(N,) index of the class that the unedited model takes each picture for."""
        return guesses(self.features, self.weights, self.pictures.labels, self.pictures.blocks)


class Target(NamedTuple):
    """What is to be forgotten: a class of a task."""

    name: str
    kind: str
    task: str
    label: int


Masks = Mapping[str, torch.Tensor]  # {task: (N,) bool}: the pictures of one split
Scores = tuple[torch.Tensor, torch.Tensor]  # ranks (n,) and margins (n,) of pictures


class Evaluation:
    """A CLIP's tasks, and what an edit does to them.

    An edit of one tower leaves the other tower's features alone, and what enters the first stage that reads an edited
    parameter. Both are reused; the predictions are those of the plain way (see `evaluation.reference`).

    Attributes:
        tasks: {name: Task} in the order of the sets.
        edit: what the model carries within `carrying`, else None.
    """

    def __init__(self, clip: Clip, sets: Sequence[TaskSet], *, batch_size: int = 256, cache_gb: float = -1.0) -> None:
        """`clip` is at its original weights. Its autocast is used where it changes no top-1 answer of the unedited model,
        else it is switched off, with a note. For `cache_gb` see towers.Budget."""
        self.clip, self.batch_size = clip, batch_size
        self.edit: Edit | None = None
        self._made: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self._starts: dict[str, int] = {}
        self._others: dict[int, tuple[towers.Tower, list[torch.Tensor]]] = {}  # by the id of their pictures
        self.tasks = self._unedited(sets, cache_gb)
        if clip.autocast:
            low, clip.autocast = clip.autocast, None
            exact = self._unedited(sets, 0)
            changed = sum(int((exact[t].guessed != self.tasks[t].guessed).sum()) for t in exact)
            if changed:
                total = sum(len(t.features) for t in exact.values())
                progress.write(f"note: {low} changes {changed} of {total} top-1 answers; evaluations are in float32 instead")
                self.tasks = self._unedited(sets, cache_gb)
            else:
                clip.autocast = low

    def _unedited(self, sets: Sequence[TaskSet], cache_gb: float) -> dict[str, Task]:
        clip, tasks = self.clip, dict[str, Task]()
        made: dict[Any, str] = {}  # {names and templates, or pictures: the first task that has them}
        self._budget = towers.Budget(cache_gb, clip.device)
        how: dict[str, Any] = {"batch_size": self.batch_size, "budget": self._budget}
        language, vision = dict[str, towers.Tower](), dict[str, towers.Tower]()
        for name, _, pictures, templates, _ in sets:
            if made.setdefault((tuple(pictures.names), templates), name) == name:
                language[name] = towers.Tower(clip, "language", clip.tokenize(prompts(pictures.names, templates)), **how)
            if made.setdefault(id(pictures.images), name) == name:
                vision[name] = towers.Tower(clip, "vision", pictures.images, **how)
        towers.reserve([*vision.values(), *language.values()])
        for name, kind, pictures, templates, own_answers in sets:
            first = made[(tuple(pictures.names), templates)], made[id(pictures.images)]
            texts, images = language[first[0]], vision[first[1]]
            if name in language:
                weights = mean_prompts(texts.fill(desc=f"prompts of {name}"), len(pictures.names))
            else:
                weights = tasks[first[0]].weights
            features = images.fill(desc=f"features of {name}") if name in vision else tasks[first[1]].features
            if own_answers:
                labels = guesses(features, weights, torch.zeros(len(features), dtype=torch.long), pictures.blocks)
                pictures = pictures._replace(labels=labels)
            margin = margins(features, weights, pictures.labels, pictures.blocks)
            tasks[name] = Task(kind, pictures, templates, images, texts, features, weights, margin, *first)
        return tasks

    def target(self, name: str) -> Target:
        """Find a name to forget among the classes of the tasks, in their order. SlugError if none has it."""
        wanted = plain_name(name).casefold()
        for task, found in self.tasks.items():
            for label, known in enumerate(found.pictures.names):
                if known.casefold() == wanted:
                    return Target(plain_name(name), found.kind, task, label)
        kinds = " and no ".join(found.kind for found in self.tasks.values())
        raise SlugError(f"no {kinds} of the evaluation is called {plain_name(name)!r}; check the spelling")

    @contextlib.contextmanager
    def carrying(self, edit: Edit) -> Iterator[None]:
        """Context within which the model carries an edit, and nothing is computed twice under it. Within a context of the
        same edit it does nothing, so that several evaluators share what is computed."""
        if edit is self.edit:
            yield
            return
        outer = self.edit, self._made, self._starts
        with self._applied(edit):
            self.edit, self._made, self._starts = edit, {}, self._first_stages(edit)
            try:
                yield
            finally:
                self.edit, self._made, self._starts = outer

    @property
    def moved(self) -> set[str]:
        """The towers that differ from the unedited model's under the edit that the model carries."""
        return set(self._starts)

    def _applied(self, edit: Edit) -> contextlib.AbstractContextManager:
        return edit.applied(self.clip)

    def _first_stages(self, edit: Edit) -> dict[str, int]:
        """{tower: the first of its stages that reads an edited parameter}; without the towers that the edit leaves alone."""
        first: dict[str, int] = {}
        for name in edit.changes:
            tower, stage = self.clip.tower(name), self.clip.stage(name)
            first[tower] = min(stage, first.get(tower, stage))
        return first

    def _rivals(self, task: str, labels: torch.Tensor) -> torch.Tensor:
        """The classes that compete with `labels` (n,), and they themselves: indices, ascending."""
        blocks = self.tasks[task].pictures.blocks
        return torch.nonzero(torch.isin(blocks, blocks[labels])).flatten()

    def _prompts(self, task: str, classes: torch.Tensor) -> torch.Tensor:
        """Rows of the prompts of `classes` among the task's, class by class."""
        each = len(self.tasks[task].templates)
        return (classes[:, None] * each + torch.arange(each)).flatten()

    def _remembered(self, side: str, task: str, rows: torch.Tensor, compute: Callable) -> torch.Tensor:
        """The features (N, D) or the classifier (C, D) of a task under the edit, right at `rows` at least; `compute` is
        called for those indices that were not computed yet."""
        if (side, task) not in self._made:
            empty = torch.zeros_like(self.tasks[task].features if side == "vision" else self.tasks[task].weights)
            self._made[side, task] = empty, torch.zeros(len(empty), dtype=torch.bool)
        values, known = self._made[side, task]
        missing = rows[~known[rows]]
        if len(missing):
            values[missing.to(values.device)] = compute(missing)
            known[missing] = True
        return values

    def sides(self, task: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(features (n, D) of the pictures `rows`, classifier (C, D)) of a task under the edit that the model carries. Of
        the classifier only the classes that compete with these pictures are right."""
        t, starts = self.tasks[task], self._starts

        def classifier(missing: torch.Tensor) -> torch.Tensor:
            return mean_prompts(t.language.features(self._prompts(task, missing), starts["language"]), len(missing))

        features, weights = t.features[rows], t.weights
        if "vision" in starts:

            def encode(missing: torch.Tensor) -> torch.Tensor:
                return t.vision.features(missing, starts["vision"])

            features = self._remembered("vision", t.first_with_pictures, rows, encode)[rows]
        if "language" in starts:
            rivals = self._rivals(task, t.pictures.labels[rows])
            weights = self._remembered("language", t.first_with_names, rivals, classifier)
        return features, weights

    def features_of(self, images: torch.Tensor) -> torch.Tensor:
        """Features (N, D), under the edit that the model carries, of pictures of no task, uint8 (N, 3, S, S). They are known
        again by the tensor itself, and reused as those of the tasks, until other pictures are asked for."""
        if id(images) not in self._others:  # the tower holds the tensor, so that no other one gets its id
            while self._others:  # each name has its own, which would pile up
                self._others.popitem()[1][0].release()
            tower = towers.Tower(self.clip, "vision", images, batch_size=self.batch_size, budget=self._budget)
            self._others[id(images)] = tower, []
        tower, unedited = self._others[id(images)]
        if "vision" in self._starts:
            return tower.features(start=self._starts["vision"])
        if not unedited:
            unedited.append(tower.features())
        return unedited[0]

    def ranks(self, task: str, rows: torch.Tensor) -> torch.Tensor:
        """Ranks (see zeroshot.ranks) of the pictures `rows` of a task."""
        pictures = self.tasks[task].pictures
        return ranks(*self.sides(task, rows), pictures.labels[rows], pictures.blocks)

    def forget(self, target: Target, rows: torch.Tensor) -> Scores:
        """(ranks (n,), margins (n,)) of a target's pictures `rows`."""
        return self._judged(target, rows, *self.sides(target.task, rows))

    def _judged(self, target: Target, rows: torch.Tensor, features: torch.Tensor, weights: torch.Tensor) -> Scores:
        pictures = self.tasks[target.task].pictures
        sides = features, weights, pictures.labels[rows], pictures.blocks
        return ranks(*sides), margins(*sides)

    def forget_under_steps(
        self, target: Target, rows: torch.Tensor, direction: Edit, steps: Sequence[float]
    ) -> list[Scores]:
        """As `forget`, under each of several steps of an edit of one tower, in one pass; `direction` is the edit at step 1,
        and the model is unedited."""
        t, edit = self.tasks[target.task], dict(direction.changes)
        ((tower, start),) = self._first_stages(direction).items()
        if tower == "vision":
            found = t.vision.features(rows, start, edit=edit, steps=steps)
            return [self._judged(target, rows, x, t.weights) for x in found.unbind(1)]
        classes = self._rivals(target.task, t.pictures.labels[rows])
        found = t.language.features(self._prompts(target.task, classes), start, edit=edit, steps=steps)
        judged = []
        for x in found.unbind(1):
            weights = torch.zeros_like(t.weights)
            weights[classes.to(weights.device)] = mean_prompts(x, len(classes))
            judged.append(self._judged(target, rows, t.features[rows], weights))
        return judged

    def rows(
        self, task: str, mask: torch.Tensor | None = None, *, label: int | None = None, without: int | None = None
    ) -> torch.Tensor:
        """Indices of a task's pictures: within `mask` (N,) bool, of one label, or of all labels but one."""
        labels = self.tasks[task].pictures.labels
        keep = torch.ones(len(labels), dtype=torch.bool) if mask is None else mask.clone()
        if label is not None:
            keep &= labels == label
        if without is not None:
            keep &= labels != without
        return torch.nonzero(keep).flatten()
