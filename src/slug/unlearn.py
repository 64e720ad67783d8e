"""SLUG on one name: search every layer of both fronts, keep the winner, report it on the other half (paper, section 3)."""

import contextlib
import math
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from slug import layers, metrics, search, zeroshot
from slug.errors import SlugError
from slug.models.clip import ALONE

RETAIN_CHUNK = 512  # pictures between two looks at whether a candidate can still win
TOGETHER = "together"  # stands for a layer's name where many are moved by one step


def reset_peak_memory(device):
    """Begin to measure the peak anew; off Linux and CUDA it stays the process's peak since its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device):
    """Peak memory in MB since `reset_peak_memory`: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def membership(clip, evaluation, target, forget_pairs, half, edited, seed):
    """Membership inference on pair cosines, each picture against the prompt of its own name.

    Members are the forget set's pictures. `mia` tells them from left-out drawings of the same concept, the second figure,
    as published, from unseen pictures of other concepts. Where an evaluation set does not say what was seen (CelebA), all
    its pictures count as unseen.

    Args:
        forget_pairs: data.Pairs.
        half: (N,) bool mask of the target's task, or {task: mask}.
        edited: see Evaluation.sides.
    Returns:
        {"mia_mean", "mia_std", "mia_others_mean", "mia_others_std"}, in %.
    """
    task = evaluation.tasks[target.task]
    unseen = ~task.pictures.seen if (~task.pictures.seen).any() else torch.ones_like(task.pictures.seen)
    same = evaluation.rows(target.task, half[target.task] & unseen, label=target.label)
    rivals = task.pictures.blocks == task.pictures.blocks[target.label]  # other blocks would need their own classifier
    other = evaluation.rows(target.task, half[target.task] & unseen, without=target.label)
    other = other[rivals[task.pictures.labels[other]]]
    chosen = torch.randperm(len(other), generator=torch.Generator().manual_seed(seed))[: len(forget_pairs.captions)]
    other = other[chosen.sort().values]
    rows = torch.cat([same, other])
    features, weights = evaluation.sides(target.task, rows, edited)
    cosines = (features * weights[task.pictures.labels[rows]]).sum(1).cpu()
    members = zeroshot.image_features(clip, forget_pairs.images, evaluation.batch_size)
    members = (members @ weights[target.label]).cpu()
    mia = metrics.membership_inference(members, cosines[: len(same)], seed=seed)
    others = metrics.membership_inference(members, cosines[len(same) :], seed=seed)
    return dict(zip(("mia_mean", "mia_std", "mia_others_mean", "mia_others_std"), (*mia, *others), strict=True))


def forget_rows(evaluation, target, half):
    """Indices (N,) of a target's pictures in one half, {task: (N,) bool}. SlugError where there are none."""
    rows = evaluation.rows(target.task, half[target.task], label=target.label)
    if not len(rows):
        raise SlugError(f"a half of the evaluation has no picture of {target.name}; it needs two groups or more of it")
    return rows


def forget_step(layer, step, rank, margin, *, k=1):
    """search.Step of the forget pictures alone.

    Args:
        rank, margin: (N,) each, see zeroshot.Evaluation.forget.
        k: of FA@k.
    """
    spread = margin.std().item() if len(margin) > 1 else 0.0
    row = search.Step(layer, step, *zeroshot.accuracies(rank), margin=margin.mean().item(), margin_sd=spread)
    return row._replace(forget_acck=(rank < k).float().mean().item())


class Judge:
    """Scores the model's present weights for one target on one half of the evaluation."""

    def __init__(self, clip, evaluation, target, forget_pairs, half, *, k=1, seed=0, limit=None, trace=0, mia=True):
        """
        Args:
            half: {task: (N,) bool}, the half's pictures.
            k: the rank of FA@k, which brackets the step.
            limit: at most this many retain pictures a task, drawn by `seed`, those of the first blocks first (a block that
                is not touched needs no classifier).
            trace: score this many of them a task, of the first block, at every step, so that plots have a value even where
                the rest is not worth it.
            mia: infer membership wherever the retain sets are scored, which takes longer than they do in a small world.
        """
        self.mia = mia
        self.clip, self.evaluation, self.target = clip, evaluation, target
        self.pairs, self.half, self.k, self.seed = forget_pairs, half, k, seed
        self.forget_rows = forget_rows(evaluation, target, half)
        # The forgotten name's pictures leave the retain mean (trap 10); its name stays among the classes.
        self.retain_rows = {
            task: evaluation.rows(task, half[task], without=target.label if task == target.task else None)
            for task in evaluation.tasks
        }
        for task, rows in self.retain_rows.items() if limit else ():
            pictures = evaluation.tasks[task].pictures
            order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
            order = order[pictures.blocks[pictures.labels[order]].argsort(stable=True)]
            self.retain_rows[task] = order[:limit].sort().values
        self.trace_s = 0.0  # what plots cost is no part of a search's time
        self.trace_rows = {task: self._spread(task, rows, trace) for task, rows in self.retain_rows.items() if trace}

    winner = staticmethod(search.winner)

    def applied(self, edit):
        """Context within which the model carries an edit, {parameter name: tensor to add}."""
        return self.evaluation.applied(edit)

    def _spread(self, task, rows, count):
        """`count` of `rows`, spread over the classes of the first block (pictures stand class by class): one classifier
        serves them."""
        pictures = self.evaluation.tasks[task].pictures
        rows = rows[pictures.blocks[pictures.labels[rows]] == pictures.blocks.min()]
        return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]

    def ranks(self, edited):
        """{"forget", "identities", "objects"} -> ranks of the half's pictures under the present weights."""
        out = {"forget": self.evaluation.ranks(self.target.task, self.forget_rows, edited)}
        return out | {task: self.evaluation.ranks(task, rows, edited) for task, rows in self.retain_rows.items()}

    def retain(self, edited, beat=-math.inf):
        """Retain accuracies as columns of search.Step, or {} as soon as their mean cannot exceed `beat` any more.

        Pictures the unedited model gets wrong come first, then those it gets right by the least: the sum of what is
        correct so far and all that is left is an exact upper bound, and falls below `beat` early where an edit harms.
        """
        bound = dict.fromkeys(self.retain_rows, 1.0)  # upper bound of each task's accuracy
        done = {task: [] for task in self.retain_rows}
        chunks = {}
        for task, rows in self.retain_rows.items():
            rows = rows[self.evaluation.tasks[task].margins[rows].argsort(stable=True)]
            chunks[task] = rows.split(RETAIN_CHUNK if beat > -math.inf else max(len(rows), 1))
        for number in range(max(map(len, chunks.values()))):
            for task, parts in chunks.items():
                if number < len(parts):
                    done[task].append(self.evaluation.ranks(task, parts[number], edited))
                    wrong = sum(int((r >= 1).sum()) for r in done[task])
                    bound[task] = 1 - wrong / len(self.retain_rows[task])
            if sum(bound.values()) / len(bound) < beat - 1e-6:  # `beat` is of float32 means: a tie must not fall below it
                return {}
        scores = {}
        for task, parts in done.items():
            scores[f"{task}_acc1"], scores[f"{task}_acc5"] = zeroshot.accuracies(torch.cat(parts))
        return scores

    def forget_steps(self, layer, forget, steps):
        """{step: (ranks, margins)} of the forget pictures for several steps of a layer, in one pass.

        Args:
            forget: {parameter name: gradient}.
        """
        edit = edit_of(self.clip, layer, forget, 1.0)
        found = self.evaluation.forget_steps(self.target, self.forget_rows, layer, edit, steps)
        return dict(zip(steps, found, strict=True))

    def step(self, layer, step, edited, *, best=None, log_all=False, known=None):
        """Score the present weights: search.Step.

        Args:
            layer, step: what was done to the weights, for the record.
            edited: see Evaluation.sides.
            best: the best candidate so far; the costly retain sets are scored only where this one forgets and can still
                win against it.
            log_all: score everything.
            known: (ranks, margins) of the forget pictures, where `forget_steps` has them.
        """
        started = time.perf_counter()
        with self.evaluation.same_weights():
            rank, margin = known or self.evaluation.forget(self.target, self.forget_rows, edited)
            row = forget_step(layer, step, rank, margin, k=self.k)
            if log_all or row.forgets:
                beat = best.retain if best is not None and best.forgets and not log_all else -math.inf
                scores = self.retain(edited, beat)
                if scores:
                    row = row._replace(**scores)
                if scores and self.mia:
                    mia = membership(self.clip, self.evaluation, self.target, self.pairs, self.half, edited, self.seed)
                    row = row._replace(mia_mean=mia["mia_mean"], mia_std=mia["mia_std"])
            seconds, started = time.perf_counter() - started, time.perf_counter()
            for task, rows in self.trace_rows.items():
                share = zeroshot.accuracies(self.evaluation.ranks(task, rows, edited))[0]
                row = row._replace(**{f"{task}_trace": share})
        self.trace_s += time.perf_counter() - started
        return row._replace(seconds=seconds)


def edit_of(clip, layer, forget, step):
    """{parameter name: step * gradient} of a layer's group: a POSITIVE step adds the gradient of 1 - cos (trap 2).

    Args:
        layer: a layer's name, or the names of the parameters themselves.
    """
    names = clip.group(layer) if isinstance(layer, str) else layer
    return {n: step * forget[n].to(clip.device) for n in names}


def union(clip, front):
    """The parameters that [layers.Layer] and their groups move, in that order."""
    return tuple(dict.fromkeys(n for found in front for n in clip.group(found.name)))


def edited_by(clip, names):
    """What Evaluation.sides is told of an edit of these parameters: BOTH towers, or the one that is read first."""
    return zeroshot.BOTH if len({clip.tower(n) for n in names}) > 1 else min(names, key=clip.stage)


def search_all(
    clip,
    judge,
    front,
    forget,
    *,
    evaluations=10,
    rule="robust",
    choose="retain",
    log_all=False,
    depth=1,
    alone=False,
    together=False,
    scale=1.0,
    before=(),
    settled=lambda: False,
    **reach,
):
    """Search the step of every front layer: ({layer: [search.Step]}, the winner's search.Step). A group is searched once.

    Args:
        judge: Judge of the select half, or canvas.Judge.
        front: [layers.Layer] of both encoders.
        forget: {parameter name: gradient}.
        evaluations, rule, reach: see search.over_layer.
        choose: "retain" for the judge's winner, "deepest" for the paper's rule.
        log_all: score the retain sets at every step, not only where a step forgets and can win.
        depth: evaluations to look ahead: the forget pictures go through all steps that these may ask for in one pass; not
            with `together`.
        alone: search a layer of a group also without the others of its group (models.clip.ALONE behind its name).
        together: one search that moves all layers of the front by one step; its steps carry TOGETHER for a layer's name.
        scale: begin at so many times the first step.
        before: candidates found before, which these have to beat; their groups are not searched again.
        settled: () -> whether no candidate can beat the judge's winner any more, asked after each: the search ends there.
    """
    steps, done, candidates = {}, {clip.group(s.layer) for s in before}, list(before)
    if together:
        groups = [(TOGETHER, union(clip, front))]
    else:
        names = (found.name + end for found in front for end in (("", ALONE) if alone else ("",)))
        groups = ((layer, clip.group(layer)) for layer in names)
    for layer, group in groups:
        if group in done:
            continue
        done.add(group)
        first = scale * layers.first_step([clip.parameters[n] for n in group], [forget[n] for n in group])
        edited = edited_by(clip, group) if together else layer
        known = {}

        def evaluate(step, coming, layer=layer, group=group, edited=edited, known=known):
            if step not in known and len(coming) > 1:
                known |= judge.forget_steps(layer, forget, coming)
            with judge.applied(edit_of(clip, group, forget, step)):
                # By the paper's rule a layer that loses overall may still be the deepest: score all that forget.
                best = judge.winner(candidates) if choose == "retain" else None
                row = judge.step(layer, step, edited, best=best, log_all=log_all, known=known.get(step))
            candidates.append(row)
            return row, row.progress(rule)

        steps[layer] = []
        for row in search.over_layer(evaluate, first, evaluations=evaluations, rule=rule, depth=depth, **reach):
            steps[layer].append(row)
            if settled():
                return steps, judge.winner(candidates)
    if choose == "deepest":
        return steps, search.deepest(candidates, lambda n: layers.depth_order(clip, n))
    return steps, judge.winner(candidates)


def search_fronts(clip, judge, rows, forget, enough, *, fronts, desc, deepest_first=False, **how):
    """Search Pareto front after front until a winner will do: ([step in order], the winner).

    Args:
        rows: layers.figures of all candidates.
        enough: winner -> whether to stop there.
        fronts: how many, at most.
        deepest_first: search a front's layers from the deepest up, where these tend to win: the others are then given up the
            sooner. What is found is the same.
        how: see `search_all`.
    """
    steps, best = [], None
    for number, front in enumerate(layers.all_fronts(rows)[:fronts], 1):
        if deepest_first:
            front = sorted(front, key=lambda found: layers.depth_order(clip, found.name), reverse=True)
        bar = tqdm(front, desc=f"{desc}: front {number}", unit="layer")
        curves, best = search_all(clip, judge, bar, forget, before=steps, **how)
        steps += [s for part in curves.values() for s in part]
        if best is not None and enough(best):
            break
    return steps, best


def figures(judge, ranks, more):
    """One half's figures of one model state, as the columns of table.csv (DESIGN.md) and their bounds."""
    evaluation, target = judge.evaluation, judge.target
    pictures = evaluation.tasks[target.task].pictures
    seen = pictures.seen[judge.forget_rows]
    forget = ranks["forget"]
    groups = [pictures.groups[i] for i in judge.forget_rows.tolist()]
    correct = int((forget < 1).sum())
    row = {
        "forget_acc1": correct / len(forget),
        "forget_acc5": zeroshot.accuracies(forget)[1],
        "forget_upper": metrics.interval(correct, len(forget))[1],
        "forget_seen_acc1": _share(forget[seen]),
        "forget_unseen_acc1": _share(forget[~seen]),
        "n_forget": len(forget),
        "n_forget_unseen": int((~seen).sum()),
        "n_drawings": len(set(groups)),
        **more,
    }
    for task in ("identities", "objects"):
        row[f"{task}_acc1"], row[f"{task}_acc5"] = zeroshot.accuracies(ranks[task])
        row[f"n_{task}"] = len(ranks[task])
    return row


def changes(judge, before, after, seed):
    """Paired change of the retain accuracies @1 with 95% bootstrap intervals over drawings, as columns.

    Args:
        judge: Judge, or what else has its `evaluation` and `retain_rows`.
        before, after: {task: ranks of its retain pictures}.
    """
    row = {}
    for task, rows in judge.retain_rows.items():
        groups = [judge.evaluation.tasks[task].pictures.groups[i] for i in rows.tolist()]
        mean, low, high = metrics.paired_difference(before[task] < 1, after[task] < 1, groups, seed=seed)
        row |= {f"{task}_change": mean, f"{task}_change_low": low, f"{task}_change_high": high}
    return row


def one_side(judge, edited):
    """Top-1 forget accuracy where only one tower carries the edit and the other is the unedited model's, as columns.

    Where the language tower alone forgets, the name was lost and the pictures are still recognised by any other name for
    them; where the vision tower alone does, the pictures were.
    """
    task, rows = judge.evaluation.tasks[judge.target.task], judge.forget_rows
    features, weights = judge.evaluation.sides(judge.target.task, rows, edited)
    labels, blocks = task.pictures.labels[rows], task.pictures.blocks
    sides = {"vision": (features, task.weights), "language": (task.features[rows], weights)}
    return {f"forget_{s}_acc1": zeroshot.accuracies(zeroshot.ranks(*pair, labels, blocks))[0] for s, pair in sides.items()}


def halves(judges, edited, inside, method, seed):
    """{half: {"original": figures, method: figures of the edit with its paired changes}}.

    Args:
        judges: {half: Judge}, of one evaluation.
        edited: see Evaluation.sides.
        inside: a function that returns a context manager within which the model carries the edit.
    """

    def states(which):
        found = {}
        with next(iter(judges.values())).evaluation.same_weights():
            for part, judge in judges.items():
                sides = judge.clip, judge.evaluation, judge.target, judge.pairs, judge.half
                more = membership(*sides, which, seed) if judge.mia else {}
                found[part] = judge.ranks(which), more if which is None else more | one_side(judge, which)
        return found

    before = states(None)
    with inside():
        after = states(edited)
    return {
        part: {
            "original": figures(judge, *before[part]),
            method: figures(judge, *after[part]) | changes(judge, before[part][0], after[part][0], seed),
        }
        for part, judge in judges.items()
    }


def _share(rank):
    return float((rank < 1).float().mean()) if len(rank) else math.nan
