"""The joint search of factors."""

import math

import pytest

from slug.experiments import several


class Told(several.Group):
    """A group whose names are forgotten where `says` tells so of the factors."""

    def __init__(self, says, count=2):
        self.says, self.names, self.asked = says, ["x"] * count, []

    def forgotten(self, factors):
        self.asked.append(factors)
        return [{"forget_acc1": 0.0 if f else 0.5, "margin": -1.0, "margin_sd": 0.0} for f in self.says(factors)]


@pytest.mark.parametrize(
    ("says", "wanted"),
    [
        (lambda f: [x >= 0.25 for x in f], lambda f: all(0.25 <= x < 0.25 + 2 / 2**several.FACTORS for x in f)),
        (lambda f: [f[0] >= 2, True], lambda f: 2 <= f[0] < 2.2 and f[1] <= 1 / 2**several.FACTORS),
        (lambda f: [False, True], lambda f: f == (1, 1)),  # no length will do
        (lambda f: [False, f[1] >= 1.3], lambda f: f[1] == pytest.approx(math.sqrt(2))),
        (lambda f: [f[0] > several.LONGEST, f[1] >= 1], lambda f: f[0] <= several.LONGEST and f[1] == 1),
    ],
)
def test_the_joint_search_returns_the_shortest_factors_that_it_tried(says, wanted):
    group = Told(says)
    found, asked = group.joint(3.0), list(group.asked)
    assert wanted(found) and found in asked, found
    assert group.left(found, 3.0) == min(group.left(f, 3.0) for f in asked)


def test_a_joint_search_that_asks_for_wider_margins_makes_longer_steps():
    group = Told(lambda f: [True] * len(f))
    group.forgotten = lambda f: [{"forget_acc1": 0.0, "margin": -x, "margin_sd": 0.2} for x in f]
    short, long = (group.joint(sigmas) for sigmas in (2.0, 3.0))
    assert short == pytest.approx((0.4, 0.4), rel=0.1) and long == pytest.approx((0.6, 0.6), rel=0.1)
