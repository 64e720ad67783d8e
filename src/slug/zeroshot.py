"""Zero-shot classification, and the evaluation that the search, the baselines and the reports share."""

import contextlib
from typing import NamedTuple

import torch
from tqdm import tqdm

from slug import cli, deltas, fastpath, files, metrics
from slug.data import plain_name
from slug.errors import SlugError

IDENTITY_TEMPLATES = ("{}.",)
BOTH = "both"  # stands for a layer's name where both encoders differ from the original


def object_templates():
    """open_clip's seven simple ImageNet templates, as format strings."""
    from open_clip import SIMPLE_IMAGENET_TEMPLATES

    return tuple(t("{}") for t in SIMPLE_IMAGENET_TEMPLATES)


def prompts(names, templates):
    """Every name in every template, name by name."""
    return [t.format(n) for n in names for t in templates]


def mean_prompts(features, count):
    """Unit prompt features (C * T, D) in the order of `prompts` -> classifier (C, D), C = `count`: a name's mean, brought
    back to length 1."""
    return torch.nn.functional.normalize(features.view(count, -1, features.shape[1]).mean(1), dim=-1)


def text_features(clip, texts, batch_size=256):
    """Unit features (N, D) of texts."""
    return fastpath.Tower(clip, "language", clip.tokenize(texts), batch_size=batch_size).features()


def classifier(clip, names, templates, batch_size=256):
    """Zero-shot classifier (C, D): the mean of a name's unit prompt features, brought back to length 1."""
    return mean_prompts(text_features(clip, prompts(names, templates), batch_size), len(names))


def image_features(clip, images, batch_size=256, desc=None):
    """Unit features (N, D) of uint8 pictures (N, 3, S, S)."""
    return fastpath.Tower(clip, "vision", images, batch_size=batch_size).features(desc=desc)


def ranks(features, weights, labels, blocks):
    """Rank (N,) of each picture's own class among its block's classes: 0 is a correct top-1, below 5 a correct top-5.

    Ties count against the picture.

    Args:
        features: (N, D) unit picture features.
        weights: (C, D) classifier.
        labels: (N,) class indices.
        blocks: (C,) block of each class; a picture competes within its own label's block only.
    """
    weights, labels, blocks = weights.to(features.device), labels.to(features.device), blocks.to(features.device)
    cosines = features @ weights.T
    own = cosines.gather(1, labels[:, None])
    rivals = (cosines >= own) & (blocks[None] == blocks[labels][:, None])
    rivals[torch.arange(len(labels)), labels] = False
    # A NaN compares false with everything, which would read as a perfect rank: a broken model knows nothing.
    return torch.where(own[:, 0].isfinite(), rivals.sum(1), len(blocks)).cpu()


def margins(features, weights, labels, blocks):
    """(N,) cosine of each picture to its own class less that to the best other class of the block: above 0 is correct."""
    weights, labels, blocks = weights.to(features.device), labels.to(features.device), blocks.to(features.device)
    cosines = features @ weights.T
    own = cosines.gather(1, labels[:, None])
    cosines[blocks[None] != blocks[labels][:, None]] = -torch.inf
    cosines.scatter_(1, labels[:, None], -torch.inf)
    return (own[:, 0] - cosines.max(1).values).cpu()


def guesses(features, weights, labels, blocks):
    """(N,) index of the class each picture is taken for, among the classes of its own block."""
    labels, blocks = labels.to(features.device), blocks.to(features.device)
    cosines = features @ weights.to(features.device).T
    cosines[blocks[None] != blocks[labels][:, None]] = -torch.inf
    return cosines.argmax(1).cpu()


class Task(NamedTuple):
    """One zero-shot task: its pictures, templates, and the unedited model's two sides of it."""

    pictures: object  # data.PictureSet
    templates: tuple[str, ...]
    vision: fastpath.Tower  # of the pictures
    language: fastpath.Tower  # of all names in all templates
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
        budget = fastpath.Budget(cache_gb, clip.device)
        for task, (pictures, templates) in sets.items():
            tokens = clip.tokenize(prompts(pictures.names, templates))
            language = fastpath.Tower(clip, "language", tokens, batch_size=batch_size, budget=budget)
            vision = fastpath.Tower(clip, "vision", pictures.images, batch_size=batch_size, budget=budget)
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
        return deltas.applied(self.clip, edit)

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


def accuracies(rank):
    """(top-1, top-5) accuracy of ranks (N,)."""
    return (rank < 1).float().mean().item(), (rank < 5).float().mean().item()


def describe(rank, k=1):
    """Accuracy @k with its counts and 95% interval, as text: `93.2% (466/500, 90.6-95.3)`."""
    correct, total = int((rank < k).sum()), len(rank)
    low, high = metrics.interval(correct, total)
    return f"{correct / max(total, 1):.1%} ({correct}/{total}, {100 * low:.1f}-{100 * high:.1f})"


def evaluate_and_report(clip, pictures, templates, args, path):
    """Zero-shot accuracy of a picture set, printed with counts and intervals and written to `path` as JSON."""
    features = image_features(clip, pictures.images, args.eval_batch_size, desc="pictures")
    weights = classifier(clip, pictures.names, templates, args.eval_batch_size)
    rank = ranks(features, weights, pictures.labels, pictures.blocks)
    record = {"settings": cli.settings(args), "versions": cli.versions(), "broken": pictures.broken}
    for part, mask in (("all", torch.ones_like(pictures.seen)), ("seen", pictures.seen), ("unseen", ~pictures.seen)):
        if mask.any():
            acc1, acc5 = accuracies(rank[mask])
            drawings = len({g for g, m in zip(pictures.groups, mask.tolist(), strict=True) if m})
            record[part] = {"acc1": acc1, "acc5": acc5, "pictures": int(mask.sum()), "groups": drawings}
            print(f"{part}: top-1 {describe(rank[mask])}, top-5 {describe(rank[mask], 5)}, {drawings} drawings")
    files.write_json(path, record)
    print(f"{len(pictures.names)} classes, {pictures.broken} broken pictures skipped -> {path}")


def similarity(evaluation, targets, half, edited, *, others=9, seed=0):
    """Cosines of mean picture features and name prompts: (names, (K, K) array, number of pictures), the targets first.

    Args:
        targets: [Target] of one task.
        others: how many other classes of the first one's block stand beside them.
    """
    target, own = targets[0], [t.label for t in targets]
    task = evaluation.tasks[target.task]
    blocks, labels = task.pictures.blocks, task.pictures.labels
    rivals = [c for c in range(len(blocks)) if c not in own and blocks[c] == blocks[target.label]]
    rivals = [c for c in rivals if (labels[half[target.task]] == c).any()]
    g = torch.Generator().manual_seed(seed)
    chosen = [*own, *sorted(rivals[i] for i in torch.randperm(len(rivals), generator=g)[:others].tolist())]
    rows = torch.cat([evaluation.rows(target.task, half[target.task], label=c) for c in chosen])
    features, weights = evaluation.sides(target.task, rows, edited)
    means = torch.stack([features[(labels[rows] == c).to(features.device)].mean(0) for c in chosen])
    means = torch.nn.functional.normalize(means, dim=-1)
    return [task.pictures.names[c] for c in chosen], (means @ weights[chosen].T).cpu().numpy(), len(rows)


def shown(evaluation, target, half, edited, *, count=7, seed=0):
    """Pictures for people: (images (2 * count, 3, S, S), true names, guessed names), first the target's, then others'.

    Drawings never seen come first among the target's pictures; the others are drawn by `seed`.
    """
    task = evaluation.tasks[target.task]
    pictures, g = task.pictures, torch.Generator().manual_seed(seed)
    rivals = pictures.blocks[pictures.labels] == pictures.blocks[target.label]
    parts = []
    for rows in (
        evaluation.rows(target.task, half[target.task], label=target.label),
        evaluation.rows(target.task, half[target.task] & rivals, without=target.label),
    ):
        rows = rows[torch.randperm(len(rows), generator=g)]
        parts.append(rows[pictures.seen[rows].long().argsort(stable=True)][:count] if not parts else rows[:count])
    rows = torch.cat(parts)
    features, weights = evaluation.sides(target.task, rows, edited)
    guess = guesses(features, weights, pictures.labels[rows], pictures.blocks)
    names = pictures.names
    return pictures.images[rows], [names[i] for i in pictures.labels[rows]], [names[i] for i in guess]
