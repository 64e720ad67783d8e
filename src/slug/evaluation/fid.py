"""FID: the Frechet distance of two sets of picture features (Heusel et al., 2017), and which pictures these are."""

import itertools
from collections import Counter

import slug.torchvision_cpu  # noqa: F401  (before torchvision)

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models import inception_v3

from slug import files
from slug.data.names import plain_name
from slug.errors import SlugError, brief
from slug.evaluation import canvas_prompts

FEWEST = 1000  # different pictures a side from which on FID is given


def deal(asked, concepts, count, first_seed):
    """Requests for `count` different pictures of what stays, each dealt to a concept that it does not show: [(concept,
    Request)]; none where every cell shows every concept.

    The unedited pipeline draws all of them; of an unlearned method, the pipeline that forgot a concept draws what is dealt
    to it. So both have as many pictures, of the same prompts and seeds, and none twice.

    Args:
        asked: [Request], which are dealt first; then come their cells, each time in the next seed from `first_seed` on.
        concepts: [(kind, name)]; each is dealt as many as the others where it can be.
    """
    free = {}  # of each cell: the concepts that it does not show
    for r in asked:
        cell = r._replace(seed=0)
        if cell not in free:
            free[cell] = [c for c in concepts if not canvas_prompts.shows(*c, [cell])[0]]
    free = {cell: found for cell, found in free.items() if found}
    fresh = (cell._replace(seed=first_seed + i) for i, cell in enumerate(itertools.cycle(free)))
    dealt, held = [], Counter()
    for r in itertools.chain((r for r in asked if r._replace(seed=0) in free), fresh):
        if len(dealt) == count:
            break
        concept = min(free[r._replace(seed=0)], key=held.__getitem__)
        held[concept] += 1
        dealt.append((concept, r))
    return dealt


def reference(folder, wanted, count, seed=0):
    """Paths of `count` pictures, or of all there are, of the cells that Requests are of: drawn by the seed.

    Args:
        folder: path of <Style>/<Object>/<n>.jpg.
    """
    cells = {(plain_name(r.style), plain_name(r.object)) for r in wanted}
    found = sorted(folder.glob("*/*/*"))
    found = [p for p in found if (plain_name(p.parts[-3]), plain_name(p.parts[-2])) in cells]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return [found[i] for i in order[:count].tolist()]


def frechet(a, b):
    """Frechet distance of two sets of features, each taken for normal (Heusel et al., 2017): FID, given Inception's.

    Args:
        a, b: (N, D), (M, D).
    """
    a, b = (np.asarray(x, float) for x in (a, b))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The trace of the root of a product of two covariances: its eigenvalues are real and not negative but for rounding.
    roots = np.sqrt(np.clip(np.linalg.eigvals(first @ second).real, 0, None))
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * roots.sum())


class Inception:
    """Pooled features (N, 2048) of the network that published FIDs are taken with.

    The weights are those of TensorFlow's Inception of 2015 in torchvision's names, as pytorch-fid gives them out
    (pt_inception-2015-12-05-6726825d.pth). That network differs from torchvision's in its pooling branches: averages leave
    the padding out, and the last block takes the maximum.
    """

    def __init__(self, weights, device="cpu"):
        """
        Args:
            weights: state dict.
        Raises:
            SlugError: the weights do not fit.
        """
        self.network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as err:
            raise SlugError(f"these are no weights of FID's Inception: {brief(err)}") from err
        self.network.fc = torch.nn.Identity()
        self.network.to(device).eval().requires_grad_(False)
        self.device = device
        entering = {}
        for name, block in self.network.named_children():
            if name == "Mixed_7c":
                block.register_forward_pre_hook(lambda _, args: entering.update(x=args[0]))
                block.branch_pool.register_forward_pre_hook(lambda *_: F.max_pool2d(entering.pop("x"), 3, 1, 1))
            elif name.startswith("Mixed") and hasattr(block, "branch_pool"):
                block.branch_pool.register_forward_pre_hook(lambda _, args: args[0] * _share(args[0]))

    @torch.inference_mode()
    def __call__(self, images, batch_size=32):
        """Features (N, 2048) of uint8 pictures (N, 3, H, W)."""
        out = []
        for part in images.split(batch_size):
            x = F.interpolate(part.to(self.device).float() / 255, (299, 299), mode="bilinear", align_corners=False)
            out.append(self.network(2 * x - 1).float().cpu())
        return torch.cat(out)


def _share(x):
    """What a 3 x 3 average over zero padding is to be multiplied by so that the padding does not count: (height, width)."""
    return 1 / F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1)[0, 0]


def inception(path, device="cpu"):
    """The Inception of a weight file. SlugError if it is missing, damaged or no such weights."""
    path = files.existing(path, "Inception weights", "give --fid-weights, pytorch-fid's file, or leave it out")
    return Inception(files.read_tensors(path, "get it again"), device)
