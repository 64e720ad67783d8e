"""The table of what brings back a forgotten concept, of counts made by hand."""

import pandas as pd
import pytest

from slug.reports import recovered


def row(method, attack, form, shown, n=10, name="bell", kind="object", **more):
    return {"method": method, "kind": kind, "name": name, "attack": attack, "form": form, "shown": shown, "n": n} | more


@pytest.fixture
def rows():
    """Two objects; the original does not draw bells for "chime", and has no synonym of keys."""
    found = []
    for name, kept in (("bell", 1), ("key", 0)):
        found += [row("original", "its name", "", 9, name=name), row("slug", "its name", "", kept, name=name)]
        for form, before, after in (("a {object}", 10, 2), ("{object}!", 5, 3)):
            found += [row("original", "wording", form, before, name=name), row("slug", "wording", form, after, name=name)]
        found.append(row("slug", "merging", "50% of the original", 4, name=name))
    found += [row("original", "synonym", "chime", 4), row("slug", "synonym", "chime", 10)]
    found += [row("original", "synonym", "gong", 8), row("slug", "synonym", "gong", 2)]
    return found


def lines(rows):
    text = recovered.report(pd.DataFrame(rows))
    return text, {
        line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in text.splitlines() if line.startswith("| ")
    }


def test_counts_are_pooled_over_concepts_and_the_strongest_is_each_concepts_own(rows):
    text, table = lines(rows)
    assert table["its name"][1].startswith("5.0% (") and "; 1 of 20)" in table["its name"][1]
    assert (
        "; 10 of 40)" in table["other wordings (4)"][1] and "; 6 of 20)" in table["the strongest of the other wordings"][1]
    )
    assert "; 8 of 20)" in table["merging 50% of the original"][1] and table["merging 50% of the original"][0] == ""
    assert "2 objects" in text


def test_what_the_original_does_not_draw_is_left_out_and_said(rows):
    text, table = lines(rows)
    assert (
        "; 2 of 10)" in table["synonyms (1)"][1]
        and "Left out of synonyms, 1 of 2" in text
        and "bell: chime (4 of 10)" in text
    )
    assert "No synonym is known of: key." in text


def test_black_pictures_are_counted_and_a_cell_without_pictures_is_empty(rows):
    text, _ = lines(rows)
    assert "black" not in text
    rows = [r | {"n_black": 10 - r["n"]} for r in [*rows, row("slug", "training", "30 steps", 0, n=0)]]
    assert "black" not in lines([r | {"n_black": 0} for r in rows])[0]
    text, table = lines(rows)
    assert "are in no figure: slug, bell, training 30 steps: 10." in text and not table["training 30 steps"][1].strip("| ")
