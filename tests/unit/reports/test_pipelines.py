"""Tables of pipelines, of rows made by hand."""

import math

import pandas as pd
import pytest

from slug import schema
from slug.reports import pipelines

ROW = {"kind": "style", "name": "Noto", "UA": 0.5, "IRA": 1.0, "CRA": 1.0, "FID": math.nan, "seconds": 1.0}
ROW |= {"peak_mem_mb": 1.0, "storage_bytes": 1e3, "params_share": 0.1}


def curve_rows():
    """Candidates of two concepts: (name, step, UA, IRA, CRA)."""
    rows = [
        ("a", 0.0, 0.0, 0.8, 1.0),
        ("a", 1.0, 0.4, 0.8, 0.98),  # 98%
        ("a", 2.0, 0.7, 0.72, 1.0),  # 90%, of IRA
        ("a", 3.0, 0.6, 0.76, 0.9),  # 90%, of CRA
        ("a", 4.0, 1.0, math.nan, math.nan),  # it could not win
        ("b", 0.0, 0.1, 1.0, 1.0),
        ("b", 1.0, 0.9, 0.85, 0.86),  # 85%
    ]
    return pd.DataFrame(rows, columns=["name", "step", "UA", "IRA", "CRA"])


def test_the_curve_is_the_best_ua_among_candidates_that_retain_enough():
    assert pipelines.curve(curve_rows(), [0.8, 0.85, 0.9, 0.95, 1.0]) == pytest.approx([0.8, 0.8, 0.4, 0.25, 0.05])


def test_a_score_that_the_original_lacks_asks_for_nothing():
    assert pipelines.curve(curve_rows().assign(CRA=math.nan), [0.9]) == pytest.approx([0.4])


@pytest.fixture
def ends():
    """The report on baselines: UCE's setting is at an end of its grid, ESD's is not."""
    inside = {"original": None, "slug": None, "uce": False, "esd": True}
    rows = [
        ROW | {"method": m, "name": n, "layer": "weight 0.01", "inside_grid": e} for m, e in inside.items() for n in "ab"
    ]
    return pipelines.report(pipelines.tidy(pd.DataFrame(rows)), "x", "FID was left out.")


def test_the_report_names_the_concepts_whose_setting_is_at_an_end(ends):
    wanted = "uce: the chosen setting is at an end of its grid for 2 of 2 concepts: a (weight 0.01), b (weight 0.01)."
    assert wanted in ends and "esd: the" not in ends and "slug: the" not in ends


def test_methods_are_compared_concept_by_concept():
    """Forgetting counts first, then what is retained; adapters and the original are no rivals."""
    ua = {"slug_w": [0.95, 0.95, 0.5], "slug_w_lora": [1, 1, 1], "uce": [0.85, 0.92, 0.91], "original": [0, 0, 0]}
    kept = {"uce": [1.0, 1.0, 0.9]}
    rows = [
        ROW | {"method": m, "name": n, "UA": u, "IRA": k, "CRA": 0.9}
        for m, values in ua.items()
        for n, u, k in zip("abc", values, kept.get(m, [0.9, 0.9, 0.9]), strict=True)
    ]
    said, table = pipelines.compared(pd.DataFrame(rows))
    assert "`slug_w`" in said and "90%" in said
    (row,) = table.splitlines()[2:]
    cells = [c.strip() for c in row.strip("|").split("|")]
    assert cells[:5] == ["styles", "uce", "3", "2", "1"]  # a lost: not forgotten; b retains more; c is forgotten here alone
    assert cells[5].startswith("+9.3 (") and cells[6].startswith("+3.3 (") and cells[7:] == ["1", "1"]
    assert pipelines.compared(pd.DataFrame(rows).query("method != 'slug_w'")) == []


def test_the_note_on_fid_follows_the_table(ends):
    assert "|\n\nFID was left out.\n" in ends


def test_the_original_has_no_costs(ends):
    assert next(line for line in ends.splitlines() if "| original |" in line).endswith("| 100.0%, 100.0% |  |  |  |  |")


def test_styles_come_before_objects_and_methods_in_their_order():
    rows = [ROW | {"method": m, "kind": k} for k in ("object", "style") for m in ("zzz", "uce", "original")]
    lines = pipelines.report(pd.DataFrame(rows), "x").split("\n\n")[0].splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        [f"| {kind}", method] for kind in ("styles", "objects") for method in ("original", "uce", "zzz")
    ]


def test_the_table_has_its_columns_and_order():
    frame = pipelines.tidy(pd.DataFrame([ROW | {"method": "slug", "kind": k} for k in ("object", "style")]))
    assert list(frame.columns) == schema.CANVAS_COLUMNS and list(frame["kind"]) == ["style", "object"]


def test_a_clip_as_the_judge_is_named_with_the_number_of_pictures():
    text = pipelines.judged_by_clip(["bell", "key"], [2, 3, 2])
    assert "zero-shot among bell, key; 2 or 3 pictures of each" in text


def test_a_record_in_one_line():
    before, after = {"UA": 0.0, "IRA": 1.0, "CRA": math.nan}, {"UA": 0.9, "IRA": 0.95, "CRA": math.nan}
    record = {"kind": "style", "name": "Noto", "method": "slug", "chosen": [["l", 2.0]], "n_candidates": 9, "seconds": 3.0}
    record |= {"original_validation": before, "winner_validation": after, "delta_bytes": 4000, "params_share": 0.01}
    assert pipelines.one_line(record) == (
        "style Noto, slug: l 2; validation split: UA 0.0% -> 90.0%, IRA 100.0% -> 95.0%; 9 candidates, 3 s, delta 4 kB = "
        "1.00% of the pipeline"
    )


def test_tokens_are_pooled_over_concepts():
    rows = [{"kind": "style", "method": "slug", "n": 10, "by_name": 1, "by_token": k} for k in (4, 6)]
    line = pipelines.tokens(pd.DataFrame(rows)).splitlines()[2]
    assert line == "| styles | slug | 2 | 10.0% | 50.0% (27.2% to 72.8%) | 20 |"


def together_rows(kinds):
    """Rows of multi.csv for one group: two concepts, the original pipeline and the sum."""
    rows = []
    for kind, name in zip(kinds, "ab", strict=True):
        common = {"count": 2, "names": "a; b", "kind": kind, "name": name, "n_own": 5, "n_rest": 20, "IRA": 1.0, "CRA": 1.0}
        changes = {f"{c}_change{e}": -0.1 for c in ("IRA", "CRA") for e in ("", "_low", "_high")}
        for method, ua in (("original", 0.0), ("sum", 0.8)):
            rows.append(common | {"method": method, "UA": ua, "UA_low": 0.3, "UA_high": 0.9} | changes)
    return pd.DataFrame(rows)


def test_concepts_of_one_kind_share_a_row():
    text = pipelines.together(together_rows(["style", "style"]), "slug_w")
    assert text.startswith("The edits of `slug_w`, added up:\n\n| together |")
    (line,) = text.split("\n\n")[1].splitlines()[2:]
    each = "; ".join(f"{n} 80.0% (30.0% to 90.0%; 0.0%)" for n in "ab")
    assert line.startswith(f"| 2 styles | {each} | 5 | 100.0% to 100.0% | -10.0 (-10.0 to -10.0) |") and line.endswith(
        "| 20 |"
    )


def test_a_mixture_has_a_row_for_each_kind():
    lines = pipelines.together(together_rows(["style", "object"]), "slug").split("\n\n")[1].splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| the styles of 2 concepts", "| the objects of 2 concepts"]


def test_every_report_says_how_many_pictures_are_black():
    said = "Pictures that are black all over (NaN, or a safety checker) are in no figure: slug, Noto: 3."
    rows = [ROW | {"method": m, "n_black": n} for m, n in (("original", 0), ("slug", 3))]
    assert said in pipelines.report(pipelines.tidy(pd.DataFrame(rows)), "x")
    row = {"kind": "style", "method": "slug", "name": "Noto", "n": 0, "by_name": 0, "by_token": 0, "n_black": 3}
    assert said in pipelines.tokens(pd.DataFrame([row])) and "|  |  | 0 |" in pipelines.tokens(pd.DataFrame([row]))
    assert "sum, b: 2" in pipelines.together(together_rows(["style", "style"]).assign(n_black=[0, 0, 0, 2]), "slug")
    assert "black" not in pipelines.together(together_rows(["style", "style"]).assign(n_black=0), "slug")


WHY = "not forgotten: no candidate met the rule on the validation split (UA at least 0.9)"


def test_edits_that_did_not_forget_are_marked():
    rows = [ROW | {"method": m, "caveat": said} for m, said in (("original", None), ("uce", WHY), ("esd", None))]
    frame = pipelines.tidy(pd.DataFrame(rows))
    text = pipelines.report(frame, "x")
    assert "| uce (!) |" in text and "| esd |" in text and f"\n(!) uce, Noto: {WHY}." in text
    text = pipelines.together(together_rows(["style", "style"]).assign(caveat=[None, None, None, WHY]), "slug_w")
    assert "; b (!) 80.0%" in text and f"(!) slug_w, b: {WHY}." in text and "a (!)" not in text


@pytest.mark.parametrize(("ua", "warned"), [(0.6, True), (0.25, True), (0.04, False), (float("nan"), False)])
def test_a_high_ua_of_the_unedited_pipeline_is_a_warning(ua, warned):
    rows = [ROW | {"method": "original", "UA": ua}, ROW | {"method": "slug", "UA": 0.9}]
    text = pipelines.report(pipelines.tidy(pd.DataFrame(rows)), "x")
    assert ("Warning: the unedited pipeline already scores a UA of" in text) == warned
    assert bool(pipelines.unknown("Noto", ua)) == warned


def test_a_way_that_is_no_sum_is_not_called_one():
    for method in ("joint", "uce"):
        frame = together_rows(["style", "style"]).replace({"method": {"sum": method}})
        frame = frame.assign(caveat=[None, None, None, WHY])
        text = pipelines.together(frame, "slug_w")
        assert not text.startswith("The edits of `slug_w`, added up") and f"| 2 styles | {method} |" in text
        assert f"(!) {'slug_w' if method == 'joint' else method}, b: {WHY}." in text


def test_each_way_has_a_row_where_there_are_several():
    both = together_rows(["style", "style"])
    frame = pd.concat([both, both[both["method"] == "sum"].assign(method="joint", UA=1.0)])
    text = pipelines.together(frame, "slug_w")
    rows = [line.split(" | ")[:2] for line in text.split("\n\n")[1].splitlines()[2:]]
    assert rows == [["| 2 styles", "sum"], ["| 2 styles", "joint"]] and "the edits of `slug_w`" in text
