"""Names that a forgotten one competes with."""

import pytest

from slug.data import classes


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        ("a photo of Taylor Swift on stage", ["Taylor Swift"]),
        ("Taylor Swift wins again", ["Taylor Swift"]),
        ("we saw Jean-Luc Picard, Data and Worf fight", ["Data", "Jean-Luc Picard", "Worf"]),
        ("Sunset over hills", []),  # the first word by itself is no sign of a name
        ("A Photo Of A Lion", []),  # a capital in every word
        ("LION ICON", []),
        ("the sea at night", []),
        ("painting by Van Gogh. Free shipping", ["Van Gogh"]),
        ("über Ägypten fliegen", ["Ägypten"]),
    ],
)
def test_proper_names_are_runs_of_words_with_capitals(caption, names):
    assert sorted(classes.proper_names([caption])) == names


def test_the_commonest_names_come_first_and_are_limited(monkeypatch):
    monkeypatch.setattr(classes, "MOST", 2)
    assert classes.proper_names(["see Rome today", "see Rome now", "see Paris now", "see Oslo now"]) == ["Rome", "Oslo"]


def test_the_forgotten_names_come_first_and_no_name_twice():
    assert classes.competing(["elon_musk"], ["Elon Musk", "tench", "Tench", "", "cat"]) == ["elon musk", "tench", "cat"]


def test_without_classes_they_are_those_of_imagenet_and_of_the_captions():
    found = classes.default(["meeting Ada Lovelace again"])
    assert found[0] == "tench" and len(found) == 1001 and found[-1] == "Ada Lovelace"
