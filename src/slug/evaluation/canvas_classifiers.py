"""What judges generated pictures: the style and the object classifier of UnlearnCanvas, or the unedited CLIP."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import slug.torchvision_cpu  # noqa: F401  (before timm)

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from slug import files
from slug.data.canvas import KINDS, NAMED, classifier_settings, weights_of
from slug.data.names import plain_name
from slug.errors import SlugError, brief
from slug.evaluation import zeroshot
from slug.evaluation.canvas_prompts import Request, check_known

Labels = Mapping[str, Sequence[str]]  # {"style" or "object": labels in the order of the outputs}
Answers = dict[str, torch.Tensor]  # {"style" or "object": (N,) bool, whether a picture is taken for what was asked for}


class Judged(NamedTuple):
    """What a judge says of the pictures of N Requests.

    Attributes:
        right: its answers; False where there was nothing to judge.
        drawn: (N,) bool, whether the picture shows anything: what is black all over (a safety checker, NaN) is no answer.
    """

    right: Answers
    drawn: torch.Tensor


class Classifiers:
    """A style and an object classifier."""

    def __init__(
        self,
        networks: Mapping[str, torch.nn.Module],
        labels: Labels,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        device: str | torch.device = "cpu",
    ) -> None:
        """
        Args:
            networks: {kind: module}, pictures (N, 3, size, size) -> logits (N, classes).
            mean, std: of the three channels, pictures in [0, 1].
        """
        self.networks = {n: m.to(device).eval().requires_grad_(False) for n, m in networks.items()}
        self.labels, self.size, self.device = labels, size, device
        self.mean, self.std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (mean, std))

    def hash(self) -> str:
        """Hash of everything that the answers depend on."""
        state = {f"{k} {n}": t for k, m in self.networks.items() for n, t in m.state_dict().items()}
        state |= {"mean": self.mean, "std": self.std}
        return hashlib.sha256(f"{files.tensor_hash(state)}{self.labels}{self.size}".encode()).hexdigest()

    def _batches(self, images: torch.Tensor, batch_size: int = 256) -> Iterator[torch.Tensor]:
        for part in images.split(batch_size):
            x = part.to(self.device).float() / 255
            if x.shape[-1] != self.size:
                x = torch.nn.functional.interpolate(x, self.size, mode="bicubic", antialias=True).clamp(0, 1)
            yield (x - self.mean) / self.std

    @torch.inference_mode()
    def logits(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """{kind: (N, classes)} logits of uint8 pictures (N, 3, H, W)."""
        parts = [{n: m(x).float().cpu() for n, m in self.networks.items()} for x in self._batches(images)]
        return {n: torch.cat([p[n] for p in parts]) for n in self.networks}

    @torch.inference_mode()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(N, D) inputs of the object classifier's last layer, of uint8 pictures (N, 3, H, W)."""
        network: Any = self.networks["object"]
        parts = [network.forward_head(network.forward_features(x), pre_logits=True) for x in self._batches(images)]
        return torch.cat(parts).float().cpu()


class ClipClassifiers:
    """The unedited CLIP, zero-shot, for concepts that no classifier knows."""

    def __init__(self, clip: Any, labels: Labels) -> None:
        """
        Args:
            clip: models.Clip at its original weights.
            labels: a kind without labels is not judged.
        """
        self.clip = clip
        self.labels: Labels = {k: v for k, v in labels.items() if v}
        templates = {"style": ("{} style.",), "object": ("{}",)}
        self.weights = {k: zeroshot.classifier(clip, v, templates[k]) for k, v in self.labels.items()}

    def hash(self) -> str:
        """As Classifiers.hash."""
        return hashlib.sha256(f"{files.tensor_hash(self.weights)}{self.labels}".encode()).hexdigest()

    def logits(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """As Classifiers.logits: cosines."""
        side = self.clip.side
        if images.shape[-1] != side:
            images = torch.nn.functional.interpolate(images.float(), side, mode="bicubic", antialias=True)
            images = images.round().clamp(0, 255).to(torch.uint8)
        features = zeroshot.image_features(self.clip, images)
        return {k: (features @ w.T).cpu() for k, w in self.weights.items()}


Judge = Classifiers | ClipClassifiers


def correct(asked: Sequence[Request], logits: Mapping[str, torch.Tensor], labels: Labels) -> Answers:
    """Whether a judge takes the pictures of N Requests for what was asked for. SlugError if it does not know a name."""
    check_known(asked, labels)
    out = {}
    for kind, found in logits.items():
        known = {plain_name(n): i for i, n in enumerate(labels[kind])}
        wanted = torch.tensor([known.get(plain_name(getattr(r, kind)), -1) for r in asked])
        out[kind] = found.argmax(1) == wanted
    return out


def check_outputs(state: Mapping[str, torch.Tensor], kind: str, labels: Labels, path: Path) -> None:
    """SlugError where a classifier's last layer has the outputs of the other kind's: two files were confused."""
    outputs = {len(t) for n, t in state.items() if n.endswith(("head.weight", "fc.weight", "classifier.weight"))}
    other = next(k for k in KINDS if k != kind)
    if len(labels[other]) in outputs and len(labels[kind]) not in outputs:
        raise SlugError(
            f"{path} has {len(labels[other])} outputs, as the {other} classifier has, not {len(labels[kind])}: the two "
            f"files are confused; of UnlearnCanvas's own, {NAMED['style']} tells styles and {NAMED['object']} objects"
        )


def load_classifiers(folder: str | Path, device: str | torch.device = "cpu", side: int = 0) -> Classifiers:
    """The Classifiers of a folder: classifiers.json, and timm weights in style.safetensors and object.safetensors (or .pth).

    Args:
        side: see data.canvas.classifier_settings.
    Raises:
        SlugError: a file is missing or damaged, or the weights do not fit.
    """
    folder = files.existing(folder, "classifiers", "give --classifiers, a folder as data/README.md describes")
    settings = classifier_settings(folder, side)
    networks = {}
    fetching = [
        k for k in settings.get("options", {}) if str(k).startswith("pretrained") or k in ("checkpoint_path", "cache_dir")
    ]
    if ":" in settings["arch"] or fetching:
        what = ", ".join(fetching) or settings["arch"]
        raise SlugError(f"{folder}/classifiers.json asks timm for other weights ({what}); name one of timm's own networks")
    for kind in KINDS:
        path = weights_of(folder, kind)
        if path is None:
            raise SlugError(f"{folder} has no {kind}.safetensors or {kind}.pth; data/README.md says where to get it")
        classes = len(settings["labels"][kind])
        try:
            networks[kind] = timm.create_model(settings["arch"], num_classes=classes, **settings.get("options", {}))
            state: Any = load_file(path) if path.suffix != ".pth" else files.read_tensors(path, "get it again")
            state = state.get("model_state_dict", state)
            check_outputs(state, kind, settings["labels"], path)
            networks[kind].load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
        except (SafetensorError, RuntimeError, OSError, ValueError, TypeError, AttributeError) as err:
            raise SlugError(
                f"{path} does not fit {settings['arch']} ({brief(err)}); describe it in classifiers.json beside it"
            ) from err
    return Classifiers(networks, settings["labels"], settings["mean"], settings["std"], settings["size"], device)
