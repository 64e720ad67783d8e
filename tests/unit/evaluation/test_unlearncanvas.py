"""UA, IRA and CRA, and what the evaluator of generated pictures makes of a candidate."""

import math

import pytest
import tiny
import torch
from tiny_canvas import OBJECTS, STYLES, Painted, Reader, sound

from slug.core import layers, slug
from slug.core.edit import Edit
from slug.core.search import Plan, Schedule
from slug.core.selection import winner
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts, unlearncanvas
from slug.evaluation.canvas_prompts import Concept
from slug.models.canonical import ALONE
from slug.models.diffusion import BrokenPictures

NOTO = Concept("style", "Noto")


# ------------------------------------------------------------------------------------------------------------- figures


def test_scores_are_those_of_the_paper():
    asked = canvas_prompts.requests(["a", "b"], ["x", "y"], test=[0, 1], validation=[])
    # Pictures in the order (a x, a y, b x, b y), seed 0 and then seed 1.
    right = {"style": torch.tensor([1, 0, 1, 1, 0, 0, 1, 0]).bool(), "object": torch.tensor([1, 1, 0, 1, 1, 1, 1, 1]).bool()}
    found = unlearncanvas.scores(Concept("style", "a"), asked, right)
    assert found == pytest.approx((1 - 1 / 4, 3 / 4, 3 / 4))
    # Of x: pictures 0, 2, 4, 6 are its own; the others' object accuracy is 4/4, their style accuracy 1/4.
    found = unlearncanvas.scores(Concept("object", "x"), asked, right)
    assert found == pytest.approx((1 - 3 / 4, 4 / 4, 1 / 4))


def test_pictures_that_are_black_are_in_no_share():
    asked = canvas_prompts.requests(["a", "b"], ["x", "y"], test=[0], validation=[])  # a x, a y, b x, b y
    right = {"style": torch.tensor([0, 1, 1, 0]).bool(), "object": torch.tensor([1, 1, 0, 1]).bool()}
    drawn = torch.tensor([0, 1, 0, 1]).bool()
    assert unlearncanvas.scores(Concept("style", "a"), asked, right, drawn) == (0, 0, 1)
    assert all(map(math.isnan, unlearncanvas.scores(Concept("style", "a"), asked, right, drawn & False)))


def test_a_kind_that_is_not_judged_has_no_score():
    asked = canvas_prompts.requests([""], ["x", "y"], test=[0], validation=[])
    found = unlearncanvas.scores(Concept("object", "x"), asked, {"object": torch.tensor([True, False])})
    assert found[:2] == (0, 0) and math.isnan(found.CRA)


@pytest.mark.parametrize(
    ("ua", "margin", "spread", "wanted", "found"),
    [
        (1.0, -1.0, 1.0, 0.9, 0.8413),  # few pictures, all on the brink: fewer of others would be forgotten
        (1.0, -2.0, 1.0, 0.9, 0.9),  # more than is wanted is no merit
        (0.8, -2.0, 1.0, 0.9, 0.8),  # counted or estimated, the lower one
        (1.0, -1.0, 0.0, 0.9, 0.9),  # without spread there is no estimate
    ],
)
def test_what_is_reached_is_counted_and_estimated(ua, margin, spread, wanted, found):
    assert unlearncanvas.reached(ua, margin, spread, wanted) == pytest.approx(found, abs=1e-4)


# ----------------------------------------------------------------------------------------------------------- evaluator


def no_bells(prompt, seed):
    """Noto is painted as Blob, and bells as keys in every style: CRA falls to 2/3."""
    return [1, max(sound(prompt, seed)[1], 1)]


def partly(share):
    """What a pipeline paints that forgets Noto in the first `share` of 60 seeds."""
    return lambda prompt, seed: [1 if seed - 100 < 60 * share else sound(prompt, seed)[0], sound(prompt, seed)[1]]


def make(**more):
    """A CanvasEvaluator of Noto, made where the pipeline is sound: 180 pictures of Noto, 180 others."""
    asked = canvas_prompts.requests(STYLES, OBJECTS, test=[0], validation=list(range(100, 160)), shared=True)
    how = {"wanted": 0.9, "keep": 0.9, "others": 1000} | more
    return unlearncanvas.CanvasEvaluator(Painted(sound), Reader(), asked, NOTO, **how)


def score(evaluator, says, best=None, **how):
    """(candidate, pictures that were made) of a pipeline that paints what `says` tells; beside `start` without `best`."""
    evaluator.diffusion.says, evaluator.diffusion.made = says, 0
    candidate = evaluator.score(Edit({}, "l", 1.0), best or evaluator.start, **how)
    return candidate, evaluator.diffusion.made


def test_the_start_is_scored_in_full():
    start = make().start
    assert [start.scores[c] for c in ("UA", "IRA", "CRA", "kept")] == [0, 1, 1, True] and not start.forgotten


def test_a_candidate_has_the_columns_of_tables_in_their_order():
    row = make().start.row()
    assert list(row) == "layer step UA IRA CRA margin margin_sd wanted kept seconds".split()


def test_others_are_not_drawn_where_nothing_is_forgotten():
    evaluator = make()
    candidate, made = score(evaluator, sound)
    assert candidate.scores["UA"] == 0 and math.isnan(candidate.retained) and candidate.preference is None
    assert made == len(evaluator.own) == 180


def test_the_margin_is_that_of_the_concepts_own_logit():
    assert score(make(), sound)[0].scores["margin"] == 1 and score(make(), no_bells)[0].scores["margin"] == -1


def test_log_all_scores_the_others_all_the_same():
    candidate, made = score(make(), sound, log_all=True)
    assert candidate.retained == 1 and candidate.scores["kept"] and made == 360


def test_a_candidate_that_forgets_is_scored_in_full():
    candidate, made = score(make(keep=0.6), no_bells)
    assert candidate.forgotten and (candidate.scores["IRA"], candidate.scores["CRA"]) == (1, pytest.approx(2 / 3))
    assert candidate.retained == pytest.approx(5 / 6) and candidate.preference == (0.9, candidate.retained) and made == 360


def test_a_candidate_below_a_floor_is_given_up_early_and_not_kept():
    candidate, made = score(make(), no_bells)
    assert candidate.scores["UA"] == 1 and math.isnan(candidate.retained) and candidate.scores["kept"] is False
    assert candidate.preference is None and 180 < made < 360


def test_a_candidate_whose_pictures_are_nan_is_not_scored(capsys):
    evaluator = make()

    def broken(prompt, seed):
        raise BrokenPictures("1 of 1 pictures are NaN")

    found, _ = score(evaluator, broken)
    assert not found.forgotten and found.preference is None and found.progress == 1.0
    assert math.isnan(found.scores["UA"]) and "not scored: 1 of 1" in capsys.readouterr().out
    with pytest.raises(BrokenPictures):
        score(evaluator, broken, log_all=True)


def test_a_candidate_on_its_floor_is_kept():
    assert score(make(keep=2 / 3 - 1e-6), no_bells)[0].scores["kept"]


@pytest.mark.parametrize(
    ("scores", "progress"),
    [
        ({"UA": 0.3, "kept": False}, 1),  # too far
        ({"UA": 0.3, "kept": True}, 1 / 3),
        ({"UA": 0.9, "kept": True}, 1),
        ({"UA": 0.899, "kept": True}, 0.99),
    ],
)
def test_progress_is_the_part_of_the_way_to_what_is_wanted(scores, progress):
    found = make().candidate(Edit(), {"margin": math.nan, "margin_sd": math.nan} | scores)
    assert found.progress == pytest.approx(progress)


def test_a_tie_is_given_up_where_it_retains_less():
    evaluator = make(keep=0.5)
    best, _ = score(evaluator, partly(1.0))
    candidate, made = score(evaluator, no_bells, best)
    assert candidate.scores["UA"] == 1 and candidate.scores["kept"] is None and candidate.preference is None and made < 360


def test_others_are_drawn_wherever_a_candidate_may_be_the_furthest():
    candidate, _ = score(make(), partly(0.5))
    assert candidate.scores["UA"] == 0.5 and not candidate.forgotten and candidate.retained == 1


def test_others_are_not_drawn_where_a_candidate_reaches_less_than_the_best():
    evaluator = make()
    best, _ = score(evaluator, partly(0.5))
    candidate, made = score(evaluator, partly(0.25), best)
    assert math.isnan(candidate.retained) and made == 180


def test_a_candidate_far_behind_is_given_up_after_a_third_of_its_own_pictures():
    evaluator = make()
    best, _ = score(evaluator, partly(1.0))
    candidate, made = score(evaluator, sound, best)
    assert candidate.scores["UA"] == 0 and made == 60


def test_a_candidate_of_a_record_is_the_same_again():
    evaluator = make(keep=0.6)
    candidate, _ = score(evaluator, no_bells)
    again = evaluator.candidate(candidate.edit, candidate.row())
    assert again.row() == candidate.row() and again.preference == candidate.preference and again.forgotten


def test_a_candidate_of_a_record_is_held_to_what_is_wanted_now():
    candidate, _ = score(make(keep=0.6), partly(0.95))
    again = make(wanted=0.98).candidate(candidate.edit, candidate.row())
    assert candidate.forgotten and not again.forgotten and again.scores["wanted"] == 0.98


@pytest.mark.parametrize(("says", "settled"), [(partly(0.5), False), (no_bells, False), (partly(1.0), True)])
def test_a_search_is_settled_where_all_that_was_retained_still_is(says, settled):
    evaluator = make(keep=0.5)
    assert evaluator.settled(score(evaluator, says)[0]) == settled


def test_a_search_that_found_nothing_is_not_settled():
    evaluator = make()
    assert not evaluator.settled(evaluator.start) and not evaluator.settled(None)


def test_others_are_drawn_from_all_cells():
    few = make(others=30)
    assert len(few.others) == 30 and {r.object for r in few.others} == set(OBJECTS)
    assert few.others == make().others[:30]


def test_prompts_without_the_concept_are_refused():
    asked = canvas_prompts.requests(["Blob_Old"], OBJECTS)
    with pytest.raises(SlugError, match="validation split has no pictures of the style Noto"):
        unlearncanvas.CanvasEvaluator(Painted(sound), Reader(), asked, NOTO, wanted=0.9, keep=0.9, others=9)


def test_prompts_without_other_concepts_are_refused():
    asked = canvas_prompts.requests(["Noto"], OBJECTS)
    with pytest.raises(SlugError, match="validation split has no pictures of other concepts"):
        unlearncanvas.CanvasEvaluator(Painted(sound), Reader(), asked, NOTO, wanted=0.9, keep=0.9, others=9)


def test_the_winner_goes_furthest_within_bounds():
    evaluator = make()
    rows = {"a": (0.92, 0.9, 0.9, True), "b": (0.95, 0.95, 0.9, True), "c": (0.5, 0.99, 0.97, True)}
    rows["d"] = (1.0, math.nan, math.nan, False)

    def best(names, wanted=0.9):
        evaluator.wanted = wanted
        found = (dict(zip(("UA", "IRA", "CRA", "kept"), rows[n], strict=True)) for n in names)
        chosen = winner([evaluator.candidate(Edit({}, n), row) for n, row in zip(names, found, strict=True)])
        return chosen and chosen.layer

    assert best("abcd") == "b"  # both reach the 0.9 that is wanted, and it retains more
    assert best("acd", wanted=0.93) == "a"
    assert best("cd") == "c" and best("d") is None


# -------------------------------------------------------------------------------------------------------------- search


@pytest.fixture(scope="module")
def searched(tiny_canvas):
    """(pipeline, evaluator, four layers, a gradient at random)."""
    pipeline = tiny.load_pipeline(tiny_canvas)
    asked = canvas_prompts.requests(STYLES, OBJECTS, test=[], validation=[100])
    judge = canvas_classifiers.load_classifiers(tiny_canvas / "classifiers")
    evaluator = unlearncanvas.CanvasEvaluator(pipeline, judge, asked, NOTO, wanted=0.5, keep=0.9, others=100)
    g = torch.Generator().manual_seed(1)
    forget = {n: torch.randn(p.shape, generator=g) for n, p in pipeline.clip.parameters.items()}
    return pipeline, evaluator, [layers.Layer(n, "language", 1.0, 0.0) for n in pipeline.candidates()[:4]], forget


def search(searched, evaluations, alone=False, **how):
    pipeline, evaluator, front, forget = searched
    plan = Plan(alone=alone, schedule=Schedule(evaluations=evaluations))
    return slug.over_layers(pipeline.clip, evaluator, front, forget, plan, best=evaluator.start, **how)


def test_the_search_has_a_curve_for_each_group(searched):
    pipeline, _, front, _ = searched
    found = search(searched, 2)
    assert len(found.curves) == len({pipeline.clip.group(layer.name) for layer in front})


def test_the_search_keeps_the_winner_of_all_its_candidates(searched):
    found = search(searched, 2)
    assert found.winner is winner([searched[1].start, *found.candidates]) and found.winner is not None


def test_the_search_ends_where_it_is_settled(searched):
    told = iter((False, False, True))
    assert len(search(searched, 2, settled=lambda best: next(told)).candidates) == 3


def test_the_members_of_a_group_are_searched_alone(searched):
    pipeline, _, front, _ = searched
    found = search(searched, 1, alone=True)
    groups = {pipeline.clip.group(layer.name) for layer in front}
    assert len(found.curves) == len(groups | {(layer.name,) for layer in front})
    assert all(pipeline.clip.group(n) == (n.removesuffix(ALONE),) for n in found.curves if n.endswith(ALONE))
