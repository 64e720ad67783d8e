"""The variants of the study, what each does with sets and layers, and the columns of its table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from slug.core import layers
from slug.core.search import Plan, Schedule
from slug.schema import STANDARD


@dataclass(frozen=True)
class StudyVariant:
    """One way to forget a name; the defaults are the standard's."""

    ranking: str = "front"  # layers of an encoder: its Pareto front; as many by importance or alignment alone; or all
    encoders: tuple[str, ...] = ("vision", "language")
    together: bool = False  # all these layers by one step instead of the best one
    scale: float = 1.0  # factor on the first step
    search_rule: str = ""  # see core.search.Schedule; by default the robust one
    evaluations: int = 10
    renderings: int = 0  # of each source image in the forget set, at most; 0: all
    drawings: int = 0  # source images in the forget set, at most; 0: all
    retain_share: float = 1.0  # of the retain set: the `draw`-th random part of that size
    draw: int = 0
    choose: str = "retain"  # see core.search.Plan
    rounds: int = 1  # layers that are moved one after the other, with gradients taken anew

    @property
    def plan(self) -> Plan:
        """What is searched."""
        schedule = Schedule(rule=self.search_rule or Schedule.rule, evaluations=self.evaluations, scale=self.scale)
        return Plan(choose=self.choose, together=self.together, schedule=schedule)


VARIANTS = {  # what each is in words: schema.STUDY_VARIANTS
    STANDARD: StudyVariant(),
    "front_together": StudyVariant(together=True),
    "all_together": StudyVariant(ranking="all", together=True),
    "importance": StudyVariant(ranking="importance"),
    "alignment": StudyVariant(ranking="alignment"),
    "vision": StudyVariant(encoders=("vision",)),
    "language": StudyVariant(encoders=("language",)),
    "first_tenth": StudyVariant(scale=0.1),
    "first_tenfold": StudyVariant(scale=10.0),
    "bracket": StudyVariant(search_rule="paper"),
    "evaluations_5": StudyVariant(evaluations=5),
    "evaluations_20": StudyVariant(evaluations=20),
    "renderings_1": StudyVariant(renderings=1),
    "renderings_5": StudyVariant(renderings=5),
    "drawings_1": StudyVariant(drawings=1),
    "drawings_2": StudyVariant(drawings=2),
    "retain_10": StudyVariant(retain_share=0.1),
    "retain_30": StudyVariant(retain_share=0.3),
    "retain_30_again": StudyVariant(retain_share=0.3, draw=1),
    "deepest": StudyVariant(choose="deepest"),
    "rounds_3": StudyVariant(rounds=3),
}
QUICK = (
    f"{STANDARD} front_together importance alignment vision language evaluations_5 renderings_1 drawings_1 retain_10".split()
)
QUICK_NAMES = {"identities": 2, "objects": 1}
SHARED = "seed precision batch_size imagenet_share select_pictures fa_k".split()  # flags that every run depends on

FIGURES = (  # of the test split, see outcome.figures and outcome.changes
    "forget_acc1 forget_acc5 forget_upper forget_seen_acc1 forget_unseen_acc1 identities_acc1 identities_acc5 objects_acc1 "
    "objects_acc5 identities_change identities_change_low identities_change_high objects_change objects_change_low "
    "objects_change_high forget_vision_acc1 forget_language_acc1"
).split()
COUNTS = "n_forget n_forget_unseen n_drawings n_identities n_objects".split()
BEFORE = "forget_acc1 identities_acc1 objects_acc1".split()  # of the unedited model, as original_*
SCHEMA = pa.schema(
    [(c, pa.string()) for c in "name kind variant model layer".split()]
    + [(c, pa.float64()) for c in "step params_share".split()]
    + [(c, pa.int64()) for c in "n_moved n_layers n_candidates n_pairs n_pair_drawings".split()]
    + [(c, pa.float64()) for c in "seconds gradient_s search_s run_s validation_forget_acc1".split()]
    + [("validation_forgets", pa.bool_())]
    + [(c, pa.float64()) for c in FIGURES]
    + [(c, pa.int64()) for c in COUNTS]
    + [(f"original_{c}", pa.float64()) for c in BEFORE]
    + [(c, pa.int64()) for c in "seed process".split()]
    + [(c, pa.string()) for c in "settings versions shared fingerprint error".split()]
)


def part_of(n: int, share: float, seed: Sequence[int]) -> list[int]:
    """A fraction `share` of the indices 0 to n - 1, drawn by `seed`, ascending."""
    return sorted(np.random.default_rng(seed).permutation(n)[: max(1, round(share * n))].tolist())


def forget_part(drawings: Sequence[str], variant: StudyVariant, seed: int) -> list[int]:
    """Indices of the pairs of a forget set that a variant keeps, ascending, by the source image of each pair."""
    rng = np.random.default_rng([seed, variant.draw])
    rows: list[int] = []
    for drawing in rng.permutation(sorted(set(drawings)))[: variant.drawings or None].tolist():
        mine = [i for i, d in enumerate(drawings) if d == drawing]
        rows += rng.permutation(mine)[: variant.renderings or None].tolist()
    return sorted(rows)


def layers_of(rows: list[layers.Layer], variant: StudyVariant) -> list[layers.Layer]:
    """The layers that a variant tries, or moves together."""
    found: list[layers.Layer] = []
    for encoder, front in layers.fronts(rows).items():
        if encoder in variant.encoders:
            mine = [r for r in rows if r.encoder == encoder]
            found += {
                "front": front,
                "importance": sorted(mine, key=lambda r: -r.importance)[: len(front)],
                "alignment": sorted(mine, key=lambda r: abs(r.alignment))[: len(front)],
                "all": mine,
            }[variant.ranking]
    return found
