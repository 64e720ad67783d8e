"""Concepts of a pipeline that are forgotten together."""

import math

import pytest
import torch
from tiny_canvas import OBJECTS, STYLES

from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.evaluation.canvas_classifiers import Judged
from slug.evaluation.canvas_prompts import Concept
from slug.experiments import pipelines_several

ASKED = canvas_prompts.requests(STYLES, OBJECTS, test=[0], validation=[])
STYLE = [Concept("style", f"style {i}") for i in range(3)]
OBJECT = [Concept("object", f"object {i}") for i in range(2)]


@pytest.mark.parametrize(
    ("concepts", "groups"),
    [
        (STYLE, [STYLE[:2], STYLE]),
        (STYLE + OBJECT, [STYLE[:2], STYLE, OBJECT, STYLE + OBJECT]),
        (STYLE[:1] + OBJECT[:1], [STYLE[:1] + OBJECT[:1]]),
    ],
    ids=["styles", "both kinds", "one each"],
)
def test_styles_objects_and_both_are_groups_of_their_own(concepts, groups):
    assert pipelines_several.groups(concepts) == groups


def test_retained_are_the_prompts_that_show_none_of_a_group():
    found = pipelines_several.retained([Concept("style", "Noto"), Concept("object", "palm tree")], ASKED)
    assert [ASKED[i].prompt for i in found.nonzero().flatten()] == [
        "An bell image in Blob Old style.",
        "An key image in Blob Old style.",
    ]


def test_a_group_that_every_prompt_shows_is_refused():
    with pytest.raises(SlugError, match="every prompt shows one of Noto, Blob_Old"):
        pipelines_several.retained([Concept("style", s) for s in STYLES], ASKED)


def test_a_concept_without_a_record_of_the_method_is_named():
    records = [{"kind": "style", "name": "Noto", "method": "slug"}]
    assert pipelines_several.chosen_records(records, [Concept("style", "Noto")], "slug") == {("style", "Noto"): records[0]}
    with pytest.raises(SlugError, match="no record of esd for the style Noto"):
        pipelines_several.chosen_records(records, [Concept("style", "Noto")], "esd")


def test_black_pictures_are_counted_and_in_no_figure():
    group = [Concept("style", "Noto"), Concept("object", "palm tree")]  # requests: Noto's 3, then Blob's 3
    right = {k: torch.tensor([True, True, False, True, True, False]) for k in ("style", "object")}
    whole = Judged(right, torch.ones(6, dtype=torch.bool))
    some = Judged({k: r & False for k, r in right.items()}, torch.tensor([False, True, True, False, True, True]))
    _, edited, *_ = pipelines_several.rows_of(group, ASKED, {"original": whole, "sum": some}, 0)
    assert (edited["n_own"], edited["n_rest"], edited["n_black"], edited["UA"]) == (2, 1, 2, 1.0)
    assert edited["IRA"] == 0 and edited["IRA_change"] == -1  # of the one picture that both drew
    none = Judged(some.right, some.drawn & False)
    _, edited, *_ = pipelines_several.rows_of(group, ASKED, {"original": whole, "sum": none}, 0)
    assert edited["n_own"] == 0 and math.isnan(edited["UA"]) and math.isnan(edited["IRA_change"])


def test_the_sum_says_which_of_its_edits_did_not_forget_alone():
    group = [Concept("style", "Noto"), Concept("object", "palm tree")]
    ways = ("original", "sum", "joint", "uce")
    rows = [{**c._asdict(), "method": way} for c in group for way in ways]
    records = {group[0]: {}, group[1]: {"caveat": "why"}}
    found = pipelines_several.with_caveats(rows, group, records, {})
    assert [row.get("caveat") for row in found] == [None] * 5 + ["why", "why", None]
    found = pipelines_several.with_caveats(
        rows, group, records, {"joint": {group[0]: "x", group[1]: "y"}, "uce": {group[1]: "z"}}
    )
    assert [row.get("caveat") for row in found] == [None, None, "joint: x", None, None, "why", "why; joint: y", "z"]


def test_every_way_has_a_row_for_each_concept_and_its_own_changes():
    group = [Concept("style", "Noto"), Concept("object", "palm tree")]
    right = {k: torch.ones(6, dtype=torch.bool) for k in ("style", "object")}
    whole = Judged(right, torch.ones(6, dtype=torch.bool))
    none = Judged({k: r & False for k, r in right.items()}, whole.drawn)
    rows = pipelines_several.rows_of(group, ASKED, {"original": whole, "sum": none, "joint": whole}, 0)
    assert [r["method"] for r in rows] == ["original", "sum", "joint"] * 2
    assert [r.get("IRA_change") for r in rows] == [None, -1, 0] * 2 and [r["UA"] for r in rows] == [0, 1, 0] * 2
