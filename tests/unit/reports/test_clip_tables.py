"""Tables of records made by hand."""

import hand_made
import pytest

from slug import schema
from slug.reports import clip_report, clip_tables


@pytest.fixture
def frame():
    return clip_tables.table(hand_made.clip_records())


def test_the_table_has_a_row_for_each_name_split_and_state(frame):
    assert list(frame.columns) == schema.CLIP_COLUMNS
    assert len(frame) == 2 * 9  # three names; original, slug and ga once each
    assert (frame.groupby(["name", "split", "method"]).size() == 1).all()


def test_the_names_table_has_slugs_rows_only(frame):
    lines = clip_tables.names_table(frame).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| a", "| b", "| c"]
    changes = "-1.00 (-2.00 to +0.00) | -1.00 (-2.00 to +0.00)"
    assert f"| 90.0% | 0.0% (at most 7.2%) | 40 / 4 | {changes} | 75.0 | 60.0 | 1 (50.0%) |" in lines[2]


def test_means_are_over_names(frame):
    (line,) = [x for x in clip_tables.means_table(frame).splitlines() if x.startswith("| identities | ga |")]
    assert "| 3 | 0.0 | 10.0 (0.0 to 34.8) | 60.0 |" in line and line.endswith("| 61.0 | 10.0 |")


def test_pooled_counts_pictures_and_judges_changes(frame):
    lines = clip_tables.pooled(frame).splitlines()
    assert "0 of 120 test pictures of 3 forgotten names are still recognised" in lines[0] and "7.2%" in lines[0]
    assert "mean change from the original is -0.90 points" not in lines[1] and "-0.90 (-1.15 to -0.65) points" in lines[1]
    assert lines[1].endswith("3 within; the worst is -1.00 (a).") and lines[2].endswith("3 within; the worst is -1.00 (a).")


def test_the_written_table_reads_as_it_is_reported(frame, tmp_path):
    written = clip_report.write(tmp_path, frame)
    assert (tmp_path / "report.md").read_text() == clip_report.markdown(written)
    assert r"\begin{tabular}" in (tmp_path / "comparison.tex").read_text()


def test_a_report_of_slug_alone_has_no_comparison(tmp_path):
    frame = clip_tables.table(r for r in hand_made.clip_records() if r["method"] == "slug")
    clip_report.write(tmp_path, frame)
    assert "## Comparison" not in (tmp_path / "report.md").read_text() and not (tmp_path / "comparison.tex").exists()


def test_the_page_quotes_slug_and_links_the_best_known_name(frame):
    records = hand_made.clip_records()
    blocks = clip_report.page_blocks(frame, records)
    assert set(blocks) == {"results", "pictures", "comparison"}
    assert "| identities | slug |" in blocks["results"] and "| identities | ga |" not in blocks["results"]
    assert blocks["pictures"].startswith("![c before and after](m-pictures-c.png)\n\n*Pictures of the test split, ")
