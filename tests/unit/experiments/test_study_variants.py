"""What the variants of the study take of the sets and of the layers."""

from dataclasses import replace

import pytest

from slug.core import layers
from slug.core.layers import Layer
from slug.core.search import Plan, Schedule
from slug.experiments.study_variants import QUICK, SCHEMA, VARIANTS, StudyVariant, forget_part, layers_of, part_of
from slug.schema import STUDY_VARIANTS

RANKED = [  # the fronts: v2 and v0; l1
    *(Layer("v0", "vision", 1.0, 0.1), Layer("v1", "vision", 2.0, 0.9), Layer("v2", "vision", 3.0, -0.5)),
    *(Layer("l0", "language", 1.0, -0.4), Layer("l1", "language", 2.0, 0.2)),
]
DRAWINGS = ["abcd"[i % 4] for i in range(40)] + ["e"]


def names(rows):
    return [r.name for r in rows]


def test_every_variant_that_tables_describe_is_run():
    assert list(VARIANTS) == list(STUDY_VARIANTS)


def test_the_quick_variants_are_some_of_all():
    assert 5 < len(QUICK) < len(VARIANTS) and set(QUICK) <= set(VARIANTS)


def test_every_variant_differs_from_the_standard_and_from_the_others():
    assert VARIANTS["standard"] == StudyVariant() and len(set(VARIANTS.values())) == len(VARIANTS)


def test_columns_of_the_table_are_there_once():
    assert len(set(SCHEMA.names)) == len(SCHEMA.names)


# ------------------------------------------------------------------------------------------------------------- layers


def test_the_standard_takes_the_front_of_each_encoder():
    assert names(layers_of(RANKED, VARIANTS["standard"])) == ["v2", "v0", "l1"]


@pytest.mark.parametrize(("tower", "wanted"), [("vision", ["v2", "v0"]), ("language", ["l1"])])
def test_a_tower_alone_has_its_own_front(tower, wanted):
    assert names(layers_of(RANKED, VARIANTS[tower])) == wanted


@pytest.mark.parametrize(
    ("ranking", "figure"), [("importance", lambda r: -r.importance), ("alignment", lambda r: abs(r.alignment))]
)
@pytest.mark.parametrize("encoder", ["vision", "language"])
def test_a_ranking_takes_as_many_layers_as_the_front(ranking, figure, encoder):
    mine = [r for r in RANKED if r.encoder == encoder]
    found = layers_of(RANKED, replace(VARIANTS[ranking], encoders=(encoder,)))
    assert len(set(names(found))) == len(found) == len(layers.fronts(RANKED)[encoder])
    assert all(figure(r) >= max(map(figure, found)) for r in mine if r not in found)


def test_all_layers_are_taken_in_the_models_order():
    assert layers_of(RANKED, VARIANTS["all_together"]) == RANKED


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("standard", Plan()),
        ("front_together", Plan(together=True)),
        ("all_together", Plan(together=True)),
        ("first_tenth", Plan(schedule=Schedule(scale=0.1))),
        ("first_tenfold", Plan(schedule=Schedule(scale=10.0))),
        ("evaluations_5", Plan(schedule=Schedule(evaluations=5))),
        ("evaluations_20", Plan(schedule=Schedule(evaluations=20))),
        ("deepest", Plan(choose="deepest")),
    ],
)
def test_first_step_evaluations_and_rule_are_in_the_plan(name, wanted):
    assert VARIANTS[name].plan == wanted


# --------------------------------------------------------------------------------------------------------------- sets


def test_parts_of_the_retain_set_are_drawn_by_their_seed():
    first, again, other = (part_of(1000, 0.3, seed) for seed in ([0, 0], [0, 0], [0, 1]))
    assert first == again != other and len(set(first)) == len(set(other)) == 300
    assert first == sorted(first) and max(first) < 1000


def test_a_part_is_never_empty():
    assert len(part_of(3, 0.1, [0, 0])) == 1


def test_the_standard_keeps_the_whole_forget_set():
    assert forget_part(DRAWINGS, VARIANTS["standard"], 0) == list(range(41))


def test_fewer_renderings_of_every_drawing_are_kept():
    kept = [DRAWINGS[i] for i in forget_part(DRAWINGS, VARIANTS["renderings_5"], 0)]
    assert {d: kept.count(d) for d in set(kept)} == {"a": 5, "b": 5, "c": 5, "d": 5, "e": 1}


def test_all_renderings_of_fewer_drawings_are_kept():
    rows = forget_part(DRAWINGS, VARIANTS["drawings_2"], 0)
    kept = {DRAWINGS[i] for i in rows}
    assert len(kept) == 2 and rows == [i for i, d in enumerate(DRAWINGS) if d in kept]


def test_the_seed_draws_the_drawings():
    assert len({tuple(forget_part(DRAWINGS, VARIANTS["drawings_1"], seed)) for seed in range(8)}) > 1
