"""The benchmark's table and page, by hand-made records."""

import copy

import hand_made
import pytest

from slug import schema
from slug.reports import benchmark_report

SAID = {"rule": {"max_forget": 0.02}, "runs": [{"folder": "seed-0"}]}


def records():
    """Records of SLUG (vision, language and any tower), of a method of the vision tower and of one of both towers."""
    found = []
    for record in hand_made.clip_records():
        for split in record["splits"].values():
            split["original"] |= {"neighbours_acc1": 0.8, "forget_cos": 0.5, "n_drawings": 4, "sources_recognised": 4}
            split[record["method"]] |= {"neighbours_acc1": 0.7, "forget_cos": 0.1, "sources_recognised": 0, "n_forget": 40}
            split[record["method"]] |= {"forget_vision_acc1": 0.0, "forget_language_acc1": 0.9}
        about = {"run": "seed-0", "model_seed": 0, "split_half": "first", "tower": ""}
        if record["method"] == "slug":
            found += [record | about | {"tower": tower} for tower in benchmark_report.TOWERS]
        else:
            found.append(record | about)
    return found


@pytest.fixture
def frame():
    return benchmark_report.table(records(), {"a": {"forget_cos": 0.2, "forget_acc1": 0.0}}, "v7-abc")


def test_a_row_holds_what_gold_models_say_and_what_neighbours_lost(frame):
    row = frame[(frame["name"] == "a") & (frame["method"] == "ga") & (frame["split"] == "test")].iloc[0]
    assert (row["protocol"], row["model_seed"], row["gold_cos"]) == ("v7-abc", 0, 0.2)
    assert row["neighbours_change"] == pytest.approx(-0.1) and row["forget_cos"] == 0.1
    assert frame[frame["name"] == "b"]["gold_cos"].isna().all()


def test_the_unedited_model_stands_once_for_each_name_and_split(frame):
    assert (frame["method"] == schema.ORIGINAL).sum() == 6 and len(frame) == 6 + 2 * 3 * 4


def test_methods_are_in_the_leaderboards_of_the_towers_that_they_change(frame):
    found = {tower: set(benchmark_report.of_tower(frame, tower)["method"]) for tower in benchmark_report.TOWERS}
    assert found == {
        "any": {"original", "slug", "ga"},
        "vision": {"original", "slug", "ga"},
        "language": {"original", "slug"},
    }


def test_a_leaderboard_counts_names_pictures_and_drawings(frame):
    text = benchmark_report.leaderboard(benchmark_report.of_tower(frame, "any"), 0.02)
    lines = text.splitlines()[2:]
    assert "SLUG" in lines[0] and "gradient ascent" in lines[1] and "unedited" in lines[2]
    assert "| 3 | 3 | 0 of 120 (0.0 to 2.5%) | 0 of 12 (0.0 to 22.1%) |" in lines[0]
    assert "108 of 120" in lines[2] and "12 of 12" in lines[2]
    assert "-10.0" in lines[0] and "-0.100 (1 names)" in lines[0] and "2 of 3" in lines[1]


def test_the_page_says_what_was_left_out_and_who_won(frame):
    text = benchmark_report.page(frame, SAID, "v7-abc", {"of other frozen rules": 2}, {"any": "ranks-any.png"})
    assert "Protocol v7-abc" in text and "Left out: 2 files of other frozen rules." in text
    assert (
        "| gradient ascent (GA) | 3 | 0 | 3 |" in text
        and "![mean ranks](ranks-any.png)\n\n*Mean ranks of methods over names, on the test split.*" in text
    )
    assert text.count("## Edits of") == 3 and "nan" not in text


def test_the_spread_over_models_stands_beside_that_over_names():
    more = [r | {"run": "seed-1", "model_seed": 1} for r in records()]
    text = benchmark_report.spread_of_models(benchmark_report.table([*records(), *more], {}, "v7"))
    assert "| SLUG | 2 | 3 |" in text and text.splitlines()[2].endswith("| 0.00 | 0.00 | 0.00 |")
    assert benchmark_report.spread_of_models(benchmark_report.table(records(), {}, "v7")) == ""


def test_what_the_margins_cost_is_paired_by_name_and_no_spread_of_models():
    """The run without margins retains a point more of both tasks and forgets a name less."""
    said = {"rule": {"max_forget": 0.02}}
    said["runs"] = [
        {"folder": "seed-0", "model": 0, "splits": "first"},
        {"folder": "bare", "model": 0, "splits": "first", "rule": {"sigmas": 0}},
    ]
    bare = [copy.deepcopy(r) | {"run": "bare"} for r in records() if r["method"] == "slug"]
    for record in bare:
        figures = record["splits"]["test"]["slug"]
        figures |= {f"{t}_change": figures[f"{t}_change"] + 0.01 for t in schema.TASKS}
        figures["forget_acc1"] = 0.5 if record["name"] == "a" else 0.0
    frame = benchmark_report.table([*records(), *bare], {}, "v7")
    assert (
        benchmark_report.without_margins(frame, said, 0.02).splitlines()[-1]
        == "| SLUG | 3 | 3 | 2 | +1.00 (+1.00 to +1.00) |"
    )
    turned = said | {"runs": said["runs"][::-1]}  # whichever is named first
    assert benchmark_report.without_margins(frame, turned, 0.02) == benchmark_report.without_margins(frame, said, 0.02)
    assert benchmark_report.without_margins(frame, said | {"runs": said["runs"][1:]}, 0.02) == ""  # nothing is beside it
    text = benchmark_report.page(frame, said, "v7", {}, {})
    assert "## With and without the margin rule" in text and "How much of the spread" not in text


def test_what_is_left_stands_beside_gold_on_the_same_names():
    found = records()
    for record in found:
        for figures in record["splits"]["test"].values():
            figures |= {"probe_acc": 0.9 if record["name"] == "a" else 0.5, "retrieval_acc1": 0.5, "n_aliases": 0}
    frame = benchmark_report.table(found, {"a": {"forget_cos": 0.2, "probe_acc": 0.8}}, "v7")
    assert (frame["gold_probe"].dropna() == 0.8).all()
    lines = benchmark_report.what_is_left(benchmark_report.of_tower(frame, "any")).splitlines()
    (slug,) = [line for line in lines if line.startswith("| SLUG |")]
    assert slug.startswith("| SLUG | 3 | 0.0 | - | 50.0 | 63.3 (90.0, gold 80.0; 1 names) |")
    assert lines[0].startswith(
        "| method | names | recognised by the vision tower alone, % | recognised under another name, % |"
    )
