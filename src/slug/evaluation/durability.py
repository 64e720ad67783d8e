"""Does what was forgotten come back? Tests of an edit on the test split, each beside the unedited model.

Every test asks one thing of the model and returns rows of figures; none of them looks at the validation split
but the linear probe and the arithmetic, which take from it what an attacker would have: pictures of other drawings.
"""

import contextlib

import torch
from sklearn.linear_model import LogisticRegression, OrthogonalMatchingPursuit

from slug.core import gradients, losses
from slug.core.edit import holding, kept
from slug.data.pairs import Pairs
from slug.evaluation import clip_judge, statistics, zeroshot
from slug.methods.training import Pass, Schedule, train
from slug.schema import ARITHMETIC, EDIT, NOT_TOLD, PROBE, QUANTISED, RELEARNED, SPELLING, STYLE

BATCH, FORGET_PAIRS = 32, 8  # pairs of a relearning step, and at most so many of them of the forgotten name
FORMS = {"fp16": 16, "int8": 8, "4-bit": 4}  # of weights -> bits
REBUILT_OF = 8  # other names that a name is rebuilt of


# ----------------------------------------------------------------------------------------------------- changed weights


def round_to_nearest(weight, bits):
    """Symmetric round-to-nearest of a linear weight (out, ...), one scale an output channel: the values it then stands for.

    The largest magnitude of a channel becomes 2^(bits - 1) - 1; a channel of zeros stays so.
    """
    top = 2 ** (bits - 1) - 1
    flat = weight.flatten(1)
    scale = flat.abs().amax(1, keepdim=True) / top
    steps = (flat / scale.clamp_min(torch.finfo(flat.dtype).tiny)).round().clamp(-top, top)
    return (steps * scale).view_as(weight)


@contextlib.contextmanager
def quantised(clip, form):
    """Within the context the weights have the values that a form of FORMS can hold; products stay in float32.

    fp16 rounds every parameter. int8 and 4-bit round the weights of linear layers (and of the patch embedding, which is one)
    to the nearest; biases, norms, embeddings and the scale keep their values, as is usual.
    """
    values = {n: p.detach().clone() for n, p in clip.parameters.items()}
    if FORMS[form] == 16:
        values = {n: p.half().float() for n, p in values.items()}
    else:
        values = {n: values[n] for n in clip.candidates() if values[n].ndim > 1}
        # Canonical views have the output channels in front, also of open_clip's transposed projections.
        for view in clip.canonical_views(values).values():
            view.copy_(round_to_nearest(view, FORMS[form]))
    with holding(clip, values):
        yield clip


def chosen_pairs(forget, count, seed):
    """`count` pairs of a forget set, drawn by `seed`: indices; all of them where `count` is 0."""
    order = torch.randperm(len(forget.captions), generator=torch.Generator().manual_seed(seed))
    return order[:count] if count else order


def relearn(clip, forget, retain, *, count, steps, lr, seed=0):
    """Fine-tune on `count` forget pairs mixed with retain pairs; yields 1, 2, ... after each of `steps` optimiser steps, and
    leaves the model as it was when the generator is exhausted or closed.

    A step's batch of BATCH pairs holds at most FORGET_PAIRS of the forget pairs; more would mostly be told apart from each
    other by the contrastive loss. AdamW at a constant rate over all parameters, weight decay as the baselines'.

    Args:
        forget, retain: data.Pairs.
        count: see `chosen_pairs`.
    """
    g = torch.Generator().manual_seed(seed)
    known = chosen_pairs(forget, count, seed)
    passes = []
    for _ in range(steps):
        mine = known[torch.randperm(len(known), generator=g)[:FORGET_PAIRS]]
        rest = torch.randperm(len(retain.captions), generator=g)[: BATCH - len(mine)]
        images = torch.cat([forget.images[mine], retain.images[rest]])
        captions = [forget.captions[i] for i in mine] + [retain.captions[i] for i in rest]
        passes.append(Pass(Pairs(images, captions, [], 0), losses.contrastive, +1))
    schedule = Schedule(lr, epochs=1, batch_size=BATCH, seed=seed, decay=False)
    with kept(clip, clip.parameters):
        yield from train(clip, passes, schedule, each_step=True)


# -------------------------------------------------------------------------------------------------------------- names


def spellings(name, aliases=()):
    """{what it is: text} of other ways to write a name; none is the name itself."""
    found = {
        "lower case": name.lower(),
        "upper case": name.upper(),
        "plural": name + ("es" if name.lower().endswith(("s", "x", "z", "ch", "sh")) else "s"),
        "article": f"the {name}",
        "hyphen": name.replace(" ", "-"),
        "one word": name.replace(" ", ""),
        **{f"synonym {n}": alias for n, alias in enumerate(aliases, 1)},
    }
    return {what: text for what, text in found.items() if text != name}


def style_of(group):
    """The icon set of a drawing, where its group is `concept/set`; else NOT_TOLD."""
    return group.rpartition("/")[2] if "/" in group else NOT_TOLD


# -------------------------------------------------------------------------------------------------------------- tests


def share(correct, total):
    """A share of pictures with its 95% Clopper-Pearson interval, as columns."""
    low, high = statistics.interval(correct, total)
    return {"value": correct / total, "low": low, "high": high, "correct": correct, "n": total}


class Subject:
    """One forgotten name; every test is a method that judges the model's present weights and returns [row]."""

    def __init__(self, clip, evaluation, split, target, pairs, retain, *, aliases=(), seed=0, limit=None):
        """
        Args:
            evaluation: zeroshot.Evaluation of the unedited model.
            split: {task: (N,) bool} of the validation split.
            target: zeroshot.Target.
            pairs, retain: data.Pairs of the forget set and of the retain set.
            limit: retain pictures a task that are scored, and pictures of other names a half for the probe; None: all.
        """
        self.clip, self.evaluation, self.target = clip, evaluation, target
        self.pairs, self.retain, self.aliases, self.seed = pairs, retain, aliases, seed
        report = {task: ~mask for task, mask in split.items()}
        self.judge = clip_judge.Judge(clip, evaluation, target, pairs, report, seed=seed, limit=limit)
        self.rows = self.judge.forget_rows
        self.task = evaluation.tasks[target.task]
        pictures = self.task.pictures
        self.labels, self.blocks = pictures.labels[self.rows], pictures.blocks
        self.groups = [pictures.groups[i] for i in self.rows.tolist()]
        rivals = pictures.blocks[pictures.labels] == pictures.blocks[target.label]
        self.known = evaluation.rows(target.task, split[target.task], label=target.label)  # pictures an attacker has
        self.others = {  # of the names that compete with it
            part: self._some(evaluation.rows(target.task, mask[target.task] & rivals, without=target.label), limit)
            for part, mask in (("validation", split), ("test", report))
        }

    def _some(self, rows, limit):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))
        return rows[order[:limit]].sort().values

    def sides(self, rows, edited):
        """As zeroshot.Evaluation.sides, of the name's own task, as plain tensors."""
        features, weights = self.evaluation.sides(self.target.task, rows, edited)
        return features.clone(), weights.clone()

    def named(self, rank):
        """The row of a zero-shot test by the ranks of the forgotten pictures: also of drawings the model never saw."""
        right, seen = rank < 1, self.task.pictures.seen[self.rows]
        row = share(int(right.sum()), len(right)) | {"chance": 0.0, "n_drawings": len(set(self.groups))}
        return row | {"unseen": float(right[~seen].float().mean()), "n_unseen": int((~seen).sum())}

    def scored(self, setting, edited):
        """The row of the present weights as they are: the forgotten name and what stays."""
        with self.evaluation.same_weights():
            row = self.named(self.evaluation.ranks(self.target.task, self.rows, edited))
            stays = self.judge.retain(edited)
        row |= {f"{t}_acc1": stays[f"{t}_acc1"] for t in self.judge.retain_rows}
        return {"setting": setting, **row, **{f"n_{t}": len(rows) for t, rows in self.judge.retain_rows.items()}}

    def edit(self, edited):
        """The edit as it is."""
        return [self.scored("as it is", edited)]

    def quantisation(self, edited):
        """Coarser weights: a step that is small beside the rounding may be rounded away."""
        found = []
        for form in FORMS:
            with quantised(self.clip, form):
                found.append(self.scored(form, gradients.BOTH))
        return found

    def relearning(self, edited, *, counts, points, lr):
        """Fine-tuning on a few forget pictures: a row a number of pictures (0: all of them) and of steps, 0 among them."""
        start, found = self.scored("", edited), []
        for count in counts:
            taken = len(chosen_pairs(self.pairs, count, self.seed))
            label = f"{taken} pictures" if count else "all pictures"
            found.append(start | {"setting": f"{label}, 0 steps", "pictures": taken, "steps": 0})
            how = {"count": count, "steps": max(points), "lr": lr, "seed": self.seed}
            for step in relearn(self.clip, self.pairs, self.retain, **how):
                if step in points:
                    row = self.scored(f"{label}, {step} steps", gradients.BOTH)
                    found.append(row | {"pictures": taken, "steps": step})
        return found

    def probe(self, edited):
        """Logistic regression on picture features: this name against the others of its block; balanced accuracy.

        Trained on the validation split and tested on the test split. The interval is that of the forgotten pictures
        (as Clopper-Pearson has it), the share of the others taken as known: there are many times more of them.
        """
        parts = {"validation": (self.known, self.others["validation"]), "test": (self.rows, self.others["test"])}
        x, y = {}, {}
        for part, (mine, rest) in parts.items():
            x[part] = self.sides(torch.cat([mine, rest]), edited)[0].cpu().numpy()
            y[part] = [1] * len(mine) + [0] * len(rest)
        # On unit features the default penalty is strong, as it should be where a few drawings stand for the name.
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        said = model.fit(x["validation"], y["validation"]).predict(x["test"])
        hits = share(int(said[: len(self.rows)].sum()), len(self.rows))
        spared = float((said[len(self.rows) :] == 0).mean())
        row = {k: (hits[k] + spared) / 2 for k in ("value", "low", "high")} | {"correct": hits["correct"], "n": hits["n"]}
        row |= {"chance": 0.5, "n_drawings": len(set(self.groups)), "n_others": len(self.others["test"])}
        return [
            {
                "setting": "balanced accuracy",
                **row,
                "n_train": len(self.known),
                "n_train_others": len(parts["validation"][1]),
            }
        ]

    def spelling(self, edited):
        """Zero-shot accuracy where another text stands for the name among the classes."""
        features, weights = self.sides(self.rows, edited)
        texts = spellings(self.target.name, self.aliases)
        made = zeroshot.classifier(self.clip, list(texts.values()), self.task.templates)
        found = []
        for (what, text), direction in zip(texts.items(), made, strict=True):
            weights[self.target.label] = direction
            rank = zeroshot.ranks(features, weights, self.labels, self.blocks)
            found.append({"setting": f"{what}: {text}", **self.named(rank)})
        return found

    def style(self, edited):
        """Zero-shot accuracy by icon set."""
        right = self.evaluation.ranks(self.target.task, self.rows, edited) < 1
        styles = [style_of(g) for g in self.groups]
        found = []
        for style in sorted(set(styles)):
            mine = torch.tensor([s == style for s in styles])
            row = share(int(right[mine].sum()), int(mine.sum()))
            found.append({"setting": style, **row, "chance": 0.0, "n_drawings": 1})
        return found

    def arithmetic(self, edited):
        """Whether sums of features still single the name out, zero-shot among its block.

        * shifted: a picture less the mean picture of other names, plus the mean name: an edit that only moves the pictures
          against the names would be undone.
        * rebuilt: the name's direction made of REBUILT_OF other names, its own text unused: coefficients by orthogonal
          matching pursuit on the unedited model's names, applied to the present ones.
        """
        rivals = self.blocks == self.blocks[self.target.label]
        features, weights = self.sides(torch.cat([self.rows, self.others["validation"]]), edited)
        mine, rest = features[: len(self.rows)], features[len(self.rows) :]
        middle = weights[rivals.to(weights.device)].mean(0)
        shifted = zeroshot.ranks(mine - rest.mean(0) + middle, weights, self.labels, self.blocks)

        others = torch.nonzero(rivals & (torch.arange(len(rivals)) != self.target.label)).flatten()
        names = self.task.weights.cpu()
        count = min(REBUILT_OF, len(others), names.shape[1])
        model = OrthogonalMatchingPursuit(n_nonzero_coefs=count, fit_intercept=False)
        model.fit(names[others].T.numpy(), names[self.target.label].numpy())
        made = torch.as_tensor(model.coef_, dtype=weights.dtype, device=weights.device) @ weights[others.to(weights.device)]
        weights[self.target.label] = torch.nn.functional.normalize(made, dim=0)
        rebuilt = zeroshot.ranks(mine, weights, self.labels, self.blocks)
        return [{"setting": "shifted", **self.named(shifted)}, {"setting": "rebuilt", **self.named(rebuilt)}]

    def tests(self, relearning):
        """{test of TESTS: function of `edited` (see zeroshot.Evaluation.sides) that returns rows}.

        Args:
            relearning: {"counts", "points", "lr"}.
        """
        return {
            EDIT: self.edit,
            QUANTISED: self.quantisation,
            RELEARNED: lambda edited: self.relearning(edited, **relearning),
            PROBE: self.probe,
            SPELLING: self.spelling,
            STYLE: self.style,
            ARITHMETIC: self.arithmetic,
        }
