"""The published way of scoring an edit, written plainly: what the fast way is measured against.

At every step, whichever tower moved: the model is copied, all pictures are opened and decoded anew (batches of 32, two
workers), all names are tokenised to the full context and encoded, and every column is scored. The predictions are the same.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch

from slug.core.edit import Edit
from slug.data.images import Decoded
from slug.evaluation import zeroshot
from slug.evaluation.clip_tasks import Evaluation, TaskSet
from slug.models.clip import Clip

BATCH, WORKERS = 32, 2


class PlainEvaluation(Evaluation):
    """An Evaluation without any reuse between steps; within one step nothing is done twice."""

    def __init__(self, clip: Clip, sets: Sequence[TaskSet], *, batch_size: int = BATCH, cache_gb: float = 0.0) -> None:
        super().__init__(clip, sets, batch_size=BATCH, cache_gb=0.0)

    @contextlib.contextmanager
    def _applied(self, edit: Edit) -> Iterator[None]:
        """As Evaluation's, on a copy of the whole model."""
        original = self.clip.module
        self.clip.module = copy.deepcopy(original)
        try:
            with edit.applied(self.clip):
                yield
        finally:
            self.clip.module = original

    def sides(self, task: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As Evaluation.sides; the unedited model is encoded anew as well."""
        t, clip = self.tasks[task], self.clip
        made = self._made if self.edit is not None else {}
        if ("language", task) not in made:
            parts = clip.tokenize(zeroshot.prompts(t.pictures.names, t.templates)).split(BATCH)
            with clip.evaluating():
                texts = torch.cat([clip.unit(clip.whole_text(part.to(clip.device))) for part in parts])
            made["language", task] = zeroshot.mean_prompts(texts, len(t.pictures.names)), torch.empty(0)
            made["vision", task] = torch.zeros_like(t.features), torch.zeros(len(t.features), dtype=torch.bool)
        weights, (features, known) = made["language", task][0], made["vision", task]
        missing = rows[~known[rows]]
        if len(missing):
            items = Decoded([t.pictures.paths[i] for i in missing.tolist()], clip.transform)
            loader = torch.utils.data.DataLoader(items, batch_size=BATCH, num_workers=WORKERS)
            with clip.evaluating():
                features[missing] = torch.cat([clip.unit(clip.whole_image(clip.normalise(x))) for x in loader])
            known[missing] = True
        return features[rows], weights

    def features_of(self, images: torch.Tensor) -> torch.Tensor:
        """As Evaluation.features_of, anew."""
        return zeroshot.image_features(self.clip, images, BATCH)
