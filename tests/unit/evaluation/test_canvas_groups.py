"""The evaluator of edits for several concepts, with a painter that does what it is told."""

import pytest
from tiny_canvas import OBJECTS, STYLES, Painted, Reader, sound

from slug.core.edit import Edit
from slug.errors import SlugError
from slug.evaluation import canvas_prompts
from slug.evaluation.canvas_groups import GroupEvaluator, column
from slug.evaluation.canvas_prompts import Concept

ASKED = canvas_prompts.requests(STYLES, OBJECTS, test=[], validation=list(range(1000, 1004)))
GROUP = [Concept("style", "Noto"), Concept("object", "bell")]


def evaluator(painted, group=GROUP, **more):
    how = {"wanted": 0.9, "keep": 0.8, "own": 4, "others": 8} | more
    return GroupEvaluator(painted, Reader(), ASKED, group, **how)


def test_the_unedited_pipeline_forgets_nothing_and_retains_everything():
    start = evaluator(Painted(sound)).start
    assert (start.scores["reached"], start.retained, start.preference) == (0, 1, (0, 1))
    assert start.scores[column(GROUP[0])] == start.scores[column(GROUP[1])] == 0


def forgotten(*names):
    """What paints something else where one of these is asked for."""

    def says(prompt, seed):
        style, thing = sound(prompt, seed)
        style = 1 - style if STYLES[0] in names and "Noto" in prompt else style
        return [style, (thing + 1) % 3 if any(n in prompt for n in names if n in OBJECTS) else thing]

    return says


def test_what_is_reached_is_the_mean_over_concepts():
    painted = Painted(sound)
    scorer = evaluator(painted)
    painted.says = forgotten("bell")
    half = scorer.score(Edit())
    assert (half.scores[column(GROUP[1])], half.scores[column(GROUP[0])], half.scores["reached"]) == (1, 0, 0.45)
    painted.says = forgotten("bell", "Noto")
    both = scorer.score(Edit(), half)
    assert both.forgotten and both.preference == (0.9, 1.0) and scorer.settled(both) and not scorer.settled(half)
    assert scorer.score(Edit(), both).preference == both.preference


def test_retained_pictures_are_made_only_where_a_candidate_can_win():
    painted = Painted(sound)
    scorer = evaluator(painted)
    painted.says = forgotten("bell", "Noto")
    best, made = scorer.score(Edit()), painted.made
    painted.says = sound
    assert scorer.score(Edit(), best).preference is None and painted.made - made == 8  # the concepts' own


def test_what_damages_the_rest_is_not_kept():
    painted = Painted(sound)
    scorer = evaluator(painted)
    painted.says = lambda prompt, seed: [0, 0]
    assert scorer.score(Edit()).preference is None


@pytest.mark.parametrize("group", [[Concept("style", s) for s in STYLES], [Concept("object", o) for o in OBJECTS]])
def test_a_group_that_leaves_nothing_is_refused(group):
    with pytest.raises(SlugError, match="every prompt shows one of"):
        evaluator(Painted(sound), group)


def test_a_concept_without_pictures_is_named():
    with pytest.raises(SlugError, match="no pictures of rocket to choose by"):
        evaluator(Painted(sound), [GROUP[0], Concept("object", "rocket")])
