"""The report on a study, of tables made by hand."""

import pytest
from hand_made import STEADY, ZERO, study_table

from slug.reports import claims, study_report
from slug.reports.claims import Claim, Comparison, Statement


@pytest.fixture
def frame(monkeypatch):
    """Two variants of six names; one run failed."""
    one = Claim("One is enough", "paper", (claims.as_good("standard", "front_together"),))
    monkeypatch.setattr(claims, "CLAIMS", [one])
    return study_table(standard=(ZERO, STEADY), front_together=([*ZERO[:5], None], [r - 3 for r in STEADY]))


def test_the_runs_are_counted(frame):
    wanted = "12 runs of 2 variants on 6 identities; 1 failed. The runs took 0.11 hours of process time together."
    assert study_report.counts(frame) == wanted


def test_a_verdict_says_what_it_rests_on(frame):
    text = study_report.verdicts_table(frame)
    assert "| One is enough | paper | **holds** | `standard` is as good at forgetting as `front_together`: holds, " in text
    assert (
        "at retaining as `front_together`: holds, +3.00 (+3.00 to +3.00), median +3.00, won 5, lost 0, p 0.062, 5 |" in text
    )


@pytest.mark.parametrize(
    ("comparison", "wanted"),
    [
        (Comparison((Statement("standard", claims.LIMIT, claims.FORGETTING),)), "at most 2% is still recognised"),
        (Comparison((Statement("standard", claims.ORIGINAL, claims.RETAINING),)), "as the unedited model: holds"),
        (claims.retains_more("standard", "front_together"), "is better at retaining than `front_together`: holds, +3.00"),
        (claims.as_good("standard", "vision"), "no runs"),
    ],
)
def test_every_kind_of_comparison_is_put_into_words(frame, comparison, wanted):
    assert wanted in study_report.judged(frame, comparison)[1]


def test_statements_of_which_one_is_enough_are_joined_by_or(frame):
    said = study_report.judged(frame, claims.better("standard", "front_together"))[1]
    assert " or `standard` is better at retaining" in said


def test_a_variants_row_counts_its_failed_runs(frame):
    wanted = "all layers of both Pareto fronts by one step | identity | 5 (1) | 0.00 | 0 of 200 |"
    assert f"| `front_together`: {wanted}" in study_report.variants_table(frame)


def test_a_variant_that_always_failed_has_a_row():
    frame = study_table(standard=(ZERO, STEADY), vision=([None] * 6, STEADY))
    assert "| `vision`: vision Pareto front only | identity | 0 (6) |  |" in study_report.variants_table(frame)


def test_failed_runs_are_listed(frame):
    assert study_report.failures(frame) == "* f, front_together: x: y"
    assert study_report.failures(frame[frame["error"].isna()]) == "None."


def test_the_report_has_the_rule_and_the_plot(frame):
    text = study_report.report(frame, "x/variants.png")
    assert claims.rule(frame) in text and "](x/variants.png)" in text and text.startswith("# The paper's claims on m\n")
