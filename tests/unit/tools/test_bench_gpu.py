"""The benchmark for a GPU, tried on a CPU with a tiny model."""

import importlib
import subprocess
import types

import pandas as pd
import pytest
import tiny
import torch

from slug.errors import SlugError

FLAGS = ["--size", "tiny", "--device", "cpu", "--workers", "0"]


@pytest.fixture
def bench(monkeypatch):
    """With a matrix product that takes milliseconds, and few pairs."""
    monkeypatch.syspath_prepend(str(tiny.ROOT / "scripts" / "tools"))
    module = importlib.import_module("bench_gpu")
    rate = module.search.matmul_rate
    monkeypatch.setattr(module.search, "matmul_rate", lambda device: rate(device, size=256, seconds=0.05))
    monkeypatch.setattr(module.search, "PAIRS", {"mini": 32, "large": 0})
    return module


def test_every_precision_is_compared_with_float32(bench, taught_clip, tmp_path, capsys):
    model = f"local-dir:{taught_clip / 'open_clip'}"
    bench.main([*FLAGS, "--models", model, "--out", str(tmp_path)])
    rows = pd.read_csv(tmp_path / "gpu.csv")
    searches = rows[rows["part"] == "search"]
    assert list(searches["precision"]) == ["fp32", "tf32", "bf16"] and (rows["seconds"] > 0).all()
    exact = searches[searches["precision"] != "bf16"]  # on a CPU, TF32 is float32
    assert (exact["changed"] == 0).all() and (exact["score_diff"] < 1e-5).all()
    assert searches["score_diff"].iloc[2] > 0  # bfloat16 was really used, and seen
    gradients = rows[rows["part"] != "search"]
    assert set(gradients["precision"]) == {"fp32", "tf32"} and len(gradients) == 4
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_the_time_does_not_allow_is_left_out_and_said(bench, taught_clip, tmp_path, capsys):
    model = f"local-dir:{taught_clip / 'open_clip'}"
    with pytest.raises(SlugError, match="nothing was measured within --minutes 0"):
        bench.main([*FLAGS, "--models", model, "--out", str(tmp_path), "--minutes", "0"])
    assert capsys.readouterr().out.count("left out, as the time is over") == 3 and not (tmp_path / "gpu.csv").exists()


def test_gradients_that_the_time_does_not_allow_are_said_too(bench, taught_clip, tmp_path, monkeypatch, capsys):
    clock = iter([0, 0])  # the start and the first search; after it the time is over
    monkeypatch.setattr(bench, "time", types.SimpleNamespace(monotonic=lambda: next(clock, 1e9)))
    bench.main([*FLAGS, "--models", f"local-dir:{taught_clip / 'open_clip'}", "--out", str(tmp_path)])
    assert list(pd.read_csv(tmp_path / "gpu.csv")["part"]) == ["search"]
    out = capsys.readouterr().out
    assert out.count("left out, as the time is over") == 3 and ", fp32, gradients\n" in out


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf", "soon"])
def test_minutes_are_a_time(bench, minutes, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--minutes", minutes])
    assert ended.value.code == 2 and "--minutes" in capsys.readouterr().err


def test_float32_comes_first(bench, tmp_path):
    with pytest.raises(SlugError, match="give fp32 first"):
        bench.main([*FLAGS, "--models", "none", "--out", str(tmp_path), "--precisions", "bf16", "fp32"])


def test_the_script_asks_for_a_gpu_unless_told_otherwise():
    script = str(tiny.ROOT / "scripts" / "tools" / "bench_gpu.sh")
    for environment, device in (({}, "cuda"), ({"DEVICE": "cpu"}, "cpu")):
        done = subprocess.run(
            ["bash", script, "--dry-run"], env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True
        )
        assert f"bench_gpu.py --device {device}" in done.stdout, done.stderr
