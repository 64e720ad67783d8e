"""The page of a result folder: what it says, what it escapes, and what it does where files are missing."""

import json
import re
from html.parser import HTMLParser

import hand_made
import pages
import pytest

from slug.reports import verdicts
from slug.reports.pages import charts, looks
from slug.reports.pages.rendering import explained, minus, numeric


class Reader(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.said = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.said += " " * (tag in ("td", "th"))

    def handle_data(self, data):
        self.said += data


@pytest.fixture
def folder(tmp_path):
    return pages.folder(tmp_path / "clip")


def test_every_section_shows_what_its_files_hold(folder):
    said = " ".join(Reader(pages.page(folder)).said.split())
    assert "2 of 2 names reached every target." in said and "recognised 36 → 0 of 40 test pictures" in said
    for part in (
        "among 1,234 names",
        "near identities 40 30 21 −9",
        "9 lost by 1 of the other names, 3 gained by 1",
        "−1.00",
    ):
        assert part in said, part
    for head in (
        "Means over names",
        "Which layer",
        "Which step",
        "Names that suffered most",
        "Cost",
        "Settings",
        "Baselines",
    ):
        assert head in said
    assert "No baseline was run" in said and "Not shown" not in said and "revert --delta" in said


def test_each_chart_says_below_its_title_which_split_it_is_of(folder):
    page = pages.page(folder)
    captions = re.findall(r'<figcaption>[^<]+<span class="of">([^<]+)</span></figcaption>', page)
    assert len(captions) == page.count('<figure class="chart"') > 4
    assert {"gradients of the forget and the retain set", "validation split"} == set(captions)
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"protocol": "paper"}))
    page = pages.page(folder)
    assert "all pictures of the evaluation, as published" in page and "validation split" not in page


def test_baselines_are_compared_where_they_ran(tmp_path):
    said = " ".join(Reader(pages.page(pages.folder(tmp_path / "clip", methods=("slug", "ga")))).said.split())
    assert "No baseline was run" not in said and "SLUG against GA" in said and "Candidates that forget (up to 2%)" in said


def test_names_are_text_whatever_they_hold(folder):
    reader = Reader(pages.page(folder))
    assert pages.ODD in reader.said and "b" not in {t for t, a in reader.elements if a.get("onerror")}
    known = "html head meta title link style body a header h1 h2 h3 h4 p ul ol li nav main div table thead tbody tr th td"
    known += " details summary b span figure figcaption img svg rect path text g i pre code small br script abbr"
    assert {tag for tag, _ in reader.elements} <= set(known.split())
    assert len([t for t, _ in reader.elements if t == "b"]) == len(re.findall("<b>", pages.page(folder)))


def test_nothing_comes_from_elsewhere(folder):
    page = pages.page(folder)
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
    for tag, attributes in Reader(page).elements:
        for key in ("src", "href", "data", "srcset", "action"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes)


@pytest.mark.parametrize(
    "name, says",
    [
        ("looks/m-a.json", "looks/m-a.json is missing; run a2_unlearn_slug.py for a again"),
        ("m-a-steps.csv", "m-a-steps.csv is missing"),
    ],
)
def test_a_missing_file_is_one_line_of_its_section(folder, name, says):
    (folder / name).unlink()
    found = [line for line in pages.page(folder).splitlines() if "Not shown" in line]
    assert found and all(says in line for line in found) and len(found) <= 2


@pytest.mark.parametrize(
    "part, value",
    [
        ("pictures", [{"image": "http://example.org/x.png", "name": "a", "own": True, "before": [], "after": []}]),
        ("pictures", [{"image": 'data:image/png;base64,"><script>', "name": "a", "own": True, "before": [], "after": []}]),
        ("pictures", "no"),
        ("layers", [{"name": "x"}]),
        ("by_name", None),
        ("cosines", {"before": [[1]], "after": [[1]], "pictures": 3}),
        ("among", "many"),
    ],
)
def test_damaged_looks_are_one_line(folder, part, value):
    path = folder / "looks" / "m-a.json"
    path.write_text(json.dumps(pages.looks("a") | {part: value}))
    page = pages.page(folder)
    assert f"looks/m-a.json has no sound {part}" in page and "example.org" not in page


def record(name="a", **after):
    made = next(r for r in hand_made.clip_records() if r["method"] == "slug")
    made["splits"]["test"]["slug"] |= after
    return made | {"name": name}


def test_the_verdict_counts_names_and_says_what_went_wrong():
    fails = record("b", forget_acc1=0.1, forget_upper=0.3)
    loses = record("c", objects_change=-0.03, objects_change_low=-0.035, objects_change_high=-0.025)
    unclear = record("d", identities_change_low=-0.05, identities_change_high=0.03)
    unknown = record("e") | {"caveat": "nothing was forgotten: the unedited model recognises none of the 20 test pictures"}
    found = verdicts.verdict([record(), fails, loses, unclear, unknown])
    assert found.sentence.startswith("1 of 5 names reached every target; b and c did not; d cannot be judged")
    assert "e had nothing to forget" in found.sentence and "at most 2% of a name's pictures" in found.sentence
    assert "Of 200 test pictures the unedited model recognises 180 and the edited ones 4 (0.5% to 5.0%" in found.counts
    why = dict((name, why) for name, _, why in found.wrong)
    assert "4 of 40 test pictures are still recognised (10.0%, 95% interval 2.8% to 23.7%)" in why["b"]
    assert "-3.00 points on other objects (95% interval -3.50 to -2.50; target: at most 1 lost)" in why["c"]
    assert set(why) == set("bcde")


def test_a_zero_is_bounded_by_pictures_and_by_source_images():
    found = verdicts.verdict([record(), record("b")])
    assert found.sentence.startswith("2 of 2 names reached every target. The targets") and not found.wrong
    assert "edited ones 0 (at most 3.7% with 95% confidence; at most 31.2% by their 8 source images" in found.counts
    assert "For a single name the bound is 7.2% at the worst." in found.counts


def test_without_slug_the_verdict_says_so():
    assert "no record of it" in verdicts.verdict([r for r in hand_made.clip_records() if r["method"] == "ga"]).sentence


def test_the_names_that_suffered_most_come_first():
    rows = [
        {"task": "t", "name": n, "pictures": 10, "before": b, "after": a}
        for n, b, a in (("x", 9, 8), ("y", 9, 2), ("z", 1, 5))
    ]
    assert [r["name"] for r in looks.suffered({"by_name": rows})] == ["y", "x"]
    assert looks.moved({"by_name": rows}) == {"lost_names": 2, "lost": 8, "gained_names": 1, "gained": 4}


@pytest.mark.parametrize(
    "axis, ticks",
    [
        (charts.Axis("x", 0, 100), ["0", "20", "40", "60", "80", "100"]),
        (charts.Axis("x", -1, 1), ["−1", "−0.5", "0", "0.5", "1"]),
        (charts.Axis("x", 0.09, 1100, "log"), ["0.1", "1", "10", "100", "1000"]),
        (charts.Axis("x", 0.9, 6, "log"), ["1", "2", "5"]),
        (charts.Axis("x", -0.5, 1.5, names=("a", "b")), ["a", "b"]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(axis, ticks):
    assert [text for _, text in axis.ticks()] == ticks
    assert all(0 <= axis.place(value) <= 1 for value, _ in axis.ticks())


def test_an_axis_holds_its_values_even_where_they_are_all_equal_or_none():
    for values in ([3.0, 3.0], [0.0], [], [float("nan")]):
        axis = charts.around(values, "x")
        assert axis.low < axis.high and all(0 <= axis.place(v) <= 1 for v in values if v == v)


def test_cells_have_true_minus_signs_and_columns_of_numbers_are_found():
    assert minus("-1.0 (-2.0 to +0.5)") == "−1.0 (−2.0 to +0.5)" and minus("a-1 ViT-B-32") == "a-1 ViT-B-32"
    assert numeric([["x", "1.0 (0 to 2)", "a"], ["y", "", "1"]]) == {1}
    assert explained("FA@1, %").startswith("<abbr") and explained("<b>") == "&lt;b&gt;"
