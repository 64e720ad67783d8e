"""`kill -9` at random moments: what is run again afterwards ends with the files of a run that nobody disturbed.

Slow: bash scripts/run_tests.sh -m slow tests/slow/test_kill.py
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import tiny
import tiny_canvas as canvas
import tiny_llava as assistants
import tiny_run
import torch
from safetensors.torch import load_file
from tiny_run import CHANGING, NAMES

pytestmark = pytest.mark.slow
KILLS = 10
TIMES = CHANGING | {"decode_s", "sha256", "mia_s", "times", "run_s", "minutes"}
TIMES |= {"result_dir", "tar_dir", "train_data", "prompts"}  # folders of the run
# A training saves its state every two minutes; by this clock, every two seconds.
QUICK = (
    "import runpy, sys, time; clock = time.perf_counter; time.perf_counter = lambda: 60 * clock(); del sys.argv[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def start(script, arguments):
    """A script as a user starts it, in a process group of its own."""
    path = next((tiny.ROOT / "src").glob(f"*/{script}.py"))
    command = [sys.executable, *(["-c", QUICK] if path.parent.name == "demo" else []), str(path), *map(str, arguments)]
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
    """{relative path: what is in it} of every file that the stages leave, logs and plots apart."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "cache" not in p.parts):
        key = re.sub("-[0-9a-f]{16}/", "/", str(path.relative_to(folder)))  # a hash of a delta, whose header has seconds
        if path.suffix == ".pt":
            found[key] = torch.load(path, weights_only=True)
        elif path.suffix == ".safetensors":
            found[key] = load_file(path)
        elif path.suffix == ".json":
            found[key] = timeless(json.loads(path.read_text()))
        elif path.suffix in (".csv", ".parquet"):
            frame = (pd.read_csv if path.suffix == ".csv" else pd.read_parquet)(path)
            found[key] = frame.drop(columns=[c for c in frame if c in {*TIMES, "settings", "process"}]).to_csv()
        elif path.suffix in (".tar", ".jpg", ".jsonl") or "pictures" in path.parts:
            found[key] = path.read_bytes()
        else:
            found[key] = None
    return found


def same(a, b):
    """Whether two values of `outcome` are the same; tensors to the bit."""
    if isinstance(a, dict) and a and all(isinstance(v, torch.Tensor) for v in a.values()):
        return tiny.same_tensors(a, b)
    return repr(a) == repr(b)


def check(stages, tmp_path):
    """Every (script, arguments) of `stages(folder)` leaves the same files where it was killed as where it was not."""
    rng, folders = random.Random(0), [tmp_path / "undisturbed", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    for (script, whole), (_, killed) in zip(*map(stages, folders), strict=True):
        kill_at_random(script, killed, finish(script, whole), folders[1], rng)
        finish(script, killed)
        found, again = map(outcome, folders)
        assert found.keys() == again.keys(), script
        for path, value in found.items():
            assert same(value, again[path]), (script, path)


def test_stages_go_on_after_a_kill(taught_clip, tiny_world, tmp_path):
    def stages(folder):
        run = tiny_run.Run(tiny_world, taught_clip / "open_clip", folder)
        methods = ["--unlearn-method", "ft", "gaft", "salun", "--lr", "1e-3", "3e-3", "--epochs", "2"]
        given = {"a0_create_tar": run.a0(), "a1_compute_grad": run.a1(), "a2_unlearn_slug": run.a2()}
        together = ["--celeb-name", *NAMES, *run.model, *run.evaluation, *run.out, "--joint"]
        compared = ("a3_unlearn_compare", [*run.a1(), *run.evaluation, *methods])
        return [*given.items(), compared, ("a5_unlearn_multi", together)]

    check(stages, tmp_path)


def test_the_pipelines_stages_go_on_after_a_kill(tiny_canvas, tmp_path):
    def stages(folder):
        run, found = canvas.Run(tiny_canvas, folder), []
        run.prepare()
        run.run = lambda script, *more: found.append((script, [*more, *run.common]))
        made = ["--tar-dir", run.tars, "--image-dir", folder / "pictures", "--count", 60, "--object", "iron_man", "a_dog"]
        run.run("b0_generate_forget_set", *run.pipeline, *made)
        run.b1("Noto", "palm_tree")
        slug = ["--style", "Noto", "--object", "palm_tree", "--fronts", 1, "--rounds", 2, "--rounds-wanted", 1]
        run.run(*run.b2(*slug))
        for method in ("uce", "esd"):
            run.run(*run.b2("--style", "Noto", "--method", method))
        run.run(*run.b3())
        run.run("b4_optimised_tokens", *run.pipeline, *run.judged, "--style", "Noto", "--training-steps", 20)
        run.run("b5_unlearn_multi", *run.pipeline, *run.judged, "--style", "Noto", "--object", "palm_tree")
        return found

    check(stages, tmp_path)


def test_the_assistants_stages_go_on_after_a_kill(tiny_llava, tmp_path):
    def stages(folder):
        for name in ("Frog", "Owl", "train"):
            tiny.write_pairs(folder / f"{name}.tar", [f"{name} {thing}" for thing in "a dog and a cat in a house".split()])
        flags = assistants.model_flags(tiny_llava, folder)
        return [
            ("c1_unlearn_vlm", [*assistants.forget_flags(folder), *flags, "--celeb-name", "Frog", "Owl"]),
            ("c2_eval_vlm", flags),
        ]

    check(stages, tmp_path)


def test_the_study_goes_on_after_a_kill(taught_clip, tiny_world, tmp_path):
    def stages(folder):
        run = tiny_run.prepare(tiny_world, taught_clip / "open_clip", folder)
        return [("a6_study", [*run.a6(), "--variant", "standard", "vision", "evaluations_5", "drawings_1"])]

    check(stages, tmp_path)


def test_tests_of_durability_go_on_after_a_kill(taught_clip, tiny_world, tmp_path):
    run = tiny_run.prepare(tiny_world, taught_clip / "open_clip", tmp_path)
    tiny.run("a2_unlearn_slug", *run.a2())
    tiny.run("a3_unlearn_compare", *run.a3())

    def stages(folder):
        shutil.copytree(run.results, folder / "results", symlinks=True)
        return [("a7_lasting", [*run.a7(), "--result-dir", folder / "results"])]

    check(stages, tmp_path)


@pytest.mark.parametrize(
    ("script", "steps", "more"),
    [
        ("train_clip", 8, []),
        ("train_sd", json.dumps({"classifiers": 4, "vae": [2, 2], "unet": 10}), ["--renderings", 2]),
        ("train_vlm", 20, []),
    ],
    ids=["clip", "sd", "vlm"],
)
def test_a_training_goes_on_after_a_kill(tmp_path, script, steps, more):
    def stages(folder):
        state = folder / "cache" / ("state.pt" if script == "train_clip" else "")  # it depends on the times of saving
        return [(script, ["--steps", steps, *more, "--out", folder / "out", "--checkpoint", state])]

    check(stages, tmp_path)
