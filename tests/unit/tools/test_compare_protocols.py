"""One table with both protocols side by side."""

import sys

import hand_made
import pandas as pd
import pytest
import tiny

from slug import cli, protocols
from slug.reports import clip_report, clip_tables, rules


def write(path, protocol, change):
    """The table of a run: hand-made records with this protocol and retained accuracies moved by `change`."""
    records = [r | {"protocol": protocol} for r in hand_made.clip_records()]
    for record in records:
        for states in record["splits"].values():
            for figures in states.values():
                figures["identities_acc1"] += change
    clip_report.write(path, clip_tables.table(records))
    return path / "table.csv"


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Runs the tool on two tables; returns what it printed, or its error."""

    def run(ours, paper):
        monkeypatch.setattr(sys, "argv", ["x", "--ours", str(ours), "--paper", str(paper), "--out", str(tmp_path / "out")])
        try:
            cli.exit_with(tiny.script("tools/compare_protocols").main)
        except SystemExit:
            return capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_both_protocols_stand_side_by_side_with_what_they_do(compare, tmp_path):
    said = compare(write(tmp_path / "a", "ours", 0.0), write(tmp_path / "b", "paper", 0.05))
    text = (tmp_path / "out" / "report.md").read_text()
    for line in said.splitlines():
        assert line in text or line.endswith("report.md")
    row = next(line for line in text.splitlines() if line.startswith("| slug |"))
    assert "89.0, 94.0" in row and "79.0, 79.0" in row
    assert "identities 90.0, 95.0" in text and "SLUG's layer is the same for 3" in text
    assert all(f"* {row}: {said}." in text for row, said in protocols.points(protocols.PAPER))
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(table["protocol"]) == {"ours", "paper"} and set(table["split"]) == {"test"}


def test_a_table_of_the_other_protocol_is_refused(compare, tmp_path):
    table = write(tmp_path / "a", "ours", 0.0)
    assert "was made by the protocol ours, not paper" in compare(table, table)


def test_the_report_says_which_protocol_it_is_of_and_its_points(tmp_path):
    texts = {p: (write(tmp_path / p, p, 0.0).parent / "report.md").read_text() for p in ("ours", "paper")}
    assert "Protocol: **ours**" in texts["ours"] and "test split" in texts["ours"]
    assert "Protocol: **paper**" in texts["paper"] and "chosen on the very pictures" in texts["paper"]
    assert all(said in texts["paper"] for _, said in protocols.points(protocols.PAPER))


def test_a_table_of_before_protocols_is_ours(tmp_path):
    frame = clip_tables.table(hand_made.clip_records())
    assert rules.protocols_of(frame.drop(columns="protocol")) == [protocols.OURS] == rules.protocols_of(frame)
