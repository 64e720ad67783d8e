"""a6_study.py: a run is a row, finished ones are kept, failed ones are tried again, processes change nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import pandas as pd
import pytest
import tiny
from tiny_run import NAMES

from slug.core import slug
from slug.evaluation.clip_evaluator import ClipEvaluator
from slug.experiments import study_variants

CHANGING = ["seconds", "gradient_s", "search_s", "run_s", "process", "settings"]  # from run to run
ONE = ("--celeb-name", NAMES[0])
pytestmark = pytest.mark.usefixtures("quick")


def study(run, *more):
    """The table after a6 has run in this process."""
    tiny.run("a6_study", *run.a6(), *more)
    return table(run)


def table(run):
    return pd.read_parquet(run.results / "runs.parquet")


def parts(run):
    """{file name: content} of the finished runs."""
    return {p.name: p.read_bytes() for p in (run.results / "parts").iterdir()}


def assert_same(one, other):
    """The same rows, but for times, processes, and the settings, which say the number of jobs and where results go."""
    one, other = (f.drop(columns=CHANGING).reset_index(drop=True) for f in (one, other))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def finished(done):
    """A study of the standard and of the vision front, run by one process. Only for reading."""
    run = done.another("finished-study")
    subprocess.run(command(run, "--variant", "standard", "vision"), env=environment(), check=True, timeout=600)
    return run


def command(run, *more):
    return [str(a) for a in (sys.executable, tiny.ROOT / "src/clip/a6_study.py", *run.a6(), *more)]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tiny.ROOT / "src")}


def copy(run, name):
    """A copy of a study that a test may change."""
    other = run.another(name)
    shutil.copytree(run.results / "parts", other.results / "parts")
    return other


def test_a_run_is_a_row(finished):
    frame = table(finished)
    assert list(frame.columns) == study_variants.SCHEMA.names and len(frame) == 2 * len(NAMES)
    assert set(frame["kind"]) == {"identity", "object"} and frame["error"].isna().all()
    assert frame["forget_acc1"].between(0, 1).all() and (frame["n_forget"] > 0).all()
    assert (frame["forget_upper"] >= frame["forget_acc1"]).all() and (frame["n_candidates"] > 1).all()
    standard = frame[frame["variant"] == "standard"]
    assert (standard["original_forget_acc1"] > standard["forget_acc1"]).all()
    assert not tiny.left_over(finished.results)


def test_finished_runs_are_kept(finished, capsys):
    run = copy(finished, "kept")
    frame = study(run, "--variant", "standard", "vision", "evaluations_5", *ONE)
    assert "2 runs are finished and kept" in capsys.readouterr().out
    assert set(frame["variant"]) == {"standard", "vision", "evaluations_5"} and len(frame) == 3
    assert parts(finished).items() < parts(run).items()


def test_another_seed_means_other_splits_and_keeps_nothing(finished):
    frame = study(copy(finished, "seed"), "--variant", "vision", "--seed", "1", *ONE)
    assert list(frame["variant"]) == ["vision"] and set(frame["seed"]) == {1}


def test_runs_of_a_variant_that_has_changed_are_not_in_the_table(finished, monkeypatch):
    changed = replace(study_variants.VARIANTS["vision"], evaluations=2)
    monkeypatch.setitem(study_variants.VARIANTS, "vision", changed)
    frame = study(copy(finished, "changed"), "--variant", "standard")
    assert list(frame["variant"]) == ["standard", "standard"]


def test_a_damaged_part_is_done_again(finished):
    run = copy(finished, "damaged")
    part = next((run.results / "parts").glob(f"*{NAMES[0]}-vision*"))
    part.write_bytes(part.read_bytes()[:100])
    assert_same(study(run, "--variant", "vision"), table(finished))


def test_a_failed_run_is_a_row_and_is_tried_again(finished, tmp_path, capsys):
    """The source images are not known without the shards."""
    run, empty = copy(finished, "failing"), tmp_path / "shards"
    empty.mkdir()
    variants = ("--variant", "standard", "drawings_1")
    frame = study(run, *variants, "--laion-dir", empty).set_index("variant")
    assert frame.loc["standard", "error"].isna().all()
    assert all("is in no shard" in e for e in frame.loc["drawings_1", "error"])
    assert frame.loc["drawings_1", "forget_acc1"].isna().all()
    assert "2 failed" in capsys.readouterr().out
    frame = study(run, *variants)
    assert frame["error"].isna().all() and set(frame["n_pair_drawings"].dropna()) == {1}
    assert "2 runs are finished and kept" in capsys.readouterr().out


def test_an_error_of_a_library_is_told_by_its_kind(finished, monkeypatch):
    def broken(*args, **how):
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(slug, "over_layers", broken)
    frame = study(copy(finished, "broken"), "--variant", "evaluations_5", *ONE).set_index("variant")
    assert frame.loc["evaluations_5", "error"] == "MemoryError: no room for it"
    assert set(frame.index) == {"standard", "vision", "evaluations_5"}  # of the name that was given


def test_two_jobs_give_the_rows_of_one(done, finished):
    two = study(done.another("two"), "--variant", "standard", "vision", "--jobs", "2")
    assert len(set(table(finished)["process"])) == 1 and len(set(two["process"]) - {os.getpid()}) == 2
    assert_same(table(finished), two)


def test_variants_of_one_name_share_the_steps_that_they_score(done, monkeypatch):
    """The rows are those of runs each by itself; fewer steps are scored."""
    variants, scored = ("standard", "importance", "vision", "evaluations_5", "deepest", "drawings_1"), []
    real = ClipEvaluator.score
    monkeypatch.setattr(ClipEvaluator, "score", lambda *a, **k: scored.append(a[1]) or real(*a, **k))
    shared = study(done.another("shared"), "--variant", *variants, *ONE)
    together, run = len(scored), done.another("alone")
    for variant in variants:
        alone = study(run, "--variant", variant, *ONE)
    assert_same(shared, alone)
    # Where nothing forgets, candidates that forget equally little are scored once more, in full.
    assert together < 0.8 * (len(scored) - together) and len(scored) - together >= alone["n_candidates"].sum()


@pytest.mark.slow  # Ray gives up where its own processes have to wait for a busy machine
def test_two_workers_of_ray_give_the_rows_of_one_process(done, finished, request):
    pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="ray")  # a socket's path must be short
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    run = done.another("ray")
    started = command(run, "--variant", "standard", "vision", "--engine", "ray", "--jobs", "2")
    env = environment() | {"RAY_TMPDIR": folder, "RAY_raylet_start_wait_time_s": "300"}  # of a busy machine
    env.pop("RAY_ADDRESS", None)  # a cluster of the user's own
    found = subprocess.run(started, env=env, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-3000:]
    assert len(set(table(run)["process"])) == 2
    assert_same(table(finished), table(run))


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--jobs", "0"], "--jobs: 0: it must be"), (["--celeb-name", "Nobody"], "forget set not found")],
    ids=str,
)
def test_wrong_use_ends_with_one_line(done, monkeypatch, capfd, more, said):
    assert said in tiny.failure(monkeypatch, capfd, "a6_study", *done.a6(), *more)
