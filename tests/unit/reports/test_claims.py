"""The rule of the study's verdicts, on tables made by hand."""

import math

import numpy as np
import pytest
from hand_made import STEADY, WILD, ZERO, study_table

from slug.experiments import study_variants
from slug.reports import claims
from slug.reports.claims import AS_GOOD, BETTER, FORGETTING, RETAINING, SAME, Statement
from slug.schema import STUDY_VARIANTS


@pytest.mark.parametrize(
    "theirs, how, wanted",
    [
        ([r - 3 for r in STEADY], BETTER, "holds"),  # 3 points worse: ours is better
        ([r - 3 for r in STEADY], AS_GOOD, "holds"),
        ([r - 3 for r in STEADY], SAME, "fails"),
        (STEADY, AS_GOOD, "holds"),
        (STEADY, BETTER, "fails"),  # no advantage
        (STEADY, SAME, "holds"),
        ([r - 0.5 + 0.4 * (-1) ** i for i, r in enumerate(STEADY)], BETTER, "holds"),  # a small but clear one
        ([r + 3 for r in STEADY], AS_GOOD, "fails"),
        ([r + 3 for r in STEADY], BETTER, "fails"),
        ([r + 3 for r in STEADY], SAME, "fails"),
        *((WILD, how, "not resolved") for how in (AS_GOOD, BETTER, SAME)),
    ],
)
def test_a_statement_by_its_interval(theirs, how, wanted):
    frame = study_table(standard=(ZERO, STEADY), other=(ZERO, theirs))
    result = claims.compare(frame, Statement("standard", "other", RETAINING, how))
    differences = np.array(STEADY) - theirs
    assert result.verdict == wanted and result.names == 6
    assert result.mean == pytest.approx(differences.mean())
    split = 2.5706 * differences.std(ddof=1) / math.sqrt(6)  # t of 5 degrees of freedom
    assert result.high - result.mean == pytest.approx(split, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(
    "theirs, wanted, headroom",
    [
        (-0.5, "fails", 0.5),  # no advantage at all
        (-0.8, "not resolved", 0.8),  # an advantage of 0.3 (-0.1 to +0.7) where 0.8 could be had: neither
        (-1.2, "fails", 1.2),  # 0.7 (0.3 to 1.1) would hold; here 0.3 where a whole margin could be had
    ],
)
def test_better_can_fail_only_where_there_was_a_margin_to_win(theirs, wanted, headroom):
    """A variant that loses next to nothing leaves nothing to win: to be within a margin of it decides nothing."""
    spread = [0.0] * 6 if theirs == -0.5 else [0.4, -0.4, 0.4, -0.4, 0.4, -0.4]
    ours = [-0.5 if theirs == -0.5 else theirs + 0.3 + s for s in spread]
    frame = study_table(standard=(ZERO, ours), other=(ZERO, [theirs] * 6))
    found = claims.compare(frame, Statement("standard", "other", RETAINING, BETTER))
    assert (found.verdict, found.headroom) == (wanted, pytest.approx(headroom))


def test_median_and_sign_test_stand_beside_the_mean():
    """One bad name moves the mean, not the median: five names won, one lost."""
    frame = study_table(standard=(ZERO, [-1, -1, -1, -1, -1, -13]), other=(ZERO, [-2] * 6))
    found = claims.compare(frame, Statement("standard", "other", RETAINING))
    assert (found.mean, found.median) == (pytest.approx(-1), pytest.approx(1)) and (found.won, found.lost) == (5, 1)
    assert found.p == pytest.approx(2 * 7 / 64)  # at most one of six, either way


def test_forgetting_counts_what_is_still_recognised():
    frame = study_table(standard=(ZERO, STEADY), other=([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], STEADY))
    ours = claims.compare(frame, Statement("standard", "other", FORGETTING))
    theirs = claims.compare(frame, Statement("other", "standard", FORGETTING))
    assert (ours.verdict, theirs.verdict) == ("holds", "fails") and ours.mean == pytest.approx(15) == -theirs.mean
    stays = claims.compare(frame, Statement("standard", claims.ORIGINAL, RETAINING))
    assert stays.verdict == "holds" and stays.mean == pytest.approx(-0.5)


@pytest.mark.parametrize(
    "forget, wanted, high",
    [
        (ZERO, "holds", 1.240),  # none of 240
        ([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], "fails", None),
        ([0.0, 0.025, 0.0, 0.025, 0.0, 0.025], "not resolved", None),  # 1.25%, and few names
        ([0.0, None, None, None, None, None], "not resolved", 7.216),  # none of 40
    ],
)
def test_a_name_is_forgotten_where_interval_and_counts_say_so(forget, wanted, high):
    frame = study_table(standard=(forget, STEADY))
    found = claims.compare(frame, Statement("standard", claims.LIMIT, FORGETTING))
    assert found.verdict == wanted and (high is None or found.high == pytest.approx(high, abs=1e-3))
    assert found.mean == pytest.approx(100 * np.mean([f for f in forget if f is not None]))


@pytest.mark.parametrize(
    "make, needs, gains, wanted",
    [
        (claims.as_good, ["holds", "holds"], [], "holds"),
        (claims.as_good, ["holds", "fails"], [], "fails"),  # to forget as well is no merit where less is retained
        (claims.as_good, ["not resolved", "fails"], [], "fails"),
        (claims.as_good, ["holds", "not resolved"], [], "not resolved"),
        (claims.retains_more, ["fails", "holds"], [], "fails"),
        (claims.better, ["holds", "holds"], ["holds", "fails"], "holds"),  # the other one does not forget
        (claims.better, ["holds", "holds"], ["fails", "fails"], "fails"),
        (claims.better, ["holds", "holds"], ["not resolved", "fails"], "not resolved"),
        (claims.better, ["holds", "fails"], ["holds", "fails"], "fails"),
    ],
)
def test_a_comparison_by_its_statements(make, needs, gains, wanted):
    comparison = make("standard", "vision")
    assert (len(comparison.needs), len(comparison.gains)) == (len(needs), len(gains))
    assert comparison.verdict([claims.Result(p, 0, 0, 0, 5) for p in needs + gains]) == wanted


def test_only_names_that_have_both_runs_are_compared():
    frame = study_table(standard=(ZERO, STEADY), other=([0.0, None, None, None, None, None], [-3, *[None] * 5]))
    result = claims.compare(frame, Statement("standard", "other", RETAINING))
    assert result.verdict == "not resolved" and result.names == 1 and math.isnan(result.low)
    assert claims.compare(frame, Statement("standard", "nowhere", RETAINING)).names == 0


@pytest.mark.parametrize(
    "parts, wanted",
    [
        (["holds", "holds"], "holds"),
        (["fails", "fails"], "does not hold here"),
        (["holds", "fails"], "holds in part"),
        (["holds", "not resolved", "fails"], "holds in part"),
        (["holds", "not resolved"], "not resolved"),
        (["fails", "not resolved"], "not resolved"),
    ],
)
def test_a_verdict_is_that_of_its_comparisons(parts, wanted):
    assert claims.verdict(parts) == wanted


def test_every_variant_is_tested_by_a_claim_and_every_claim_knows_its_variants():
    comparisons = [comparison for claim in claims.CLAIMS for comparison in claim.comparisons]
    named = {v for c in comparisons for s in (*c.needs, *c.gains) for v in (s.ours, s.theirs)}
    assert named == {*STUDY_VARIANTS, claims.LIMIT, claims.ORIGINAL}
    assert len({c.says for c in claims.CLAIMS}) == len(claims.CLAIMS)


def test_tables_describe_the_variants_that_the_study_runs():
    assert list(STUDY_VARIANTS) == list(study_variants.VARIANTS)
