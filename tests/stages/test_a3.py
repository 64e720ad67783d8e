"""a3_unlearn_compare.py: the baselines are run, chosen, resumed and repeated."""

import json
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest
import tiny
import torch
from tiny_run import NAMES

from slug import methods
from slug.experiments import comparison
from slug.methods import ga

TIMES = {"seconds", "gradient_s", "shared_s", "search_s", "peak_mem_mb", "times"}
METHODS = ("ft", "ga", "gaft", "salun", "ssd")
EPOCHS = ("--epochs", "2", "--forget-epochs", "2", "--trace", "8")
GRID = ("--lr", "1e-4", "1e-3", "--grow", "1")


def without_times(record):
    """A record without what differs between two equal runs."""
    if isinstance(record, dict):
        return {k: without_times(v) for k, v in record.items() if k not in TIMES}
    return record


def records_of(run):
    """{(method, name): record} of a run's baselines."""
    found = {}
    for path in (run.results / "clip").glob("*.json"):
        record = json.loads(path.read_text())
        if record["method"] != "slug":
            found[record["method"], record["name"]] = record
    return found


@pytest.fixture(scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def compared(done, one_thread):
    """A finished comparison beside the records of SLUG. Only for reading."""
    run = done.another("compared", link=False)
    shutil.copytree(done.results / "grads", run.results / "grads", symlinks=True)
    shutil.copytree(done.results / "clip", run.results / "clip")
    tiny.run("a1_compute_grad", *run.a1(), "--unlearn-method", "ssd")
    run.a3 = [*run.a1(), *run.evaluation, *EPOCHS]
    tiny.run("a3_unlearn_compare", *run.a3, *GRID, "--unlearn-method", *METHODS)
    return run


def again(run, folder, name):
    """A copy of a comparison that a test may change."""
    other = run.another(name, link=False)
    shutil.copytree(run.results, other.results, symlinks=True, dirs_exist_ok=True)
    other.a3 = [*other.a1(), *other.evaluation, *EPOCHS]
    return other


def test_help_is_immediate():
    started = time.perf_counter()
    command = [sys.executable, tiny.ROOT / "src/clip/a3_unlearn_compare.py", "--help"]
    assert "--forget-epochs" in subprocess.run(command, capture_output=True, text=True).stdout
    assert time.perf_counter() - started < 3  # a second, on a machine that does nothing else


def test_flags_become_settings():
    settings = tiny.stage("a3_unlearn_compare").parse_args(["--celeb-name", "A", "--unlearn-method", "ga_o", "raw"])
    assert settings.unlearn_method == ("ga_o", "raw") and settings.model.batch_size == 32
    assert (settings.lr, settings.run.seed) == ((1e-5, 1e-6, 1e-7), 0)


def test_by_default_all_baselines_run_but_contrastive_forms():
    assert comparison.default_methods() == list(METHODS)


@pytest.mark.parametrize("flag", ["--lr", "--epochs", "--forget-epochs"])
def test_numbers_below_zero_are_refused(monkeypatch, capfd, flag):
    line = tiny.failure(monkeypatch, capfd, "a3_unlearn_compare", "--celeb-name", "A", flag, "-1")
    assert f"argument {flag}: -1: it must be" in line


def test_every_method_has_a_record_of_every_name(compared):
    found = records_of(compared)
    assert set(found) == {(m, n.replace("_", " ")) for m in METHODS for n in NAMES}
    for (method, _), record in found.items():
        assert record["n_candidates"] == (10 if method == "ssd" else 2) * len(record["grid"])
        assert record["setting"] in record["grid"] and set(record["splits"]["test"]) == {"original", method}
        assert record["params_touched"] > 0 or method == "ssd"


def test_the_chosen_setting_lies_inside_its_grid_or_the_grid_has_grown(compared):
    for (method, _), record in records_of(compared).items():
        if method != "ssd":
            assert record["inside_grid"] or len(record["grid"]) > 2


def test_candidates_keep_no_weights(compared):
    assert all("delta" in p.name for p in (compared.results / "clip").rglob("*.safetensors"))


def test_all_candidates_are_tabled(compared):
    clip = compared.results / "clip"
    rows = pd.read_csv(clip / "open_clip-ga-Alien-steps.csv", keep_default_na=False)
    assert rows["layer"][0] == "" and set(rows["layer"][1:]) >= {"lr 0.0001", "lr 0.001"}
    assert list(rows["step"][1:3]) == [1, 2]


def test_the_log_of_a_job_has_the_published_lines(compared):
    (log,) = (compared.results / "clip" / "compare").glob("*_Alien_ga_lr0.001.txt")
    lines = log.read_text().splitlines()
    assert lines[1].startswith("iter: 0,") and lines[-1].startswith("iter: 2, ratio: 0.001, fgt_acc@1: ")
    assert all(", time: " in line for line in lines[1:])


def test_the_unedited_model_is_scored_as_raw(compared, capfd):
    tiny.run("a3_unlearn_compare", *compared.a3, "--unlearn-method", "raw")
    assert capfd.readouterr().out.count("raw: iter: 0, ratio: 0, fgt_acc@1:") == 2


def test_valid_records_are_kept(compared, monkeypatch):
    before = records_of(compared)
    monkeypatch.setattr(comparison.Comparison, "run_job", None)
    tiny.run("a3_unlearn_compare", *compared.a3, *GRID, "--unlearn-method", *METHODS)
    assert records_of(compared) == before


def test_a_stopped_run_continues_after_its_last_job(compared, monkeypatch, tmp_path, one_thread):
    run, wanted = again(compared, tmp_path, "stopped"), records_of(compared)
    for path in [*(run.results / "clip").glob("*-g*-*.json"), *(run.results / "clip" / "compare").glob("*")]:
        path.unlink()
    jobs, work = [], comparison.Comparison.run_job

    def stopping(self, baseline, setting):
        work(self, baseline, setting)
        jobs.append((baseline.method.name, setting))
        if len(jobs) == 3:
            raise KeyboardInterrupt

    flags = [*run.a3, *GRID, "--unlearn-method", "ga", "gaft"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(comparison.Comparison, "run_job", stopping)
        tiny.run("a3_unlearn_compare", *flags)
    trained, passes = [], ga.passes
    monkeypatch.setattr(ga, "passes", lambda material: trained.append(material.variant) or passes(material))
    tiny.run("a3_unlearn_compare", *flags)
    found = records_of(run)
    assert {k: without_times(r) for k, r in found.items()} == {k: without_times(r) for k, r in wanted.items()}
    everything = sum(len(r["grid"]) for (m, _), r in wanted.items() if m in ("ga", "gaft"))
    assert len(trained) == everything - len(jobs)


@pytest.fixture(scope="module")
def repeated(compared, one_thread):
    """A run elsewhere that takes its settings from the table of the comparison."""
    tiny.run("a4_report", "--result-dir", compared.results)
    run = compared.another("repeated")
    run.a3 = [*run.a1(), *run.evaluation, *EPOCHS]
    run.stored = ["--settings-from", str(compared.results / "clip" / "report" / "table.csv")]
    tiny.run("a3_unlearn_compare", *run.a3, *run.stored, "--unlearn-method", "ft", "ga", "ssd")
    return run


def test_settings_of_an_earlier_table_give_the_same_edits(compared, repeated):
    found, wanted = records_of(repeated), records_of(compared)
    assert {m for m, _ in found} == {"ft", "ga", "ssd"} and len(found) == 6
    for key, record in found.items():
        for field in ("layer", "step", "params_touched"):
            assert record[field] == wanted[key][field]
        assert without_times(record["splits"]) == without_times(wanted[key]["splits"])


def test_settings_of_an_earlier_table_are_not_searched(compared, repeated):
    wanted = records_of(compared)
    for key, record in records_of(repeated).items():
        assert record["grid"] == [wanted[key]["setting"]] and record["inside_grid"] is None
        assert record["n_candidates"] == 1


def test_a_table_that_lacks_a_method_is_refused(repeated, monkeypatch, capfd):
    flags = [*repeated.a3, *repeated.stored, "--unlearn-method", "salun_o"]
    assert "has no row of salun_o" in tiny.failure(monkeypatch, capfd, "a3_unlearn_compare", *flags)


def test_missing_gradients_are_an_error_before_any_work(done, monkeypatch, capfd):
    flags = [*done.a1(), *done.evaluation, "--unlearn-method", "ssd"]
    line = tiny.failure(monkeypatch, capfd, "a3_unlearn_compare", *flags)
    assert "no gradients at" in line and methods.get("ssd").gradients[0].gradient in line
