"""The finished runs that the tests of the stages share."""

import os
import subprocess
import sys

import pytest
import tiny
import tiny_canvas as canvas
import tiny_run
import torch


@pytest.fixture(scope="session")
def done(taught_clip, tiny_world, tmp_path_factory):
    """A finished run of a0, a1 (two processes), a2 and a4, started in a folder that has nothing to do with it. Only for
    reading: what a test writes goes into `done.another`."""
    folder = tmp_path_factory.mktemp("run")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run = tiny_run.Run(tiny_world, taught_clip / "open_clip", folder)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def start(stage, arguments, launcher=()):
        command = [sys.executable, *launcher, str(tiny.ROOT / "src" / "clip" / f"{stage}.py"), *arguments]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        found = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=300)
        assert found.returncode == 0, found.stderr[-3000:]
        return found.stdout

    run.said = {
        "a0": start("a0_create_tar", run.a0()),
        "a1": start("a1_compute_grad", run.a1(), torchrun),
        "a2": start("a2_unlearn_slug", run.a2()),
        "a4": start("a4_report", ["--result-dir", tiny_run.rel(run.results)]),
    }
    assert list(elsewhere.iterdir()) == []
    return run


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """For stages that run in this process: another working directory, no plots, and one thread, as in `done`: the last bits
    of a float32 matrix product depend on the number of threads."""
    from slug.reports import plots

    monkeypatch.chdir(tmp_path)
    for name in [n for n, f in vars(plots).items() if callable(f) and n[0] != "_"]:
        monkeypatch.setattr(plots, name, lambda *a, **k: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def canvas_run(tiny_canvas, tmp_path_factory):
    """A finished run of b1, b2 and b3 (tiny_canvas.Run): SLUG on one style and one object, UCE on the style. Only for
    reading: what a test writes goes into `canvas_run.another`."""
    run = canvas.Run(tiny_canvas, tmp_path_factory.mktemp("canvas-run"))
    run.prepare()
    run.b1("Noto", "palm_tree")
    run.run(*run.b2("--style", "Noto", "--object", "palm_tree"))
    run.run(*run.b2("--style", "Noto", "--method", "uce"))
    run.run(*run.b3())
    return run
