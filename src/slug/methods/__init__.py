"""The registry of unlearning methods: one file a method, each of which registers itself. Nothing else lists methods.

Method files import torch inside their functions, so that reports, cards and `--help` can read the registry without it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from slug.core.variants import Variant
from slug.errors import SlugError
from slug.protocols import OURS, Protocol

PLAIN = Variant()
CLIP, PIPELINE, ASSISTANT = "clip", "pipeline", "assistant"  # hosts


class Material(NamedTuple):
    """What a baseline of a CLIP may use; gradients are {parameter name: tensor}, or None where it needs none."""

    forget: Any  # data.pairs.Pairs
    retain: Any
    variant: Variant  # of the forget loss
    gradient: dict | None = None
    forget_importance: dict | None = None
    retain_importance: dict | None = None
    protocol: Protocol = OURS
    name: str = ""  # what is forgotten, as people write it
    names: Sequence[str] = ()  # what else the model tells apart
    retain_gradient: dict | None = None


class PipelineMaterial(NamedTuple):
    """What a baseline of a pipeline may use: prompts of the concept, what each is to become, and retained prompts."""

    own: list[str]
    neutral: list[str]
    others: list[str]
    seeds: list[int]  # of the pictures that are made of `own`
    seed: int
    concepts: Sequence[str] = ()  # for each of `own` the name that it shows, where several concepts are forgotten at once


@dataclass(frozen=True)
class Method:
    """An unlearning method.

    Attributes:
        name: in flags, records and tables.
        label: in plots and sentences.
        citation: for cards: what made the edit, and where the method is published.
        hosts: which models it edits, of CLIP, PIPELINE and ASSISTANT.
        rank: place in the order of tables.
        candidates: generator of candidates, see below; None for SLUG, whose candidates a search of steps makes.
        variant: of the gradients that it reads; for SLUG, which it steps along.
        needs: gradients that it reads: "gradient" (of the forget set), "retain" (with it, of the retain set), "importance"
            (of both sets).
        setting: what is searched: the attribute of the settings that holds its grid, e.g. `lr`.
        grid: values of the setting that are tried where the settings hold none.
        symbol: what the setting is called in logs and tables, e.g. `lr 1e-05`.
        grows: whether the grid may grow beyond its ends, which a grid of shares may not.
        count: candidates of one setting; 0 where they are the epochs of a training.
        trains: whether its setting is the learning rate of a training.
        epochs: the attribute of the settings that holds their number.
        rounds: whether several layers are edited, one in each round, with gradients taken anew.
        asked: whether a comparison runs it only where it is asked for by name.
        retains: whether the candidate that retains most is kept, whatever it forgets.
        several: of a pipeline: `candidates` of several concepts at once, where these are made in another way than one's.
        several_grid: values of the setting for several concepts, where they are others.

    For a CLIP `candidates(clip, material, setting)` changes the model's weights and yields the number of the candidate after
    each (an epoch, a dampening); `setting` is a training.Schedule where it trains. For a pipeline
    `candidates(pipeline, material, setting)` yields Edits. It never looks at an evaluation.
    """

    name: str
    label: str
    citation: str
    hosts: tuple[str, ...]
    rank: int = 100
    candidates: Callable[[Any, Any, Any], Iterator[Any]] | None = None
    variant: Variant = PLAIN
    needs: tuple[str, ...] = ()
    setting: str = ""
    grid: tuple[float, ...] = ()
    symbol: str = "lr"
    grows: bool = True
    count: int = 0
    trains: bool = False
    epochs: str = "epochs"
    rounds: bool = False
    asked: bool = False
    retains: bool = False
    several: Callable[[Any, Any, Any], Iterator[Any]] | None = None
    several_grid: tuple[float, ...] = ()

    @property
    def searched(self) -> bool:
        """Whether it is a method of SLUG."""
        return self.candidates is None

    @property
    def gradients(self) -> tuple[Variant, ...]:
        """The kinds of gradient files that it reads."""
        kinds = [self.variant] if self.searched or "gradient" in self.needs else []
        kinds += [replace(self.variant, squared=True)] if "importance" in self.needs else []
        return tuple(kinds)


_registry: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Add a method; SlugError if its name is taken by another one."""
    if _registry.get(method.name, method) != method:
        raise SlugError(f"there is a method {method.name!r} already; give the new one another name")
    _registry[method.name] = method
    return method


def register_forms(method: Method) -> None:
    """Add a method and its form `_o`, which takes the contrastive loss on the forget set as well."""
    register(method)
    contrastive = replace(method.variant, contrastive=True)
    label = f"{method.label}, contrastive forget loss"
    register(replace(method, name=f"{method.name}_o", label=label, rank=method.rank + 10, variant=contrastive))


def _all() -> dict[str, Method]:
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return _registry


def get(name: str) -> Method:
    """The method of a name. SlugError for an unknown one."""
    if name not in _all():
        raise SlugError(f"no method is called {name!r}; choose from {', '.join(names())}")
    return _registry[name]


def names(host: str = "", *, searched: bool | None = None) -> list[str]:
    """The names of the methods in the order of tables.

    Args:
        host: only those of this host.
        searched: only SLUG's (True), or only baselines (False).
    """
    found = [m for m in _all().values() if host in ("", *m.hosts) and searched in (None, m.searched)]
    return [m.name for m in sorted(found, key=lambda m: m.rank)]


def first_round(name: str) -> str:
    """The method whose edit a method in rounds goes on from; "" for any other method."""
    found = get(name)
    return found.variant.slug if found.rounds else ""
