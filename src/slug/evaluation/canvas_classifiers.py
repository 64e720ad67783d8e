"""The style and object classifiers that judge generated pictures."""

import hashlib

import slug.torchvision_cpu  # noqa: F401  (before timm)

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from slug import files
from slug.data.canvas import KINDS, classifier_settings, weights_of
from slug.errors import SlugError, brief
from slug.evaluation import zeroshot


class Classifiers:
    """A style and an object classifier on the same pictures.

    Attributes:
        labels: {"style": [name], "object": [name]}.
    """

    def __init__(self, networks, labels, mean, std, size, device="cpu"):
        """
        Args:
            networks: {kind: module}, pictures (N, 3, size, size) -> logits (N, classes).
            mean, std: of the three channels, pictures in [0, 1].
        """
        self.networks = {n: m.to(device).eval().requires_grad_(False) for n, m in networks.items()}
        self.labels, self.size, self.device = labels, size, device
        self.mean, self.std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (mean, std))

    def hash(self):
        """What an answer depends on."""
        state = {f"{k} {n}": t for k, m in self.networks.items() for n, t in m.state_dict().items()}
        state |= {"mean": self.mean, "std": self.std}
        return hashlib.sha256(f"{files.tensor_hash(state)}{self.labels}{self.size}".encode()).hexdigest()

    def _batches(self, images, batch_size=256):
        for part in images.split(batch_size):
            x = part.to(self.device).float() / 255
            if x.shape[-1] != self.size:
                x = torch.nn.functional.interpolate(x, self.size, mode="bicubic", antialias=True).clamp(0, 1)
            yield (x - self.mean) / self.std

    @torch.inference_mode()
    def logits(self, images):
        """{kind: (N, classes)} logits of uint8 pictures (N, 3, H, W)."""
        parts = [{n: m(x).float().cpu() for n, m in self.networks.items()} for x in self._batches(images)]
        return {n: torch.cat([p[n] for p in parts]) for n in self.networks}

    @torch.inference_mode()
    def features(self, images):
        """(N, D) what the object classifier's last layer reads, of uint8 pictures (N, 3, H, W)."""
        network = self.networks["object"]
        parts = [network.forward_head(network.forward_features(x), pre_logits=True) for x in self._batches(images)]
        return torch.cat(parts).float().cpu()


class ClipClassifiers:
    """The unedited CLIP as the judge, zero-shot: for concepts that no classifier knows. As Classifiers."""

    def __init__(self, clip, labels):
        """
        Args:
            clip: models.Clip.
            labels: see Classifiers; a kind without names is not judged.
        """
        self.clip, self.labels = clip, {k: v for k, v in labels.items() if v}
        templates = {"style": ("{} style.",), "object": ("{}",)}
        self.weights = {k: zeroshot.classifier(clip, v, templates[k]) for k, v in self.labels.items()}

    def hash(self):
        """As Classifiers.hash."""
        return hashlib.sha256(f"{files.tensor_hash(self.weights)}{self.labels}".encode()).hexdigest()

    def logits(self, images):
        """As Classifiers.logits: cosines."""
        side = self.clip.side
        if images.shape[-1] != side:
            images = torch.nn.functional.interpolate(images.float(), side, mode="bicubic", antialias=True)
            images = images.round().clamp(0, 255).to(torch.uint8)
        features = zeroshot.image_features(self.clip, images)
        return {k: (features @ w.T).cpu() for k, w in self.weights.items()}


def load_classifiers(folder, device="cpu"):
    """The Classifiers of a folder: as `classifier_settings` says, and style.safetensors and object.safetensors (or .pth)
    hold timm weights.

    Raises:
        SlugError: a file is missing or damaged, or its weights do not fit.
    """
    folder = files.existing(folder, "classifiers", "give --classifiers, a folder as data/README.md describes")
    settings = classifier_settings(folder)
    networks = {}
    for kind in KINDS:
        path = weights_of(folder, kind)
        if path is None:
            raise SlugError(f"{folder} has no {kind}.safetensors or {kind}.pth; data/README.md says where to get it")
        classes = len(settings["labels"][kind])
        try:
            networks[kind] = timm.create_model(settings["arch"], num_classes=classes, **settings.get("options", {}))
            state = load_file(path) if path.suffix != ".pth" else files.read_tensors(path, "get it again")
            state = state.get("model_state_dict", state)
            networks[kind].load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
        except (SafetensorError, RuntimeError, OSError, ValueError, TypeError, AttributeError) as err:
            raise SlugError(
                f"{path} does not fit {settings['arch']} ({brief(err)}); say in classifiers.json beside it what it is"
            ) from err
    return Classifiers(networks, settings["labels"], settings["mean"], settings["std"], settings["size"], device)
