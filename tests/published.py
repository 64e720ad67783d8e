"""The published loop, written plainly: gradients, search, evaluation, membership, baselines and log lines.

In plain torch, on the model's own forward pass. What PROTOCOL=paper does is compared with it; the code under test shares
only the loading of a model, the decoding of its pictures and the reading of pairs.
"""

import copy
import csv
import io
import math
import zlib

import numpy as np
import tiny
import torch
import torch.nn.functional as F
from open_clip import SIMPLE_IMAGENET_TEMPLATES
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from torchvision import transforms

from slug.data import pairs

LEFT_OUT = ("alien", "bento box")  # names whose pairs the retain set leaves out


def pareto(rows):
    """The (name, importance, |alignment|) that no other one beats."""

    def beats(a, b):
        return a[1] >= b[1] and a[2] <= b[2] and a[1:] != b[1:]

    return [r[0] for r in rows if not any(beats(other, r) for other in rows)]


class Set:
    """Labelled pictures: (N, 3, S, S), labels, class names, templates, and the block of each class."""

    def __init__(self, images, labels, names, templates, blocks):
        self.images, self.labels, self.names, self.templates = torch.stack(images), torch.tensor(labels), names, templates
        self.blocks = torch.tensor(blocks)


class Published:
    """One model, one name, and everything that the published runs read."""

    def __init__(self, model, world, name, tar, retain, mia, *, share):
        self.clip = tiny.load_folder(model)
        self.module, self.name = self.clip.module, name
        self.forget = self.pairs(tar)
        self.others = self.pairs(mia)
        self.retain_items = [s for s in pairs.read_tar(retain) if not any(n in s[2].lower() for n in LEFT_OUT)]
        self.celeba, self.frequent = self.load_celeba(world / "celeba")
        self.imagenet = self.load_imagenet(world / "ImageNet", share)

    # ------------------------------------------------------------------------------------------------------------ data

    def picture(self, item, transform=None):
        """A decoded picture as uint8, or None."""
        try:
            return (transform or self.clip.transform)(Image.open(item).convert("RGB"))
        except (OSError, SyntaxError):
            return None

    def pairs(self, path):
        """(pictures, captions) of a tar in file order."""
        found = [(self.picture(io.BytesIO(image)), text) for _, image, text in pairs.read_tar(path)]
        return torch.stack([i for i, _ in found if i is not None]), [t for i, t in found if i is not None]

    def retain_crops(self):
        """(pictures, captions) of the retain set after random resized crops, shuffled with seed 0."""
        crop = transforms.RandomResizedCrop(
            self.clip.side, scale=(0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC, antialias=None
        )

        def transform(image):
            torch.manual_seed(zlib.crc32(image.tobytes()))
            return transforms.functional.pil_to_tensor(crop(image))

        with torch.random.fork_rng():
            found = [(self.picture(io.BytesIO(image), transform), text) for _, image, text in self.retain_items]
        found = [(i, t) for i, t in found if i is not None]
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
        return torch.stack([found[i][0] for i in order]), [found[i][1] for i in order]

    def load_celeba(self, root):
        """Pictures of the listed identities and of the name, all sorted names as classes; and the labels of the listed."""
        rows = [line.split() for line in (root / "list_identity_celeba.txt").read_text().splitlines()[2:]]
        names = sorted({n.replace("_", " ") for _, n in rows})
        listed = {n.replace("_", " ") for n in (root / "frequent_celebs.txt").read_text().split()}
        images, labels = [], []
        for image, name in ((i, n.replace("_", " ")) for i, n in rows):
            picture = self.picture(root / "img_align_celeba" / image)
            if name in listed | {self.name} and picture is not None:
                images.append(picture)
                labels.append(names.index(name))
        return Set(images, labels, names, ["{}."], [0] * len(names)), [names.index(n) for n in sorted(listed)]

    def load_imagenet(self, root, share):
        """A share of the pictures, drawn by RandomState(0) over all classes."""
        with (root / "classes.csv").open(newline="") as f:
            classes = list(csv.DictReader(f))
        paths = [(p, n) for n, row in enumerate(classes) for p in sorted((root / "val" / row["folder"]).iterdir())]
        chosen = sorted(np.random.RandomState(0).permutation(len(paths))[: round(share * len(paths))])
        images, labels = [self.picture(paths[i][0]) for i in chosen], [paths[i][1] for i in chosen]
        templates = [t("{}") for t in SIMPLE_IMAGENET_TEMPLATES]
        return Set(images, labels, [r["name"] for r in classes], templates, [int(r["block"]) for r in classes])

    # ------------------------------------------------------------------------------------------------------ evaluation

    def image(self, pictures):
        """Unit features of pictures."""
        return F.normalize(self.module.encode_image(self.clip.normalise(pictures)), dim=-1)

    def text(self, texts):
        """Unit features of texts."""
        return F.normalize(self.module.encode_text(self.clip.tokenizer(texts)), dim=-1)

    def top(self, found):
        """(N, 2) whether the own class is the first, and among the first five, of each picture's block."""
        texts = [self.text([t.format(n) for t in found.templates]).mean(0) for n in found.names]
        weights = F.normalize(torch.stack(texts), dim=-1)
        logits = 100 * self.image(found.images) @ weights.T
        logits[found.blocks[None] != found.blocks[found.labels][:, None]] = -math.inf
        best = logits.topk(5, dim=1).indices == found.labels[:, None]
        return torch.stack([best[:, 0], best.any(1)], 1)

    seeds = range(10)

    def membership(self):
        """(mean, deviation) in % of telling the forget set from the other shard by each pair's cosine."""
        own = [(self.image(images) * self.text(texts)).sum(1).numpy() for images, texts in (self.forget, self.others)]
        size, scores = min(map(len, own)), []
        for seed in self.seeds:
            x = [c if len(c) == size else c[np.random.RandomState(seed).permutation(len(c))[:size]] for c in own]
            x, y = np.concatenate(x).astype(float)[:, None], np.array([1] * size + [0] * size)
            for train, test in StratifiedShuffleSplit(n_splits=10, test_size=0.1, random_state=seed).split(x, y):
                scores.append(LogisticRegression().fit(x[train], y[train]).score(x[test], y[test]))
        return 100 * np.mean(scores), 100 * np.std(scores)

    @torch.no_grad()
    def evaluate(self):
        """The figures of a log line."""
        celeba, labels = self.top(self.celeba), self.celeba.labels
        forget = celeba[labels == self.celeba.names.index(self.name)].double().mean(0)
        by_name = torch.stack([celeba[labels == label].double().mean(0) for label in self.frequent]).mean(0)
        imagenet = self.top(self.imagenet).double().mean(0)
        return [x.item() for x in (*forget, *by_name, *imagenet)] + list(self.membership())

    @staticmethod
    def line(n, figures, *, ratio=None, mia=1):
        """A published log line."""
        f1, f5, c1, c5, t1, t5, mean, deviation = figures
        step = "" if ratio is None else f"ratio: {ratio:.6g}, "
        return (
            f"iter: {n}, {step}fgt_acc@1: {f1:.4f}, fgt_acc@5: {f5:.4f}, celeba100@1: {c1:.4f}, celeba100@5: {c5:.4f}, "
            f"test_acc@1: {t1:.4f}, test_acc@5: {t5:.4f}, MIA: {mia * mean:.2f}±{mia * deviation:.2f}"
        )

    # -------------------------------------------------------------------------------------------------------- gradients

    def loss(self, images, texts, kind):
        """The loss of a batch: "cosine" or "contrastive"."""
        image, text = self.image(images), self.text(texts)
        if kind == "cosine":
            return F.cosine_embedding_loss(image, text, torch.ones(len(image)))
        logits = self.module.logit_scale.exp() * image @ text.T
        truth = torch.arange(len(logits))
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2

    def gradient(self, found, kind, *, square=False):
        """Mean of the batches' gradients, of 16 pairs each, in train mode; a short last batch counts for "cosine" only."""
        images, texts = found
        batches = [slice(i, i + 16) for i in range(0, len(texts), 16)]
        if kind == "contrastive":
            batches = [b for b in batches if b.stop <= len(texts)]
        total = {n: torch.zeros_like(p) for n, p in self.module.named_parameters()}
        self.module.train().requires_grad_(True)
        for b in batches:
            self.module.zero_grad()
            self.loss(images[b], texts[b], kind).backward()
            for n, p in self.module.named_parameters():
                if p.grad is not None:
                    total[n] += (p.grad**2 if square else p.grad) / len(batches)
        self.module.eval().requires_grad_(False)
        return total

    # ------------------------------------------------------------------------------------------------------------- SLUG

    def fronts(self, forget, retain):
        """The Pareto layers of both encoders by the published figures; biases, embeddings and the scale are left out."""
        rows = {"vision": [], "language": []}
        for n, p in self.module.named_parameters():
            if not n.endswith("bias") and "embedding" not in n and "logit" not in n:
                alignment = F.cosine_similarity(forget[n].flatten(), retain[n].flatten(), dim=0).abs().item()
                row = n, (forget[n].norm() / p.norm()).item(), alignment
                rows["vision" if n.startswith("visual") else "language"].append(row)
        return {encoder: pareto(part) for encoder, part in rows.items()}

    def search(self, layer, gradient):
        """The log lines of a layer's ten steps, and [(step, figures)]."""
        saved = -gradient[layer]  # the files hold the negated gradient, so a negative ratio is ascent
        weight = dict(self.module.named_parameters())[layer]
        original, lines, found = weight.detach().clone(), [], []
        lines.append(self.line(0, self.evaluate(), ratio=0))
        ratio, low, high = (-weight.norm() / (10 * saved.norm())).item(), 0.0, None
        for n in range(1, 11):
            with torch.no_grad():
                weight.copy_(original + ratio * saved)
            figures = self.evaluate()
            lines.append(self.line(n, figures, ratio=-ratio))
            found.append((-ratio, figures))
            if figures[1] > 0:
                low = ratio
                ratio = ratio * 2 if high is None else (low + high) / 2
            else:
                high = ratio
                ratio = (low + high) / 2
        with torch.no_grad():
            weight.copy_(original)
        return lines, found

    # ------------------------------------------------------------------------------------------------------- baselines

    def epochs(self, method, lr, count, gradient=None):
        """The figures after each epoch of FT, GA, GAFT or SalUn; the model is the same afterwards."""
        before = copy.deepcopy(self.module.state_dict())
        decayed = [(n, p) for n, p in self.module.named_parameters() if p.ndim >= 2]
        decayed = {n for n, _ in decayed if not any(part in n for part in ("bn", "ln", "bias", "logit_scale"))}
        named = dict(self.module.named_parameters())
        groups = [
            {"params": [p for n, p in named.items() if n in decayed], "weight_decay": 0.1},
            {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6)
        retain = self.retain_plain()
        sets = {"forget": (self.forget, "cosine", -1), "retain": (retain, "contrastive", 1)}
        order = {"ft": ["retain"], "ga": ["forget"], "gaft": ["forget", "retain"], "salun": ["forget", "retain"]}[method]
        length = {"forget": math.ceil(len(self.forget[1]) / 32), "retain": len(retain[1]) // 32 or 1}
        total = count * (length["retain"] if method == "ga" else sum(length[s] for s in order))
        mask = None
        if method == "salun":
            flat = torch.cat([g.abs().flatten() for g in gradient.values()])
            ranks = flat.argsort(descending=True, stable=True).argsort()  # of equal gradients the first ones are taken
            parts = (ranks < round(0.5 * len(flat))).split([g.numel() for g in gradient.values()])
            mask = {n: part.view(g.shape) for (n, g), part in zip(gradient.items(), parts, strict=True)}
        step, found, g = 0, [], torch.Generator().manual_seed(0)
        for _ in range(count):
            for part in order:
                (images, texts), kind, sign = sets[part]
                rows = torch.randperm(len(texts), generator=g)
                for i in range(length[part]):
                    b = rows[32 * i : 32 * (i + 1)]
                    for group in optimiser.param_groups:
                        group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / total))
                    self.module.requires_grad_(True)
                    optimiser.zero_grad()
                    (sign * self.loss(images[b], [texts[k] for k in b], kind)).backward()
                    if mask is not None:
                        for n, p in named.items():
                            p.grad = p.grad if p.grad is None else p.grad * mask[n]
                    optimiser.step()
                    self.module.requires_grad_(False)
                    self.module.logit_scale.clamp_(0, math.log(100))
                    step += 1
            found.append(self.evaluate())
        self.module.load_state_dict(before)
        return found

    def retain_plain(self):
        """(pictures, captions) of the retain set with the evaluation transform, in file order."""
        found = [(self.picture(io.BytesIO(image)), text) for _, image, text in self.retain_items]
        return torch.stack([i for i, _ in found if i is not None]), [t for i, t in found if i is not None]

    def dampened(self, forget, retain):
        """The figures after each of SSD's ten dampenings, which compound; the model is the same afterwards."""
        before, found = copy.deepcopy(self.module.state_dict()), []
        for d in np.linspace(0.1, 5, 10):
            with torch.no_grad():
                for n, p in self.module.named_parameters():
                    chosen = forget[n] > 10 * retain[n]
                    factor = (d * retain[n] / forget[n]).clamp(max=1)
                    p.copy_(torch.where(chosen, p * factor, p))
            found.append(self.evaluate())
        self.module.load_state_dict(before)
        return found


def reported(epochs):
    """The number of the published epoch: the first with FA@1 = 0, else the one of the lowest FA@1."""
    accuracies = [figures[0] for figures in epochs]
    return 1 + (accuracies.index(0) if 0 in accuracies else accuracies.index(min(accuracies)))
