"""Names in captions, as whole words, and the pattern that screens captions for them."""

import unicodedata

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slug.data.names import Matcher, _folded, checked_name, clean_name, distinct, name_stem, plain_name
from slug.errors import SlugError


@pytest.mark.parametrize(
    ("name", "caption", "found"),
    [
        ("Elon_Musk", "ELON MUSK on stage", True),
        ("Elon_Musk", "a talk by elon-musk.", True),
        ("Elon_Musk", "img_elon_musk_2019.jpg", True),
        ("Elon_Musk", "Elon   Musk", True),
        ("Elon_Musk", "Ｅｌｏｎ Ｍｕｓｋ", True),  # NFKC
        ("Elon_Musk", "Elon Musketeer", False),
        ("Elon_Musk", "melon musk", False),
        ("Elon_Musk", "Elon and Musk", False),
        ("Elon_Musk", "Elon Musk2", False),  # a digit is no boundary
        ("Elon_Musk", "", False),
        ("ant", "A giant plant", False),
        ("ant", "an ant, seen from above", True),
        ("Straße", "STRASSE", True),  # casefold
        ("beyoncé", "Beyonce\u0301 live", True),  # composed and decomposed
        ("beyoncé", "beyonce live", False),
        ("中", "中文", False),  # letters of any script
    ],
)
def test_names_are_found_as_whole_words_in_any_case(name, caption, found):
    assert Matcher([plain_name(name)]).find(caption) == ([plain_name(name)] if found else [])


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a tropical fish", []),
        ("TROPICAL_FISH, tropical fish", []),
        ("tropical fish tropical fish", []),
        ("fish and tropical fish", ["fish"]),
        ("tropical fish fish", ["fish"]),
        ("a fish cake on a plate", []),
        ("tropical fish cake fish", ["fish"]),
        ("fish of the tropical kind", ["fish"]),
    ],
)
def test_the_longest_name_wins(caption, found):
    assert Matcher(["fish"], ["fish", "tropical fish", "fish cake", "tropical fish cake", "dog"]).find(caption) == found


def test_what_stands_around_a_hidden_name_does_not_join():
    assert Matcher(["santa claus"], ["santa claus hat"]).find("santa santa claus hat claus") == []


words = st.lists(st.sampled_from(["ab", "abc", "b", "c"]), max_size=8)
separator = st.sampled_from([" ", "_", "-", ", ", " / ", "__"])


def places(name, text):
    """Where the words of a name stand in a list of words: [(from, to)]."""
    return [(i, i + len(name)) for i in range(len(text) - len(name) + 1) if text[i : i + len(name)] == name]


@given(words.filter(bool), words, separator, st.booleans())
def test_matching_is_a_search_for_words(name, text, between, upper):
    caption = between.join(text)
    caption = caption.upper() if upper else caption
    assert Matcher([" ".join(name)]).find(caption) == ([" ".join(name)] if places(name, text) else [])


@given(words.filter(bool), st.lists(words.filter(bool), max_size=3), words)
def test_a_place_that_no_longer_name_covers_counts(name, known, text):
    longer = [k for k in known if len(k) > len(name) and places(name, k)]
    covers = sorted(p for k in longer for p in places(k, text))
    own = places(name, text)
    free = [(a, b) for a, b in own if not any(x < b and a < y for x, y in covers)]
    found = Matcher([" ".join(name)], [" ".join(k) for k in known]).find("_".join(text))
    if free:
        assert found
    if not own or (len(covers) == 1 and all(covers[0][0] <= a and b <= covers[0][1] for a, b in own)):
        assert not found


def slow_fold(text):
    """The rule written out: NFKC and casefold, what is no letter or digit a space, words one space apart."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " " + " ".join("".join(c if c.isalnum() else " " for c in text).split()) + " "


@given(st.text())
def test_folding_is_the_rule_written_out(text):
    assert _folded(text) == slow_fold(text)


odd = st.text(st.sampled_from(list("aAkKsSſK \n_-.,2ß中é\u0301ﬁＡ")), max_size=10)


@given(st.lists(odd.filter(str.strip), min_size=1, max_size=4, unique=True), st.lists(odd, min_size=1, max_size=8))
def test_the_screen_lets_every_caption_with_a_name_pass(names, captions):
    matcher = Matcher(names)
    passed = pc.match_substring_regex(pa.array(captions), matcher.screen()).to_pylist()
    for caption, passes in zip(captions, passed, strict=True):
        plain = [n for n in matcher.names.values() if slow_fold(n).strip() and slow_fold(n) in slow_fold(caption)]
        assert matcher.find(caption) == plain
        assert passes or not plain
        assert bool(plain) == passes or not caption.isascii()


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("Elon_Musk", "Elon Musk"),
        ("Chris_Evans_(actor)", "Chris Evans"),
        ("Robert__Downey_Jr.", "Robert Downey Jr."),
        ("Beyonce\u0301", "Beyonc\u00e9"),  # composed
        ("O&#39;Neal", "O'Neal"),
        ("Zo\u200be_Kazan", "Zoe Kazan"),  # a space that does not show
        ("Sean Penn [2]", "Sean Penn"),
        ("Mary-Kate_Olsen", "Mary-Kate Olsen"),
    ],
)
def test_names_are_cleaned(listed, name):
    assert clean_name(listed) == name == clean_name(name)


# ------------------------------------------------------------------------------------------------------------- file names


NAMES_AND_STEMS = {
    "Elon_Musk": "Elon_Musk",
    "Elon Musk": "Elon_Musk",
    "  Elon  Musk_": "Elon_Musk",
    "Mary-Kate Olsen": "Mary-Kate_Olsen",
    "Robert Downey Jr.": "Robert_Downey_Jr.",
    "Shaquille O'Neal": "Shaquille_O'Neal",
    "Beyonce\u0301": "Beyonc\u00e9",
    "शाहरुख": "शाहरुख",  # with vowel signs, which are no letters
    "王菲": "王菲",
    "AC/DC": "AC=2FDC",
    "../../x": "=2E.=2F..=2Fx",
    ".hidden": "=2Ehidden",
    "-x": "=2Dx",
    "a=b": "a=3Db",
}


@pytest.mark.parametrize(("name", "stem"), NAMES_AND_STEMS.items())
def test_file_names_keep_what_a_name_says(name, stem):
    assert name_stem(name) == stem and "/" not in stem


nameable = st.text(min_size=1, max_size=12).filter(lambda t: any(c.isalnum() for c in plain_name(t)))


@given(nameable, nameable)
def test_two_names_never_share_a_file(one, other):
    assert (name_stem(one) == name_stem(other)) == (plain_name(one) == plain_name(other))


@pytest.mark.parametrize(
    "pair", [("AC/DC", "AC-DC"), ("O'Neal", "O-Neal"), ("a.", "a"), ("a=2F", "a/"), ("क", "कि"), ("x-", "x")]
)
def test_names_that_shared_a_file_have_one_each(pair):
    assert len(set(map(name_stem, pair))) == 2


@pytest.mark.parametrize("name", ["", " ", "_", ".", "..", "~", "???", "-", "\u0301", "__", "/", "\t\n", "🚀"])
def test_what_has_no_letter_is_no_name(name):
    for take in (name_stem, checked_name, lambda n: distinct(["Ann", n])):
        with pytest.raises(SlugError, match="no name"):
            take(name)


def test_a_name_too_long_for_a_file_is_refused():
    assert len(name_stem("a" * 120)) == 120
    for name in ("a" * 121, "/" * 40 + "a", "é" * 61):
        with pytest.raises(SlugError, match="longer than"):
            name_stem(name)


@pytest.mark.parametrize("other", ["elon musk", "ELON_MUSK", " Elon  Musk", "Elon_Musk_", "Elon-Musk", "\uff25lon Musk"])
def test_a_second_spelling_of_a_name_is_told_and_left_out(capsys, other):
    assert distinct(["Elon_Musk", "Ann", other, "Elon_Musk"]) == ["Elon_Musk", "Ann"]
    assert repr(other) in capsys.readouterr().out


def test_one_name_given_twice_alike_is_nothing_to_tell(capsys):
    assert distinct(["Ann", "Ann", "Bob"]) == ["Ann", "Bob"] and not capsys.readouterr().out
