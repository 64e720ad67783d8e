"""Someone's own pictures and the retain pairs, read, split by source image, and told of."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slug import progress
from slug.data import classes as class_names
from slug.data import photographs
from slug.data.names import plain_name
from slug.data.pairs import Pairs
from slug.data.photographs import Photographs, Sample, Source
from slug.errors import SlugError
from slug.evaluation import zeroshot
from slug.models.clip import Clip
from slug.settings import MAX_FORGET, SIGMAS

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """How something is forgotten; the defaults are those of the stages.

    Attributes:
        method: any of the registry for a CLIP.
        evaluations, fronts: of SLUG's search (see settings.Search).
        grid: settings of a baseline that are tried; empty: its own.
        epochs: of a baseline that trains.
        batch_size, eval_batch_size: of the gradient passes and of evaluations.
        select_pictures: retained pictures of each task that candidates are chosen by, at most.
        trace: of these, how many are scored at every candidate, for plots.
        cache_gb: see towers.Budget.
        workers: processes that decode pictures.
        max_forget, sigmas: when a name counts as forgotten (see settings.ForgetRule).
    """

    method: str = "slug"
    evaluations: int = 10
    fronts: int = 1
    grid: tuple[float, ...] = ()
    epochs: int = 10
    seed: int = 0
    batch_size: int = 16
    eval_batch_size: int = 256
    select_pictures: int = 4000
    trace: int = 100
    cache_gb: float = -1.0
    workers: int = 0
    max_forget: float = MAX_FORGET
    sigmas: float = SIGMAS


STANDARD = Wanted()


class OwnSets:
    """The pictures of some names and of other things, in three parts each.

    Attributes:
        names: what is forgotten.
        concepts, retain: {name: its pictures}, and the retain pairs.
        parts, retain_parts: their indices by part, see photographs.split.
        classes: the names that pictures are classified among, first `names`.
        left_out: {why: how many} of the retain set's pictures.
        notes: {name: lines that a user should read}.
    """

    def __init__(
        self,
        clip: Clip,
        concepts: Mapping[str, Source],
        retain: Source,
        *,
        classes: Sequence[str] | None = None,
        wanted: Wanted = STANDARD,
        say: Say = progress.write,
    ) -> None:
        """As Forgetting."""
        self.clip, self.wanted, self.say = clip, wanted, say
        self.names = [plain_name(name) for name in concepts]
        self.notes: dict[str, list[str]] = {name: [] for name in self.names}
        # All is found before anything is decoded: a wrong path is an error now.
        found = {n: photographs.find(s, f"pictures of {n}") for n, s in zip(self.names, concepts.values(), strict=True)}
        samples, self.left_out = photographs.retained(photographs.find(retain, "retain set"), self.names, wanted.seed)
        others = self._looked_at(samples, "retain set")
        self.unrelated = photographs.mean_distance(others[1])
        self.concepts = {name: self._concept(name, part) for name, part in found.items()}
        self.retain = self._retained(*others)
        self.parts = {name: photographs.split(p.groups, wanted.seed) for name, p in self.concepts.items()}
        self.retain_parts = photographs.split(self.retain.groups, wanted.seed)
        given = class_names.default(self.retain.pairs.captions) if classes is None else classes
        self.classes = class_names.competing(self.names, given)
        if len(self.classes) <= len(self.names):
            raise SlugError("the forgotten names need others to compete with; give classes")

    def _looked_at(self, samples: Sequence[Sample], what: str) -> tuple[Pairs, torch.Tensor]:
        """(pairs, features (N, D) of their pictures by the unedited model)."""
        pairs = photographs.decoded(samples, self.clip.transform, what, self.wanted.workers)
        features = zeroshot.image_features(self.clip, pairs.images, self.wanted.eval_batch_size, desc=f"look at the {what}")
        return pairs, features.cpu()

    def _grouped(self, pairs: Pairs, features: torch.Tensor) -> Photographs:
        return Photographs(pairs, features, photographs.source_images(pairs, features, self.unrelated))

    def _concept(self, name: str, samples: Sequence[Sample]) -> Photographs:
        found = self._grouped(*self._looked_at(samples, f"pictures of {name}"))
        photographs.check_enough(found, name)
        pairs, replaced = photographs.name_all(found.pairs, name)
        if replaced:
            self.note(name, f"{replaced} captions do not say {name}; the name itself is the caption of these pictures")
        return found._replace(pairs=pairs)

    def _retained(self, pairs: Pairs, features: torch.Tensor) -> Photographs:
        """The retain pairs, without pictures that nearly repeat one of a concept."""
        found = self._grouped(pairs, features)
        hashes = photographs.hashes(found.pairs.images)
        repeats = torch.zeros(len(found.groups), dtype=torch.bool)
        for concept in self.concepts.values():
            own = concept.features, photographs.hashes(concept.pairs.images)
            near = photographs.alike(found.features, hashes, *own, self.unrelated)
            repeats |= near.any(1)
        self.left_out |= {
            "cannot be decoded": found.pairs.broken,
            "repeat pictures of what is forgotten": int(repeats.sum()),
        }
        kept_ones = found.where((~repeats).tolist())
        if len(kept_ones.groups) < photographs.FEWEST_RETAINED:
            raise SlugError(
                f"{int(repeats.sum())} of the {len(repeats)} pictures of the retain set repeat pictures of "
                f"{' or '.join(self.names)}; give pairs of other things to retain"
            )
        return kept_ones

    def note(self, name: str, text: str) -> None:
        """Say something of a name, and keep it."""
        self.notes[name].append(text)
        self.say(f"note: {text}")

    def forget_pairs(self, name: str) -> Pairs:
        """The pairs that give a name's gradient."""
        return self.concepts[name].part(self.parts[name]["gradient"]).pairs

    @functools.cached_property
    def retain_pairs(self) -> Pairs:
        """The pairs that give the retain gradient."""
        return self.retain.part(self.retain_parts["gradient"]).pairs

    def counts(self, name: str) -> dict[str, Any]:
        """How many pictures and source images each part has."""
        both = {name: (self.concepts[name], self.parts[name]), "retain": (self.retain, self.retain_parts)}
        found: dict[str, Any] = {}
        for what, (pictures, parts) in (("concept", both[name]), ("retain", both["retain"])):
            found[what] = {
                part: {"pictures": len(rows), "sources": len({pictures.groups[i] for i in rows.tolist()})}
                for part, rows in parts.items()
            }
        found["broken"] = self.concepts[name].pairs.broken
        return found | {"left_out_of_retain": self.left_out, "classes": len(self.classes)}
