"""The published way of judging an edit, written plainly: what the fast way is measured against (trap 12 of the paper).

At every step, whichever tower moved: the model is copied, all pictures are opened and decoded anew (batches of 32, two
workers), all names are tokenised to the full context and encoded, and every column is scored. The same predictions.
"""

import contextlib
import copy

import torch

from slug.core.edit import applied
from slug.data.images import Decoded
from slug.evaluation import clip_tasks, zeroshot

BATCH, WORKERS = 32, 2


class PlainEvaluation(clip_tasks.Evaluation):
    """zeroshot.Evaluation without any reuse between steps; within one step nothing is done twice."""

    def __init__(self, clip, identities, objects, *, batch_size=BATCH, cache_gb=0.0):
        super().__init__(clip, identities, objects, batch_size=BATCH, cache_gb=0.0)

    @classmethod
    def of(cls, evaluation):
        """The plain way over the tasks of a zeroshot.Evaluation, whose features of the unedited model it takes over."""
        made = cls.__new__(cls)
        made.__dict__.update(evaluation.__dict__)
        return made

    @contextlib.contextmanager
    def applied(self, edit):
        """As Evaluation.applied, on a copy of the whole model."""
        original = self.clip.module
        self.clip.module = copy.deepcopy(original)
        try:
            with applied(self.clip, edit):
                yield
        finally:
            self.clip.module = original

    def sides(self, task, rows, edited):
        """As Evaluation.sides."""
        t, made = self.tasks[task], {} if self.made is None else self.made
        if task not in made:
            made[task] = self._all_names(t), torch.zeros_like(t.features), torch.zeros(len(t.features), dtype=torch.bool)
        weights, features, known = made[task]
        missing = rows[~known[rows]]
        if len(missing):
            features[missing] = self._decoded(t, missing)
            known[missing] = True
        return features[rows], weights

    def _all_names(self, task):
        parts = []
        with self.clip.evaluating():
            for part in self.clip.tokenize(zeroshot.prompts(task.pictures.names, task.templates)).split(BATCH):
                parts.append(self.clip.unit(self.clip.whole_text(part.to(self.clip.device))))
        return zeroshot.mean_prompts(torch.cat(parts), len(task.pictures.names))

    def _decoded(self, task, rows):
        items = [task.pictures.paths[i] for i in rows.tolist()]
        loader = torch.utils.data.DataLoader(Decoded(items, self.clip.transform), batch_size=BATCH, num_workers=WORKERS)
        with self.clip.evaluating():
            return torch.cat([self.clip.unit(self.clip.whole_image(self.clip.normalise(x))) for x in loader])
