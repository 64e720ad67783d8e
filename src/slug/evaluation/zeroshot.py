"""Zero-shot classification: prompts, features, ranks."""

import torch

from slug import cli, files
from slug.evaluation import statistics
from slug.models import towers

IDENTITY_TEMPLATES = ("{}.",)


def object_templates():
    """open_clip's seven simple ImageNet templates, as format strings."""
    import slug.torchvision_cpu  # noqa: F401, I001  (before open_clip)
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
    return towers.Tower(clip, "language", clip.tokenize(texts), batch_size=batch_size).features()


def classifier(clip, names, templates, batch_size=256):
    """Zero-shot classifier (C, D): the mean of a name's unit prompt features, brought back to length 1."""
    return mean_prompts(text_features(clip, prompts(names, templates), batch_size), len(names))


def image_features(clip, images, batch_size=256, desc=None):
    """Unit features (N, D) of uint8 pictures (N, 3, S, S)."""
    return towers.Tower(clip, "vision", images, batch_size=batch_size).features(desc=desc)


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


def accuracies(rank):
    """(top-1, top-5) accuracy of ranks (N,)."""
    return (rank < 1).float().mean().item(), (rank < 5).float().mean().item()


def describe(rank, k=1):
    """Accuracy @k with its counts and 95% interval, as text: `93.2% (466/500, 90.6-95.3)`."""
    correct, total = int((rank < k).sum()), len(rank)
    low, high = statistics.interval(correct, total)
    return f"{correct / max(total, 1):.1%} ({correct}/{total}, {100 * low:.1f}-{100 * high:.1f})"


def evaluate_and_report(clip, pictures, templates, path, *, batch_size, settings):
    """Zero-shot accuracy of a picture set, printed with counts and intervals and written to `path` as JSON.

    Args:
        settings: {flag: value} for the record (`cli.flat`).
    """
    features = image_features(clip, pictures.images, batch_size, desc="pictures")
    weights = classifier(clip, pictures.names, templates, batch_size)
    rank = ranks(features, weights, pictures.labels, pictures.blocks)
    record = {"settings": settings, "versions": cli.versions(), "broken": pictures.broken}
    for part, mask in (("all", torch.ones_like(pictures.seen)), ("seen", pictures.seen), ("unseen", ~pictures.seen)):
        if mask.any():
            acc1, acc5 = accuracies(rank[mask])
            drawings = len({g for g, m in zip(pictures.groups, mask.tolist(), strict=True) if m})
            record[part] = {"acc1": acc1, "acc5": acc5, "pictures": int(mask.sum()), "groups": drawings}
            print(f"{part}: top-1 {describe(rank[mask])}, top-5 {describe(rank[mask], 5)}, {drawings} drawings")
    files.write_json(path, record)
    print(f"{len(pictures.names)} classes, {pictures.broken} broken pictures skipped -> {path}")
