"""Several names forgotten together by the sum of their edits (paper, section 3): factors of steps, rows of the report."""

import contextlib
import functools
import math

from slug.core.edit import edited_by, summed
from slug.evaluation import clip_judge, outcome, statistics, zeroshot
from slug.schema import REVERTED

FACTORS = 5  # times that factors are lengthened, and that each is halved between two bounds, in the joint search
# Deviations that the margins of each name of a group lie below 0; a name alone is asked for search.SIGMAS. By 3 as much is
# forgotten as by the plain sum, and less is lost; by 2, as a normal fit needs for search.MAX_FORGET, still less is lost, and
# single drawings are recognised again (settled on groups of six names that no reference run reports).
SIGMAS = (3.0, 2.0)
LONGEST = 4.0  # a step is lengthened to at most this many times its own


class Group:
    """Names that are forgotten together, on both halves of one evaluation.

    Attributes:
        targets: [zeroshot.Target], in the order of the names.
        retain_rows: {task: indices of the test split's pictures of no name of the group}.
    """

    def __init__(self, evaluation, split, names, edits, seed):
        """
        Args:
            split: {task: (N,) bool} of the validation split.
            edits: {name: {native parameter name: change}}.
        """
        self.evaluation, self.names, self.seed = evaluation, names, seed
        self.edits = [edits[n] for n in names]
        self.targets = [evaluation.target(n) for n in names]
        self.report = {task: ~mask for task, mask in split.items()}
        self.own_rows = {
            part: [clip_judge.forget_rows(evaluation, t, masks) for t in self.targets]
            for part, masks in (("validation", split), ("test", self.report))
        }
        self.retain_rows = {}
        for task, mask in self.report.items():
            rest = mask.clone()
            for target, rows in zip(self.targets, self.own_rows["test"], strict=True):
                if target.task == task:
                    rest[rows] = False
            self.retain_rows[task] = evaluation.rows(task, rest)

    @contextlib.contextmanager
    def applied(self, factors):
        """Context within which the model carries the sum of the edits, each times its factor; yields what
        zeroshot.Evaluation.sides is told of it."""
        edit = summed(self.edits, factors)
        with self.evaluation.applied(edit), self.evaluation.same_weights():
            yield edited_by(self.evaluation.clip, edit)

    @functools.cache  # noqa: B019  (a group lives as long as one count of names)
    def forgotten(self, factors):
        """[search.Step] of the names on the validation split under a tuple of factors, of the forget pictures alone."""
        with self.applied(factors) as edited:
            judged = [
                self.evaluation.forget(t, rows, edited)
                for t, rows in zip(self.targets, self.own_rows["validation"], strict=True)
            ]
        return [clip_judge.forget_step("", 0.0, *found) for found in judged]

    def forgets(self, factors, sigmas):
        """[bool]: which names factors make forgotten on the validation split (search.Step.forgets_by)."""
        return [s.forgets_by(sigmas) for s in self.forgotten(tuple(factors))]

    def left(self, factors, sigmas):
        """How many names factors do not make forgotten on the validation split."""
        return self.forgets(factors, sigmas).count(False)

    def joint(self, sigmas):
        """Factors by which every name is still forgotten on the validation split and each step is as short as it can be.

        Names that the sum does not forget get longer steps first; then all steps together, and after that each in turn,
        are bisected between 0 and what they are. Where no lengthening makes all forgotten, the tried factors that leave
        the fewest names, and of these what is least recognised, are returned as they are.
        """
        factors, tried = (1.0,) * len(self.names), []
        for _ in range(FACTORS + 1):
            tried.append(factors)
            if not self.left(factors, sigmas):
                break
            steps = zip(factors, self.forgets(factors, sigmas), strict=True)
            factors = tuple(f if forgotten else min(f * math.sqrt(2), LONGEST) for f, forgotten in steps)
        else:
            return min(tried, key=lambda f: (self.left(f, sigmas), sum(s.forget_acc1 for s in self.forgotten(f))))
        everyone = range(len(factors))
        for part in (everyone, *([i] for i in everyone)):
            low, high, found = 0.0, 1.0, factors
            for _ in range(FACTORS):
                middle = (low + high) / 2
                shorter = tuple(f * middle if i in part else f for i, f in enumerate(factors))
                if self.left(shorter, sigmas):
                    low = middle
                else:
                    high, found = middle, shorter
            factors = found
        return factors

    def own(self, edited):
        """[ranks of each name's pictures] on the test split under the present weights."""
        rows = self.own_rows["test"]
        return [self.evaluation.ranks(t.task, r, edited) for t, r in zip(self.targets, rows, strict=True)]

    def rest(self, edited):
        """{task: ranks of the pictures of `retain_rows`} under the present weights."""
        return {task: self.evaluation.ranks(task, rows, edited) for task, rows in self.retain_rows.items()}

    def drawings(self, i):
        """The drawings of the i-th name's pictures on the test split, a label a picture."""
        pictures = self.evaluation.tasks[self.targets[i].task].pictures
        return [pictures.groups[row] for row in self.own_rows["test"][i].tolist()]

    def similarity(self, edited):
        """{task that a name of the group is of: (names, cosines of mean picture features and name prompts, pictures)} of
        these names and as many others, on the test split (see zeroshot.similarity)."""
        found = {}
        for task in dict.fromkeys(t.task for t in self.targets):
            mine = [t for t in self.targets if t.task == task]
            found[task] = outcome.similarity(self.evaluation, mine, self.report, edited, others=6, seed=self.seed)
        return found


def _common(group, method):
    model = group.evaluation.clip.label
    common = {"method": method, "count": len(group.names), "names": "; ".join(group.names), "model": model}
    return common | {"split": "test", "seed": group.seed}


def _counted(ranks):
    """Top-1 accuracy of pooled ranks, [(n,)], with its 95% interval, as columns."""
    correct, total = sum(int((r < 1).sum()) for r in ranks), sum(map(len, ranks))
    low, high = statistics.interval(correct, total)
    return {"forget_acc1": correct / total, "forget_low": low, "forget_upper": high, "n_forget": total}


def _named(target, factor, ranks):
    return {"name": target.name, "kind": target.kind, "task": target.task, "factor": factor, **_counted([ranks])}


def rows(group, method, factors, before, after, sigmas=0.0):
    """Rows of table.csv: a row a name, then one of what stays. The model is at its original weights.

    Args:
        sigmas: by which a name counts as forgotten on the validation split; 0: as counted, its margins below 0 on the mean.
        before, after: (Group.own, Group.rest) of the unedited model and of the edited one.
    """
    common, out = _common(group, method), []
    (own_before, rest_before), (own, rest) = before, after
    for i, (target, factor) in enumerate(zip(group.targets, factors, strict=True)):
        row = common | _named(target, factor, own[i])
        row |= {"n_drawings": len(set(group.drawings(i))), "forget_before": zeroshot.accuracies(own_before[i])[0]}
        out.append(row)
    row = common | {"name": "all", **_counted(own), "n_drawings": sum(r["n_drawings"] for r in out)}
    row["n_left_validation"] = group.left(factors, sigmas)
    row |= {f"{task}_acc1": zeroshot.accuracies(rank)[0] for task, rank in rest.items()}
    row |= {f"n_{task}": len(rank) for task, rank in rest.items()}
    return [*out, row | outcome.changes(group, rest_before, rest, group.seed)]


def reverted_rows(group, method, factors, own_before):
    """Rows of table.csv: for each name, the sum less its edit alone: whether the name is back, and the others are not.

    Args:
        own_before: Group.own of the unedited model.
    """
    out = []
    for i, target in enumerate(group.targets):
        with group.applied([f * (j != i) for j, f in enumerate(factors)]) as edited:
            own = group.own(edited)
        row = _common(group, f"{method}{REVERTED}") | _named(target, 0.0, own[i])
        row |= {"n_drawings": len(set(group.drawings(i))), "forget_before": zeroshot.accuracies(own_before[i])[0]}
        change = statistics.paired_difference(own_before[i] < 1, own[i] < 1, group.drawings(i), seed=group.seed)
        row |= dict(zip(("forget_change", "forget_change_low", "forget_change_high"), change, strict=True))
        others = _counted([rank for j, rank in enumerate(own) if j != i])
        row |= {k.replace("forget", "others"): v for k, v in others.items()}
        out.append(row)
    for row in out:
        row["n_others_drawings"] = sum(r["n_drawings"] for r in out if r is not row)
    return out
