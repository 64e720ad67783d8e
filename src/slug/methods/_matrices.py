"""What methods that change single matrices share: which matrix, its inputs, the names that are kept, steps along layers."""

from collections.abc import Collection, Iterator, Mapping

import torch

from slug.core import layers
from slug.core.preconditioning import Moments
from slug.data.names import Matcher
from slug.data.pairs import saying
from slug.errors import SlugError
from slug.methods import Material
from slug.models.clip import Clip

Gradient = Mapping[str, torch.Tensor]
TEMPLATES = ("{}.", "{}", "a photo of {}.", "a photo of a {}.", "a picture of a {}.")  # what a name is asked for with
PROJECTIONS = {
    "vision": ("visual.proj", "visual_projection.weight", "visual.head.proj.weight"),
    "language": ("text_projection", "text_projection.weight", "text.text_projection", "text.proj.weight"),
}


def projection(clip: Clip, encoder: str) -> tuple[str, int]:
    """(name of a tower's projection, its axis that meets the embedding). SlugError if the tower ends otherwise."""
    for name in PROJECTIONS[encoder]:
        if name in clip.parameters:
            return name, output_axis(name)
    raise SlugError(f"{clip.label} has no projection at the end of its {encoder} tower, which this method changes")


def output_axis(name: str) -> int:
    """The axis of a matrix that meets its outputs: open_clip's projections are stored as (width, embedding)."""
    return int(name in ("visual.proj", "text_projection", "text.text_projection"))


class Inputs(Moments):
    """Context that keeps the inputs of every matrix of a model instead of their moments.

    Attributes:
        found: {parameter name: (inputs (n, d), axis of the parameter that meets them)}.
    """

    def _add(self, name: str, x: torch.Tensor, axis: int) -> None:
        x = x.detach().flatten(0, -2)
        self.found[name] = torch.cat([self.found[name][0], x]) if name in self.found else x, axis


@torch.no_grad()
def encoded(clip: Clip, texts: list[str], batch_size: int = 256) -> torch.Tensor:
    """Unit embeddings (N, D) of texts."""
    return torch.cat([clip.encode_text(part) for part in clip.tokenize(texts).split(batch_size)])


def prompts(names: Collection[str]) -> list[str]:
    """Every name in every template."""
    return [t.format(n) for n in names for t in TEMPLATES]


def kept_names(material: Material) -> list[str]:
    """The names that captions of the retain set say; of a retain set that says none, its captions."""
    matcher, captions = Matcher(material.names), dict.fromkeys(material.retain.captions)
    return list(dict.fromkeys(n for c in captions for n in matcher.find(c))) or list(captions)


def without_name(material: Material) -> list[int]:
    """The rows of the retain pairs whose caption does not say the name."""
    return saying(material.retain, [material.name], says=False)


def front(clip: Clip, forget: Gradient, retain: Gradient, names: Collection[str], count: int) -> list[str]:
    """The first `count` layers of each encoder, Pareto front after Pareto front, of those in `names`."""
    rows = layers.figures(clip, forget, retain, names)
    found = layers.fronts(rows, len(rows))
    return [r.name for part in found.values() for r in part[:count]]


def step(clip: Clip, base: Gradient, layer: str, direction: Gradient, relative: float) -> None:
    """Put a layer's group a step from `base` along `direction`, of `relative` times the weights' norm; not where it is 0."""
    group = clip.group(layer)
    if any(direction[n].any() for n in group):
        size = 10 * relative * layers.first_step([base[n] for n in group], [direction[n] for n in group])
        with torch.no_grad():
            for n in group:
                clip.parameters[n].copy_(base[n] + size * direction[n].to(base[n].device))


def originals(clip: Clip) -> dict[str, torch.Tensor]:
    """{name: copy of the parameter}."""
    return {n: p.detach().clone() for n, p in clip.parameters.items()}


@torch.no_grad()
def restore(clip: Clip, base: Gradient) -> None:
    """Give the model the weights `base` again."""
    for name, value in base.items():
        clip.parameters[name].copy_(value)


def along_layers(
    clip: Clip, chosen: list[str], direction: Gradient, relative: Collection[float], first: int = 1
) -> Iterator[int]:
    """Yields numbers from `first`: every layer by itself with every step from the present weights."""
    base = originals(clip)
    for layer in chosen:
        for size in relative:
            step(clip, base, layer, direction, size)
            yield first
            first += 1
        restore(clip, base)
