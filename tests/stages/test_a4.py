"""a4_report.py and analyze_performance.py, on records and tables made by hand."""

import math
import os
import subprocess
import sys
import time

import hand_made
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from hand_made import STEADY, ZERO, study_rows

from slug import files
from slug.artifacts import records
from slug.experiments import study_variants
from slug.reports import claims, clip_report, clip_tables, study_report

BLOCKS = "".join(f"<!-- {b} -->\nold\n<!-- /{b} -->\n" for b in ("results", "pictures", "comparison", "study"))


def test_help_is_immediate():
    started = time.perf_counter()
    done = subprocess.run([sys.executable, tiny.ROOT / "src/clip/a4_report.py", "--help"], capture_output=True, text=True)
    assert "--readme" in done.stdout and time.perf_counter() - started < 3  # a second, on a machine that does nothing else


def test_flags_become_settings():
    settings = tiny.stage("a4_report").parse_args(["--study", "x", "--result-dir", "y"])
    assert (settings.study, settings.run.result_dir, settings.out) == ("x", "y", "")


@pytest.fixture
def folder(tmp_path):
    """A result folder with the records of three names by two methods, as a2 and a3 leave them, and a README to fill."""
    source = tmp_path / "results" / "clip"
    steps = pd.DataFrame({"layer": ["", "x"], "step": [0.0, 1.0], "forget_acc1": [0.9, 0.0], "identities_trace": math.nan})
    steps = steps.assign(objects_trace=math.nan, identities_acc1=[0.9, 0.8], objects_acc1=[0.8, 0.7])
    for record in hand_made.clip_records():
        record["delta"] = f"{record['name']}.delta"
        if record["method"] == "slug":
            record |= {"fronts": {}, "settings": {"select_pictures": 0, "trace": 0}}
            record["winner_validation"] = dict(steps.iloc[1])
        for state in record["splits"]["validation"].values():
            state |= {"n_identities": 50, "n_objects": 50}
        files.write_json(source / records.record_file(record), record)
        files.write_text(source / records.steps_file(record), steps.to_csv(index=False))
        files.write_text(source / record["delta"], "")
    (tmp_path / "README.md").write_text(BLOCKS)
    return tmp_path


def report(folder, *more):
    tiny.run("a4_report", "--result-dir", folder / "results", *more)


def test_table_report_and_plots_are_written(folder, capsys):
    report(folder)
    out = folder / "results/clip/report"
    assert (out / "report.md").read_text() == clip_report.markdown(pd.read_csv(out / "table.csv"))
    plots = {p.name for p in out.parent.glob("*.png")}
    assert plots == {*(f"m-{part}-{n}.png" for part in ("steps", "tradeoff") for n in "abc"), "m-costs.png"}
    said = capsys.readouterr().out
    assert "winner layers: a x, b x, c x" in said and str(out) in said and not tiny.left_over(folder)
    *_, verdict, path = said.splitlines()
    assert verdict.startswith("verdict: 3 of 3 names reached every target.")
    assert path == f"to look at: {out.parent / 'report.html'}"


def test_the_page_says_what_is_missing_and_lies_beside_the_tables_of_out(folder):
    report(folder, "--out", folder / "out")
    page = (folder / "out/report.html").read_text()
    assert "looks/m-a.json is missing" in page and "the record holds no Pareto front" in page and "SLUG against GA" in page
    assert not (folder / "results/clip/report.html").exists()


def test_step_plots_that_a2_drew_are_kept_until_their_csv_changes(folder, monkeypatch):
    source = folder / "results/clip"
    found = [r for r in records.read_all(source) if r["method"] == "slug"]
    drawn = []
    monkeypatch.setattr(clip_report, "draw_steps", lambda record, _: drawn.append(record["name"]))
    for name, ends in (("a", ("png", "pdf")), ("b", ("png",))):
        for end in ends:
            files.write_text(source / f"m-steps-{name}.{end}", "")
    clip_report.draw(found, source, clip_tables.table(found))
    assert drawn == ["b", "c"]
    later = (source / "m-steps-a.png").stat().st_mtime_ns + 10**9
    os.utime(source / "m-a-steps.csv", ns=(later, later))
    clip_report.draw(found, source, clip_tables.table(found))
    assert drawn == ["b", "c", "a", "b", "c"]


def test_out_is_a_folder_without_the_run(folder):
    report(folder, "--out", folder / "out")
    names = {p.name for p in (folder / "out").iterdir()}
    assert {"table.csv", "report.md", "comparison.tex", "m-costs.png", "m-steps-a.png", "a.delta", "m-a.json"} <= names
    assert {"m-ga-b.json", "m-ga-b-steps.csv"} <= names and not (folder / "results/clip/report").exists()


def test_readme_is_filled(folder):
    report(folder, "--readme", folder / "README.md")
    text = (folder / "README.md").read_text()
    frame = pd.read_csv(folder / "results/clip/report/table.csv")
    for block, content in clip_report.page_blocks(frame, records.read_all(folder / "results/clip")).items():
        assert f"<!-- {block} -->\n{content}\n<!-- /{block} -->" in text
    assert "<!-- study -->\nold\n" in text


def test_a_folder_without_records_is_one_line(tmp_path, monkeypatch, capfd):
    assert "run_clip_slug.sh" in tiny.failure(monkeypatch, capfd, "a4_report", "--result-dir", tmp_path)


@pytest.fixture
def runs(tmp_path):
    """A folder with the table of a study, and a README to fill."""
    rows = study_rows(standard=(ZERO, STEADY), front_together=([*ZERO[:5], None], [r - 3 for r in STEADY]))
    pq.write_table(pa.Table.from_pylist(rows, study_variants.SCHEMA), tmp_path / "runs.parquet")
    (tmp_path / "README.md").write_text(BLOCKS)
    return tmp_path


def test_a_study_is_reported_with_a_copy_of_its_table(runs):
    tiny.run("a4_report", "--study", runs, "--out", runs / "out", "--readme", runs / "README.md")
    assert pd.read_parquet(runs / "out/runs.parquet").equals(pd.read_parquet(runs / "runs.parquet"))
    text, readme = (runs / "out/REPORT.md").read_text(), (runs / "README.md").read_text()
    for part in (text, readme):
        assert (
            "12 runs of 2 variants on 6 identities; 1 failed" in part
            and claims.rule(pd.read_parquet(runs / "runs.parquet")) in part
        )
    assert text == study_report.report(pd.read_parquet(runs / "runs.parquet"), "variants.png")
    assert (runs / "out/variants.png").is_file() and "<!-- results -->\nold\n" in readme


def test_a_studys_report_may_lie_elsewhere(runs):
    tiny.run("a4_report", "--study", runs, "--report", runs / "REPORT.md", "--out", runs / "a/b")
    assert "](a/b/variants.png)" in (runs / "REPORT.md").read_text() and not (runs / "a/b/REPORT.md").exists()


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no", "other"])
def test_a_table_that_is_none_is_one_line(tmp_path, monkeypatch, capfd, content):
    path = tmp_path / "runs.parquet"
    if content == "other":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    elif content is not None:
        path.write_bytes(content)
    said = tiny.failure(monkeypatch, capfd, "a4_report", "--study", tmp_path)
    assert str(path) in said and "run_study.sh" in said


def log_line(n, forget, identities):
    mia = "MIA: 50.00±1.00"
    accuracies = (
        f"fgt_acc@1: {forget}, fgt_acc@5: 1, celeba100@1: {identities}, celeba100@5: 1, test_acc@1: 0.7, test_acc@5: 1"
    )
    return f"iter: {n}, ratio: 1, {accuracies}, {mia}, time: {n}.0\n"


def test_the_log_table_takes_the_published_choice_and_ours(tmp_path):
    text = log_line(0, 0.9, 0.8) + log_line(1, 0.0, 0.2) + log_line(2, 0.01, 0.6)
    (tmp_path / "20260101_m_a_ga_lr1e-06.txt").write_text(text, encoding="utf-8")
    out = tmp_path / "logs.csv"
    command = [sys.executable, str(tiny.ROOT / "scripts" / "analyze_performance.py"), str(tmp_path), "--out", str(out)]
    assert "20260101_m_a_ga_lr1e-06" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = pd.read_csv(out).iloc[0]
    assert (row["first zero: iter"], row["first zero: identities"]) == (1, 0.2)
    assert (row["best: iter"], row["best: identities"], row["time"]) == (2, 0.6, 2.0)
