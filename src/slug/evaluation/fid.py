"""FID: the Frechet distance of two sets of picture features (Heusel et al., 2017), and which pictures are compared."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import transforms
from torchvision.models import inception_v3

from slug import files
from slug.data.names import plain_name
from slug.errors import SlugError, brief
from slug.evaluation.canvas_prompts import Concept, Request

FEWEST = 1000  # different pictures a side from which on FID is given


def deal(
    asked: Iterable[Request], concepts: Sequence[Concept], count: int, first_seed: int
) -> list[tuple[Concept, Request]]:
    """Requests for `count` different pictures, each dealt to a concept that it does not show; none if every cell shows all.

    The unedited pipeline makes all of these pictures. Of an unlearning method, the pipeline that forgot a concept makes
    those that are dealt to it. So all have as many pictures of the same prompts and seeds, and none twice.

    Args:
        asked: dealt first; then come their cells again and again, with seeds from `first_seed` on.
        concepts: each is dealt as many as the others where possible.
    """
    asked, free = list(asked), {}  # {cell: the concepts that it does not show}
    for r in asked:
        cell = r._replace(seed=0)
        if cell not in free:
            free[cell] = [c for c in concepts if not c.shown_by([cell])[0]]
    free = {cell: found for cell, found in free.items() if found}
    fresh = (cell._replace(seed=first_seed + i) for i, cell in enumerate(itertools.cycle(free)))
    dealt: list[tuple[Concept, Request]] = []
    held: Counter[Concept] = Counter()
    for r in itertools.chain((r for r in asked if r._replace(seed=0) in free), fresh):
        if len(dealt) == count:
            break
        concept = min(free[r._replace(seed=0)], key=held.__getitem__)
        held[concept] += 1
        dealt.append((concept, r))
    return dealt


def reference(folder: Path, wanted: Iterable[Request], count: int, seed: int = 0) -> list[Path]:
    """`count` pictures of the cells of Requests, drawn by the seed, or all if there are fewer.

    Args:
        folder: of <Style>/<Object>/<n>.jpg.
    """
    cells = {(plain_name(r.style), plain_name(r.object)) for r in wanted}
    found = sorted(folder.glob("*/*/*"))
    found = [p for p in found if (plain_name(p.parts[-3]), plain_name(p.parts[-2])) in cells]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return [found[i] for i in order[:count].tolist()]


def chosen(
    forgotten: Mapping[str, Sequence[Concept]], asked: Sequence[Request], first_seed: int, folder: str, seed: int = 0
) -> tuple[list[tuple[Concept, Request]], list[Path], str]:
    """(`deal`'s Requests, as many real pictures, a remark for the report); no pictures where FID cannot be given.

    Args:
        forgotten: {method: concepts that it forgot}.
        asked: Requests of the test split.
        first_seed: of the pictures besides these.
        folder: real pictures, <Style>/<Object>/<n>.jpg.
    """
    by_method = list(forgotten.values())
    shared = [c for c in by_method[0] if all(c in found for found in by_method)]
    dealt = deal(asked, shared, max(FEWEST, len(asked)), first_seed)
    if not dealt:
        return [], [], "FID is left out: no concept was forgotten by every method."
    real = reference(
        files.existing(folder, "reference", "give --reference, or --no-fid"), [r for _, r in dealt], len(dealt), seed
    )
    if len(real) < FEWEST:
        remark = f"FID is left out: it takes {FEWEST} different pictures a side, and the reference has {len(real)} of the"
        return [], [], f"{remark} retained concepts."
    remark = f"FID: of {len(real)} different pictures a side of the retained concepts, dealt to a method's pipelines of"
    return (
        dealt[: len(real)],
        real,
        f"{remark} {len(shared)} concepts; one figure a method, for styles and objects together.",
    )


def resize(size: int) -> transforms.Compose:
    """Transform of PIL pictures to uint8 (3, size, size): the middle of those that are not square."""
    steps = (transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size))
    return transforms.Compose([*steps, transforms.PILToTensor()])


def frechet(a: Any, b: Any) -> float:
    """Frechet distance of features (N, D) and (M, D), each set taken for normally distributed: FID, for Inception's."""
    a, b = (np.asarray(x, float) for x in (a, b))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The trace of the root of a product of two covariances: its eigenvalues are real and not negative but for rounding.
    roots = np.sqrt(np.clip(np.linalg.eigvals(first @ second).real, 0, None))
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * roots.sum())


class Inception:
    """Pooled features of the network with which published FIDs are computed.

    The weights are those of TensorFlow's Inception of 2015 under torchvision's names, as pytorch-fid publishes them
    (pt_inception-2015-12-05-6726825d.pth). That network differs from torchvision's in its pooling branches: averages leave
    the padding out, and the last block takes the maximum.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], device: str | torch.device = "cpu") -> None:
        """
        Args:
            weights: state dict.
        Raises:
            SlugError: the weights do not fit.
        """
        network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        try:
            network.load_state_dict(weights)
        except RuntimeError as err:
            raise SlugError(f"these are no weights of FID's Inception: {brief(err)}; give pytorch-fid's file") from err
        network.fc = torch.nn.Identity()
        self.network, self.device = network.to(device).eval().requires_grad_(False), device
        entering: dict[str, torch.Tensor] = {}
        for name, block in network.named_children():
            if name == "Mixed_7c":
                block.register_forward_pre_hook(lambda _, given: entering.update(x=given[0]))
                block.branch_pool.register_forward_pre_hook(lambda *_: F.max_pool2d(entering.pop("x"), 3, 1, 1))
            elif name.startswith("Mixed") and hasattr(block, "branch_pool"):
                block.branch_pool.register_forward_pre_hook(lambda _, given: given[0] * _unpadded(given[0]))

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
        """Features (N, 2048) of uint8 pictures (N, 3, H, W)."""
        out = []
        for part in images.split(batch_size):
            x = F.interpolate(part.to(self.device).float() / 255, (299, 299), mode="bilinear", align_corners=False)
            out.append(self.network(2 * x - 1).float().cpu())
        return torch.cat(out)


def _unpadded(x: torch.Tensor) -> torch.Tensor:
    """Factors (height, width) by which a 3 x 3 average over zero padding becomes one that leaves the padding out."""
    return 1 / F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1)[0, 0]


def inception(path: str | Path, device: str | torch.device = "cpu") -> Inception:
    """The Inception of a weight file. SlugError if it is missing, damaged or has other weights."""
    path = files.existing(path, "Inception weights", "give --fid-weights, pytorch-fid's file, or leave it out")
    return Inception(files.read_tensors(path, "get it again"), device)
