"""The one set-up of every experiment on a CLIP: model, evaluation, splits, and what a record of it depends on."""

import functools
from collections.abc import Sequence
from typing import Any

import torch

from slug import cli, distributed, files, models, system
from slug.artifacts import records
from slug.artifacts.gradient_files import GradientFiles
from slug.core import selection
from slug.data import evaluation_sets
from slug.data.names import plain_name, read_aliases
from slug.data.pairs import Pairs, load_pairs, saying, some
from slug.data.splits import validation_mask
from slug.errors import SlugError
from slug.evaluation import zeroshot
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.evaluation.clip_tasks import Evaluation, Masks, TaskSet
from slug.evaluation.reference import PlainEvaluation
from slug.schema import SPLITS
from slug.settings import STANDARD, Data, ForgetRule, Model, Ruled, Run


def task_sets(run: Run, data: Data, transform: Any) -> list[TaskSet]:
    """The tasks of an evaluation: identities among all CelebA names, objects among ImageNet's classes."""
    how: dict[str, Any] = {"workers": run.workers, "cache": files.resolve(run.result_dir) / "cache"}
    how["allow_missing"] = data.allow_missing
    also = data.celeb_name if run.rules.every_picture else ()
    identities = evaluation_sets.load_celeba(files.resolve(data.val_data), transform, also=also, **how)
    val = files.resolve(data.imagenet_val)
    how |= {"share": data.imagenet_share, "seed": run.seed, "by_randomstate": run.rules.objects_by_randomstate}
    objects = evaluation_sets.load_imagenet(val, transform, **how)
    return [
        TaskSet("identities", "identity", identities, zeroshot.IDENTITY_TEMPLATES),
        TaskSet("objects", "object", objects, zeroshot.object_templates()),
    ]


def check_names(sets: Sequence[TaskSet], names: Sequence[str]) -> None:
    """SlugError unless each name is a class with pictures of one of the sets."""
    own = "a2_unlearn_slug.py --images FOLDER (or slug forget) judges it by held-out pictures of its own"
    for name in map(plain_name, names):
        held = [(s, n) for s in sets for n, known in enumerate(s.pictures.names) if known.casefold() == name.casefold()]
        if not held:
            kinds = " and no ".join(s.kind for s in sets)
            raise SlugError(
                f"no {kinds} of the evaluation is called {name!r}; check the spelling. If no evaluation set has it, {own}, "
                "or add its pictures to one as data/README.md says"
            )
        if not any((s.pictures.labels == label).any() for s, label in held):
            listed = "list_identity_celeba.txt has it, frequent_celebs.txt has not: name it there to show its pictures"
            where = listed if held[0][0].kind == "identity" else "its class folder is empty"
            raise SlugError(f"the evaluation shows no picture of {name} ({where}); or {own}")


def frozen_aliases(settings: Ruled, name: str) -> list[str] | None:
    """Other names for a name, by the CSVs that the rules of --frozen list as `aliases`; None without --frozen."""
    if not settings.frozen:
        return None
    listed = files.read_object(files.existing(settings.frozen, "frozen rules", "give --frozen, or leave it out"))
    return read_aliases(listed.get("aliases", [])).get(plain_name(name).casefold(), [])


class World:
    """A model at its original weights with its evaluation; what is expensive is made when it is first asked for."""

    def __init__(self, run: Run, model: Model, data: Data, *, rule: ForgetRule = STANDARD, grad_batch_size: int = 0) -> None:
        """`rule` says when a name counts as forgotten; `grad_batch_size` is of the gradient pass; 0: the model settings'
        own."""
        self.run, self.protocol = run, run.rules
        self.model, self.data, self.limits = cli.followed(model, run.rules), cli.followed(data, run.rules), rule
        self.device = system.settle(run.device, run.seed)
        self.rank = distributed.start(self.device)
        files.check_writable(run.result_dir)
        self.clip = models.from_settings(model, run.precision, self.device)
        how: dict[str, Any] = {"flags": cli.values(run, model), "protocol": self.protocol}
        batch_size = grad_batch_size or model.batch_size
        self.gradients = GradientFiles(self.clip, data, run.result_dir, batch_size, **how)
        self.model_hash = self.gradients.model_hash
        label = records.own_label(files.resolve(run.result_dir) / "clip", self.clip, self.model_hash)
        if label != self.clip.label and self.rank == 0:
            said = f"holds results of other weights called {self.clip.label}; these are written beside them as {label}"
            print(f"note: {files.resolve(run.result_dir) / 'clip'} {said}")
        self.clip.label = label

    @functools.cached_property
    def sets(self) -> list[TaskSet]:
        """The tasks."""
        return task_sets(self.run, self.data, self.clip.transform)

    def check_names(self) -> None:
        """`check_names` of all names, and whether --fa-k leaves a wrong answer: before the minutes that features take."""
        check_names(self.sets, self.gradients.names)
        fewest = min(len(s.pictures.names) for s in self.sets)
        if self.data.fa_k >= fewest:
            raise SlugError(f"--fa-k {self.data.fa_k} is too large: there are {fewest} names, and it must be below {fewest}")

    @functools.cached_property
    def masks(self) -> dict[str, Masks]:
        """{split: {task: (N,) bool}}; where the protocol has no splits, both are all pictures."""
        if self.protocol.every_picture:
            every = {s.name: torch.ones(len(s.pictures.labels), dtype=torch.bool) for s in self.sets}
            return dict.fromkeys(SPLITS, every)
        validation = {s.name: validation_mask(s.pictures, self.run.seed) ^ self.data.swap_splits for s in self.sets}
        return {"validation": validation, "test": {task: ~mask for task, mask in validation.items()}}

    def names_besides(self, name: str) -> list[str]:
        """The classes of all tasks but this one."""
        every = dict.fromkeys(n for s in self.sets for n in s.pictures.names)
        return [n for n in every if n.casefold() != plain_name(name).casefold()]

    def evaluation_now(self, *, plain: bool = False, cache_gb: float | None = None) -> Evaluation:
        """The Evaluation whose unedited model has the present weights. SlugError, before anything is computed, where a name
        has no pictures in it."""
        check_names(self.sets, self.gradients.names)
        cache = self.data.cache_gb if cache_gb is None else cache_gb
        kind = PlainEvaluation if plain else Evaluation
        return kind(self.clip, self.sets, batch_size=self.model.eval_batch_size, cache_gb=cache)

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        """The Evaluation of the original weights."""
        return self.evaluation_now()

    @property
    def pictures(self) -> list[evaluation_sets.PictureSet]:
        """The labelled pictures of the tasks."""
        return [s.pictures for s in self.sets]

    @property
    def left_out(self) -> dict[str, dict[str, int]]:
        """{task: {why: pictures}} that its evaluation could not use."""
        return {s.name: dict(s.pictures.left_out) for s in self.sets}

    def pairs(self, name: str) -> Pairs:
        """The forget set of a name."""
        return load_pairs(self.gradients.tar(name), self.clip.transform, workers=self.run.workers)

    @functools.cached_property
    def _retain_set(self) -> Pairs:
        return load_pairs(self.gradients.retain_tar, self.clip.transform, workers=self.run.workers)

    def retain_pairs(self, left_out: Sequence[str]) -> Pairs:
        """The retain set without the pairs that say a name of `left_out`."""
        return some(self._retain_set, saying(self._retain_set, left_out, says=False))

    @functools.cached_property
    def other_pairs(self) -> Pairs | None:
        """The pairs of another corpus, where membership is inferred by own captions. SlugError if they are missing."""
        if not self.protocol.own_captions:
            return None
        todo = "give --mia-data (MIA_DATA), a tar of pairs that the model was not trained on (data/README.md)"
        tar = files.existing(self.data.mia_data, "membership shard", todo)
        return load_pairs(tar, self.clip.transform, workers=self.run.workers)

    def rule(self, *, epochs: bool = False, retains: bool = False) -> selection.Rule:
        """The rule that chooses among candidates; `epochs`: these are the epochs of a baseline; `retains`: what retains most
        is kept."""
        limits, rules = self.limits, self.protocol
        return selection.Rule(limits.max_forget, limits.sigmas, rules.margin_rule, rules.first_zero and epochs, retains)

    def evaluators(
        self,
        name: str,
        pairs: Pairs | None,
        *,
        evaluation: Evaluation | None = None,
        splits: Sequence[str] = SPLITS,
        trace: int = 0,
        search_rule: str = "",
        epochs: bool = False,
        retains: bool = False,
    ) -> dict[str, ClipEvaluator]:
        """{split: ClipEvaluator} of a name: candidates are chosen on at most --select-pictures of the validation split, and
        reported on the whole test split. `pairs`, the forget set, is for membership inference, which None leaves out;
        `trace` and `search_rule` (by default the protocol's) are of the validation split (see ClipEvaluator); for `epochs`
        and `retains` see `rule`."""
        evaluation, found = evaluation or self.evaluation, {}
        k = self.data.fa_k or self.protocol.bracket_k or selection.fa_rank(len(self.sets[0].pictures.names))
        search_rule = search_rule or self.protocol.search_rule
        for split in splits:
            how: dict[str, Any] = {"k": k, "seed": self.run.seed, "rule": self.rule(epochs=epochs, retains=retains)}
            how |= {"protocol": self.protocol, "others": self.other_pairs if pairs is not None else None}
            if split == "validation":
                limit = None if self.protocol.every_picture else self.data.select_pictures
                how |= {"limit": limit, "trace": trace, "search_rule": search_rule}
            found[split] = ClipEvaluator(evaluation, evaluation.target(name), pairs, self.masks[split], **how)
        return found
