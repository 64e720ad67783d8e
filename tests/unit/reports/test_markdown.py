"""Markdown tables, and the marked blocks of a document."""

import pytest

from slug.errors import SlugError
from slug.reports import markdown

TEXT = "# A\n<!-- b -->\nold\n<!-- /b -->\nend\n"


def test_a_table_has_a_line_for_each_row():
    assert (
        markdown.table("a | b c", [[1, "x"], ["", 2], "3 | y"]) == "| a | b c |\n|---|---|\n| 1 | x |\n|  | 2 |\n| 3 | y |"
    )


def test_a_block_is_replaced_and_nothing_else():
    assert markdown.update_block(TEXT, "b", r"new \1") == "# A\n<!-- b -->\nnew \\1\n<!-- /b -->\nend\n"


def test_a_missing_block_is_named():
    with pytest.raises(SlugError, match="there is no <!-- c -->"):
        markdown.update_block(TEXT, "c", "")


def test_a_report_is_written_and_quoted_with_links_of_its_own(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(TEXT)
    markdown.publish(tmp_path / "report.md", "[x](x.png)", "b", str(readme), "[x](out/x.png)")
    assert (tmp_path / "report.md").read_text() == "[x](x.png)\n" == capsys.readouterr().out
    assert readme.read_text() == TEXT.replace("old", "[x](out/x.png)")


def test_a_report_without_a_readme_is_only_written(tmp_path):
    markdown.publish(tmp_path / "report.md", "x", "b")
    assert [p.name for p in tmp_path.iterdir()] == ["report.md"]
