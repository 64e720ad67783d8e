"""Zero-shot classification: prompts, features, classifiers, ranks and accuracies.

Shapes: N pictures of side S, C classes, T templates, D feature dimensions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from slug import cli, files
from slug.data.evaluation_sets import PictureSet
from slug.evaluation import statistics
from slug.models import towers
from slug.models.clip import Clip

IDENTITY_TEMPLATES = ("{}.",)


def object_templates() -> tuple[str, ...]:
    """open_clip's seven simple ImageNet templates, as format strings."""
    import slug.torchvision_cpu  # noqa: F401, I001  (before open_clip)
    from open_clip import SIMPLE_IMAGENET_TEMPLATES

    return tuple(t("{}") for t in SIMPLE_IMAGENET_TEMPLATES)


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every name in every template, name by name: C * T texts."""
    return [t.format(n) for n in names for t in templates]


def mean_prompts(features: torch.Tensor, count: int) -> torch.Tensor:
    """Classifier (C, D): the mean of each name's prompt features, scaled to length 1.

    Args:
        features: (C * T, D) unit features in the order of `prompts`.
        count: C.
    """
    return torch.nn.functional.normalize(features.view(count, -1, features.shape[1]).mean(1), dim=-1)


def text_features(clip: Clip, texts: list[str], batch_size: int = 256) -> torch.Tensor:
    """Unit features (N, D) of N texts."""
    return towers.Tower(clip, "language", clip.tokenize(texts), batch_size=batch_size).features()


def classifier(clip: Clip, names: Sequence[str], templates: Sequence[str], batch_size: int = 256) -> torch.Tensor:
    """Zero-shot classifier (C, D) of names (see `mean_prompts`)."""
    return mean_prompts(text_features(clip, prompts(names, templates), batch_size), len(names))


def image_features(clip: Clip, images: torch.Tensor, batch_size: int = 256, desc: str | None = None) -> torch.Tensor:
    """Unit features (N, D) of uint8 pictures (N, 3, S, S); `desc` names a progress bar."""
    return towers.Tower(clip, "vision", images, batch_size=batch_size).features(desc=desc)


def ranks(features: torch.Tensor, weights: torch.Tensor, labels: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Rank (N,) of each picture's own class among its block's classes: 0 is a correct top-1, below 5 a correct top-5.

    Ties count against the picture.

    Args:
        features: (N, D) unit picture features.
        weights: (C, D) classifier.
        labels: (N,) class indices.
        blocks: (C,) block of each class; a picture is classified among the classes of its own label's block.
    """
    weights, labels, blocks = weights.to(features.device), labels.to(features.device), blocks.to(features.device)
    cosines = features @ weights.T
    own = cosines.gather(1, labels[:, None])
    rivals = (cosines >= own) & (blocks[None] == blocks[labels][:, None])
    rivals[torch.arange(len(labels)), labels] = False
    # NaN compares false with everything, which would read as a perfect rank; a broken model gets the worst one.
    return torch.where(own[:, 0].isfinite(), rivals.sum(1), len(blocks)).cpu()


def margins(features: torch.Tensor, weights: torch.Tensor, labels: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """(N,) cosine of each picture to its own class minus that to the best other class of the block: above 0 is correct."""
    weights, labels, blocks = weights.to(features.device), labels.to(features.device), blocks.to(features.device)
    cosines = features @ weights.T
    own = cosines.gather(1, labels[:, None])
    cosines[blocks[None] != blocks[labels][:, None]] = -torch.inf
    cosines.scatter_(1, labels[:, None], -torch.inf)
    return (own[:, 0] - cosines.max(1).values).cpu()


def guesses(features: torch.Tensor, weights: torch.Tensor, labels: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """(N,) index of the class that each picture is taken for, among the classes of its own block."""
    labels, blocks = labels.to(features.device), blocks.to(features.device)
    cosines = features @ weights.to(features.device).T
    cosines[blocks[None] != blocks[labels][:, None]] = -torch.inf
    return cosines.argmax(1).cpu()


def accuracies(rank: torch.Tensor) -> tuple[float, float]:
    """(top-1, top-5) accuracy of ranks (N,), as fractions."""
    return (rank < 1).float().mean().item(), (rank < 5).float().mean().item()


def weights_of(labels: torch.Tensor) -> torch.Tensor:
    """(N,) weights of pictures with mean 1, by which a mean over pictures is the unweighted mean over their classes."""
    _, index, counts = labels.unique(return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[index].double())


def class_accuracies(rank: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """(top-1, top-5) accuracy of ranks (N,): the accuracy of each class of `labels` (N,), then their unweighted mean."""
    weights = weights_of(labels)
    return (weights * (rank < 1)).mean().item(), (weights * (rank < 5)).mean().item()


def describe(rank: torch.Tensor, k: int = 1) -> str:
    """Top-k accuracy of ranks with its counts and 95% interval, as text: `93.2% (466/500, 90.6-95.3)`."""
    correct, total = int((rank < k).sum()), len(rank)
    low, high = statistics.interval(correct, total)
    return f"{correct / max(total, 1):.1%} ({correct}/{total}, {100 * low:.1f}-{100 * high:.1f})"


def evaluate_and_report(
    clip: Clip, pictures: PictureSet, templates: Sequence[str], path: Path, *, batch_size: int, settings: Mapping[str, Any]
) -> None:
    """Zero-shot accuracy of a picture set, printed with counts and intervals and written to `path` as JSON.

    Args:
        settings: {flag: value} for the record (cli.flat).
    """
    features = image_features(clip, pictures.images, batch_size, desc="pictures")
    weights = classifier(clip, pictures.names, templates, batch_size)
    rank = ranks(features, weights, pictures.labels, pictures.blocks)
    record: dict[str, Any] = {"settings": settings, "versions": cli.versions(), "broken": pictures.broken}
    record["left_out"] = dict(pictures.left_out)
    for part, mask in (("all", torch.ones_like(pictures.seen)), ("seen", pictures.seen), ("unseen", ~pictures.seen)):
        if mask.any():
            acc1, acc5 = accuracies(rank[mask])
            groups = len({g for g, m in zip(pictures.groups, mask.tolist(), strict=True) if m})
            record[part] = {"acc1": acc1, "acc5": acc5, "pictures": int(mask.sum()), "groups": groups}
            print(f"{part}: top-1 {describe(rank[mask])}, top-5 {describe(rank[mask], 5)}, {groups} source images")
    files.write_json(path, record)
    print(f"{len(pictures.names)} classes, {pictures.broken} broken pictures skipped -> {path}")
