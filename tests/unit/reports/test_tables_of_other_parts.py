"""Tables of several names at once, of assistants and of timings, of rows made by hand."""

import math

import pandas as pd
import pytest

from slug.reports import assistants, bench, several


def sums():
    """Rows of results/clip/multi/table.csv: two names, their sum, and the sum with one edit reverted."""
    common = {"count": 2, "names": "a; b", "kind": "identity", "task": "identities", "n_forget": 40, "n_drawings": 4}
    ends = {f"{c}_change{e}": -0.01 for c in ("identities", "objects", "forget") for e in ("", "_low", "_high")}
    common |= ends | {"forget_acc1": 0.0, "forget_low": 0.0, "forget_upper": 0.1, "forget_before": 0.9, "edits": "slug_ws"}
    common |= {"n_identities": 100, "n_objects": 200, "others_acc1": 0.0, "others_upper": 0.2, "n_others": 40}
    common |= {"n_others_drawings": 4, "n_left_validation": math.nan, "factor": 1.0}
    rows = [common | {"method": "sum", "name": n, "forget_acc1": x} for n, x in (("a", 0.0), ("b", 0.1))]
    rows.append(
        common
        | {"method": "sum", "name": "all", "n_forget": 80, "n_drawings": 8, "n_left_validation": 1, "factor": math.nan}
    )
    return pd.DataFrame([*rows, common | {"method": "sum_without", "name": "a", "forget_acc1": 0.8, "factor": 0.0}])


def test_a_sum_has_its_worst_name_and_what_is_left():
    line = several.report(sums()).splitlines()[2]
    assert line.startswith("| 2 | sum | 0.0% (at most 10.0%) | b 10.0% | 80 / 8 | -1.00 (-1.00 to -1.00) | 100 |")
    assert line.endswith("| 1.00, 1.00; 1 not forgotten on the validation split |")


def test_a_reverted_edit_has_a_row():
    assert "| a | sum | 90.0% | 80.0% (0.0% to 10.0%) | -1.00 (-1.00 to -1.00) | 40 / 4 |" in several.report(sums())


def test_matrices_are_linked():
    assert several.report(sums(), ["x.png", "y.png"]).endswith(
        " after all edits, on the test split: [1](x.png), [2](y.png)."
    )
    assert "Cosines" not in several.report(sums())


def test_readmes_block_says_what_a_part_consists_of():
    text = several.parts_report([(sums(), [])])
    assert text.startswith("**2 identities, slug_ws**\n\n| names |")


def test_tables_of_earlier_versions_are_of_slug():
    assert several.parts_report([(sums().drop(columns="edits"), [])]).startswith("**2 identities, slug**")


@pytest.fixture
def answers():
    """Rows of results/vlm/table.csv for one name; nobody asked about objects."""
    row = {
        "name": "Frog",
        "layer": "l",
        "step": 2.0,
        "forget_acc": 0.9,
        "forget_unseen_acc": 0.5,
        "n_forget": 8,
        "n_objects": 0,
    }
    row |= {"identities_acc": 0.8, "objects_acc": math.nan, "utility_acc": 0.7, "n_identities": 20, "n_utility": 30}
    row |= {f"{c}_change{e}": -0.1 for c in ("identities", "utility") for e in ("", "_low", "_high")}
    row |= {f"objects_change{e}": math.nan for e in ("", "_low", "_high")}
    row |= {
        "forget_upper": 0.3,
        "n_pictures": 4,
        "n_drawings": 1,
        "n_forget_unseen": 6,
        "seconds": 5.0,
        "storage_bytes": 2e3,
    }
    row |= {"params_share": 0.1, "said_instead": "owl (8)", "commonest_share": 1.0, "known_share": 0.5}
    return pd.DataFrame([row | {"method": "original"}, row | {"method": "slug", "forget_acc": 0.0}])


def test_an_assistants_name_has_a_row_before_and_after(answers):
    kinds = pd.DataFrame([{"name": "Frog", "kind": "colour", "before": 0.9, "after": 0.8, "n": 30}])
    text = assistants.report(answers, kinds)
    assert "| Frog | 90.0% | 0.0% (at most 30.0%; 8 / 4 / 1) | 50.0% | 50.0% (6 answers) | " in text
    assert "| Frog | `l` | 2 | -10.0 (-10.0 to -10.0), 20 |  |  |  | -10.0 (-10.0 to -10.0), 30 | 5 | 2 (10.0%) |" in text
    assert "Mean accuracies over 1 names (95% t interval): other identities 80.0%, before 80.0%;" in text
    assert "| Frog | owl (8) | 100% | 50% |" in text and "| colour | 90.0% | 80.0% | 30 |" in text


NO_KINDS = pd.DataFrame(columns=["name", "kind", "before", "after", "n"])


def test_seen_and_unseen_source_images_count_together(answers):
    """Nothing is left of 8 answers about seen images, a half of 6 about unseen ones: 3 of 14 are left, from 10.2 of 14."""
    text = assistants.report(answers, NO_KINDS)
    assert "| 50.0% (6 answers) | 72.9% | 21.4% (14 answers) |" in text
    assert "seen in training 0.0%, reached; never seen 50.0%, missed; all 21.4%, missed." in text
    assert "counted pictures only of seen source images" in text


def probe(task, whom, after, name="Frog"):
    row = {"name": name, "probe": task, "whom": whom, "before": 1.0, "after": after, "change": after - 1, "n": 6}
    return row | {"n_pictures": 3, "n_drawings": 2}


@pytest.mark.parametrize("tasks", [["a"], ["a", "t"]])
def test_probes_have_a_row_for_whom_they_ask_and_say_what_no_edit_can_reach(tasks):
    rows = [probe(task, whom, 0.5) for task in tasks for whom in ("others", "name")] + [probe("a", "name", 0.0, "Owl")]
    text = assistants.probes_report(pd.DataFrame(rows), {"a": "first", "t": "text", "b": "never asked"}, "t")
    lines = [line for line in text.splitlines() if line.startswith("| first")]
    assert lines[0].startswith("| first | of the name | 100.0 | 25.0 (") and lines[0].endswith("| 2 | 12 / 6 / 4 |")
    assert lines[1] == "| first | of others in other pictures | 100.0 | 50.0 | -50.0 | 1 | 6 / 3 / 2 |"
    assert ("by construction" in text) == ("t" in tasks) and "never asked" not in text


@pytest.mark.parametrize(("left", "said"), [(0.05, "all 5.0%, reached."), (0.0501, "all 5.0%, missed.")])
def test_the_target_is_judged_by_all_source_images(answers, left, said):
    frame = answers.assign(forget_all_acc=[0.9, left], n_forget_all=14, n_pictures_all=7, n_drawings_all=3)
    text = assistants.report(frame.assign(forget_all_upper=0.4), NO_KINDS)
    assert said in text and "(at most 40.0%; 14 / 7 / 3)" in text and "counted pictures only" not in text


def test_a_name_without_unseen_source_images_counts_by_the_seen_ones(answers):
    text = assistants.report(answers.assign(forget_unseen_acc=math.nan, n_forget_unseen=0), NO_KINDS)
    assert "|  | none asked | 90.0% | 0.0% (8 answers) |" in text and "never seen nan" not in text
    assert "seen in training 0.0%, reached; all 0.0%, reached." in text


def test_an_assistant_that_did_not_forget_is_marked(answers):
    kinds, why = pd.DataFrame([{"name": "Frog", "kind": "c", "before": 0.9, "after": 0.8, "n": 30}]), "not forgotten: rule"
    text = assistants.report(answers.assign(caveat=[None, why]), kinds)
    assert "| Frog (!) | `l` |" in text and "| Frog (!) | 90.0% |" in text and f"\n(!) Frog: {why}.\n" in text


def test_pictures_that_questions_lack_are_told(answers):
    kinds = pd.DataFrame([{"name": "Frog", "kind": "c", "before": 0.9, "after": 0.8, "n": 30}])
    assert "left out; pictures: 2 missing, 1 damaged." in assistants.report(
        answers.assign(left_out="2 missing, 1 damaged"), kinds
    )
    assert "left out" not in assistants.report(answers, kinds)


def test_a_curve_has_a_row_for_each_multiple_of_the_step(answers):
    frame = pd.concat([answers.assign(factor=1.0), answers.assign(factor=0.5)]).drop(columns="objects_change")
    lines = assistants.curve_report(frame, "x.png").splitlines()
    assert lines[2].startswith("| 0.5 | 2 | 45.0 (") and lines[3].startswith("| 1 | 2 |") and lines[-1].endswith("(x.png).")
    assert lines[2].split(" | ")[6] == ""  # no objects
    assert lines[3].split(" | ")[4].startswith("47.1")  # of 14 answers each 0.9 x 8 + 3, and 3


def test_timings_have_a_row_for_each_case():
    row = {"model": "m", "n_images": 10, "n_names": 5, "fast_s": 2.0, "limit_share": 0.5, "peak_mem_mb": 100.0, "layers": 2}
    rows = [row | {"case": "search", "plain_s": 20.0, "ratio": 10.0}, row | {"case": "growth of names", "plain_s": math.nan}]
    lines = bench.table(pd.DataFrame(rows)).splitlines()[2:]
    assert lines[0] == "| m | search | 10 | 5 | 2.0 | 20 | 10.0 | 50% | 100 |"
    assert lines[1] == "| m | growth of names, 2 layers | 10 | 5 | 2.0 |  |  | 50% | 100 |"
