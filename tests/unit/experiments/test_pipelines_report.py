"""How records in rounds go on from others."""

import pytest

from slug.experiments.pipelines_report import before_rounds, drawn_as
from slug.methods import first_round

FIRST = {"method": "slug_w", "kind": "style", "name": "Noto", "chosen": [["a", 1.0]]}
RECORDS = [
    FIRST,
    FIRST | {"method": "slug_w_rounds"},
    FIRST | {"method": "slug_w_rounds", "name": "Blob"},
    FIRST | {"method": "slug_w", "name": "Blob", "chosen": [["b", 1.0]]},
    FIRST | {"method": "slug_rounds"},
]


@pytest.mark.parametrize(("method", "first"), [("slug_ws_rounds", "slug_ws"), ("slug", ""), ("uce", "")])
def test_a_method_in_rounds_goes_on_from_its_variant(method, first):
    assert first_round(method) == first


@pytest.mark.parametrize(("record", "first"), [(0, None), (1, 0), (2, 3), (4, None)])
def test_a_record_in_rounds_goes_on_from_that_of_its_concept(record, first):
    assert before_rounds(RECORDS[record], RECORDS) is (None if first is None else RECORDS[first])


@pytest.mark.parametrize(("record", "drawn"), [(0, 0), (1, 0), (2, 2), (3, 3), (4, 4)])
def test_rounds_that_end_with_their_first_layer_are_drawn_as_it(record, drawn):
    assert drawn_as(RECORDS[record], RECORDS) is RECORDS[drawn]
