"""`kill -9` at random moments: what is run again afterwards ends with the files of a run that nobody disturbed.

Slow: bash scripts/run_tests.sh -m slow tests/test_kill.py
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_stages import CHANGING, Run

pytestmark = pytest.mark.slow
KILLS = 10
TIMES = CHANGING | {"decode_s", "sha256", "mia_s", "times", "result_dir", "tar_dir", "checkpoint"}


def start(script, arguments):
    """A script as a user starts it, in a process group of its own."""
    command = [sys.executable, str(tiny.ROOT / script), *map(str, arguments)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # the last bits of float32 products depend on the number of threads
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def finish(script, arguments):
    """Run to the end; returns the seconds it took."""
    started, process = time.perf_counter(), start(script, arguments)
    said = process.communicate(timeout=900)[0].decode()
    assert process.returncode == 0, said[-3000:]
    return time.perf_counter() - started


def kill_at_random(script, arguments, seconds, folder, rng):
    """KILLS times: start, wait for a random part of `seconds`, kill -9. A run that is through before goes on from the start,
    with `folder` as it was."""
    before = folder.with_name(f"{folder.name}-before")
    shutil.copytree(folder, before)
    kills = 0
    while kills < KILLS:
        process = start(script, arguments)
        try:
            process.communicate(timeout=rng.uniform(0.1, 1) * seconds)
            shutil.rmtree(folder)
            shutil.copytree(before, folder)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
    shutil.rmtree(before)


def timeless(value):
    """A record without what may differ between two runs: times, memory and the folders of the run."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def outcome(folder):
    """{relative path: what is in it} of every file that the stages leave, logs and pictures apart."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "cache" not in p.parts):
        key = str(path.relative_to(folder))
        if path.suffix == ".pt":
            found[key] = torch.load(path, weights_only=True)
        elif path.suffix == ".safetensors":
            found[key] = load_file(path)
        elif path.suffix == ".json":
            found[key] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            frame = pd.read_csv(path)
            found[key] = frame.drop(columns=[c for c in frame if c in TIMES]).to_csv()
        elif path.suffix in (".tar", ".jpg"):
            found[key] = path.read_bytes()
        else:
            found[key] = None
    return found


def same(a, b):
    """Whether two values of `outcome` are the same; tensors to the bit."""
    if isinstance(a, dict) and a and all(isinstance(v, torch.Tensor) for v in a.values()):
        return tiny.same_tensors(a, b)
    return repr(a) == repr(b)


def test_stages_go_on_after_a_kill(taught_clip, tiny_world, tmp_path):
    rng, runs = random.Random(0), []
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        runs.append(Run(tiny_world, taught_clip / "open_clip", tmp_path / name))

    def arguments(run, stage):
        if stage == "a0_create_tar":
            return run.a0()
        if stage == "a1_compute_grad":
            return run.a1()
        if stage == "a2_unlearn_slug":
            return run.a2()
        methods = ["--unlearn-method", "ft", "gaft", "salun", "--lr", "1e-3", "3e-3", "--epochs", "2"]
        return [*run.a1(), *run.evaluation, *methods]

    for stage in ("a0_create_tar", "a1_compute_grad", "a2_unlearn_slug", "a3_unlearn_compare"):
        script = f"src/clip/{stage}.py"
        seconds = finish(script, arguments(runs[0], stage))
        kill_at_random(script, arguments(runs[1], stage), seconds, runs[1].folder, rng)
        finish(script, arguments(runs[1], stage))
        whole, killed = (outcome(r.folder) for r in runs)
        assert whole.keys() == killed.keys(), stage
        for path, value in whole.items():
            assert same(value, killed[path]), (stage, path)


def test_the_training_goes_on_after_a_kill(tmp_path):
    rng, script, outs = random.Random(1), "src/demo/train_clip.py", []
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        outs.append(["--steps", 60, "--save-seconds", 5, "--out", folder, "--checkpoint", folder / "state.pt"])
        folder.mkdir()
    seconds = finish(script, outs[0])
    kill_at_random(script, outs[1], seconds, tmp_path / "killed", rng)
    finish(script, outs[1])
    weights = [load_file(tmp_path / n / "open_clip_model.safetensors") for n in ("undisturbed", "killed")]
    assert tiny.same_tensors(*weights)
