"""The order of methods in tables."""

import pytest

from slug import methods
from slug.reports import naming


def test_the_original_comes_first_and_unknown_methods_last():
    assert naming.in_order(["zzz", "ga", "abc", "original", "slug"]) == ["original", "slug", "ga", "abc", "zzz"]


def test_rounds_and_adapters_follow_their_method():
    found = ["uce", "slug_w", "slug_w_rounds_lora", "slug_lora", "slug_w_rounds", "slug", "slug_w_lora"]
    wanted = ["slug", "slug_lora", "slug_w", "slug_w_lora", "slug_w_rounds", "slug_w_rounds_lora", "uce"]
    assert naming.in_order(found) == wanted


@pytest.mark.parametrize("method", methods.names())
def test_every_method_of_the_registry_has_a_place_and_a_label(method):
    assert naming.in_order(["zzz", method, "original"]) == ["original", method, "zzz"]
    assert naming.label(method) == methods.get(method).label


def test_an_unknown_method_is_labelled_by_its_name():
    assert naming.label("zzz") == "zzz"


def test_words_name_methods_of_the_registry_and_end_with_their_labels():
    assert set(naming.WORDS) <= {"original", *methods.names()} and naming.in_words("zzz") == "zzz"
    assert all(naming.in_words(m).endswith(f"({naming.label(m)})") for m in naming.WORDS if m != "original")
    assert naming.in_words("slug") == "SLUG" and naming.in_words("slug_w") == naming.label("slug_w")
