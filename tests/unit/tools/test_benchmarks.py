"""The benchmarks: the plain and the fast way come to the same, and the files say what they must."""

import functools
import importlib.util
import json

import pandas as pd
import pytest
import tiny
import torch

from slug.data.names import Matcher
from slug.errors import SlugError
from slug.evaluation import reference
from slug.models import towers

PARTS = "early stop|prefix reuse|untouched side|shared beginnings|short texts|decode once".split("|")
COLUMNS = "case model device n_images n_names plain_s fast_s ratio max_cos_diff limit_share".split()


def script(name):
    spec = importlib.util.spec_from_file_location(name, tiny.ROOT / "scripts" / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    """With a matrix product that takes milliseconds."""
    module = script("benchmark_search")
    module.matmul_rate = functools.partial(module.matmul_rate, size=512, seconds=0.1)
    return module


@pytest.fixture
def curation_benchmark(monkeypatch):
    """Without its processes, which take longer to start than this takes."""
    module = script("benchmark_curation")
    monkeypatch.setattr(module, "alone", module.timed)
    spread = module.pool.spread
    monkeypatch.setattr(module.pool, "spread", lambda function, items, workers: spread(function, items))
    return module


CURATION = "--rows 3000 6000 --shard-rows 4000 --tar-samples 60".split()


def test_curation_finds_what_a_plain_filter_finds(curation_benchmark, tmp_path):
    curation_benchmark.main([*CURATION, "--scratch", str(tmp_path / "scratch"), "--out", str(tmp_path)])
    rows = pd.read_csv(tmp_path / "curation.csv")
    assert list(rows.columns[: len(COLUMNS)]) == COLUMNS and rows["case"].str.startswith("curation").all()
    sizes = rows[rows["case"] == "curation, 1 process"]
    assert sizes["n_images"].tolist() == [3000, 6000] and sizes["found"].min() > 0
    assert (rows["n_images"] == curation_benchmark.LAION_ROWS).sum() == 2
    assert not (tmp_path / "scratch").exists()


def test_a_curation_that_misses_a_row_is_no_result(curation_benchmark, tmp_path, monkeypatch):
    find = Matcher.screen
    monkeypatch.setattr(Matcher, "screen", lambda self: find(self).replace("musk", "mask"))
    with pytest.raises(SlugError, match="does not find what the plain one finds"):
        curation_benchmark.main([*CURATION, "--scratch", str(tmp_path / "scratch"), "--out", str(tmp_path)])
    assert not (tmp_path / "curation.csv").exists()


def test_all_ways_choose_the_same_step_and_the_table_says_so(benchmark, taught_clip, tiny_world, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "WORKERS", 0)
    monkeypatch.setattr(benchmark, "EVALUATIONS", 3)  # of each layer: fewer ways to agree, but half a minute
    laion = tiny_world / "laion/laion400m"
    evaluation = ["--val-data", tiny_world / "celeba", "--imagenet-val", tiny_world / "ImageNet/val"]
    common = ["--tar-dir", tmp_path / "tars", "--result-dir", tmp_path / "results", "--workers", "0", "--device", "cpu"]
    tiny.run("a0_create_tar", "--name", "Alien", "--laion-dir", laion, "--image-dir", tmp_path / "pictures", *common)
    common += [
        "--celeb-name",
        "Alien",
        "--train-data",
        laion / "00000.tar",
        "--model",
        f"local-dir:{taught_clip / 'open_clip'}",
    ]
    tiny.run("a1_compute_grad", *common)
    out = tmp_path / "bench"
    flags = [*common, *evaluation, "--out", out]
    benchmark.main([str(f) for f in flags])
    benchmark.main([str(f) for f in [*flags, "--no-plain"]])  # replaces its own rows
    benchmark_rows = pd.read_csv(out / "table.csv")
    assert list(benchmark_rows.columns[: len(COLUMNS)]) == COLUMNS
    assert benchmark_rows["case"].is_unique and set(benchmark_rows["case"]) == {
        "search",
        "search with 3 evaluations ahead",
        *(f"search without {p}" for p in PARTS),
    }
    assert (benchmark_rows["max_cos_diff"] < 1e-5).all() and benchmark_rows["limit_share"].between(0, 1).all()
    record = json.loads((out / "open_clip-search.json").read_text())
    assert record["matmul_flops"] > 1e8 and len(record["rows"]) == len(benchmark_rows)
    assert (out / "open_clip-search.png").stat().st_size > 5000


@pytest.mark.parametrize("case", ["fixed", "paper", "growth"])
def test_cases_of_random_pictures_at_a_small_size(benchmark, taught_clip, tmp_path, monkeypatch, case):
    monkeypatch.setattr(reference, "WORKERS", 0)
    small = benchmark.Size(names=7, classes=3, pictures=(6, 5), layers=2, steps=2)
    for name in ("FIXED", "PAPER", "GROWTH"):
        monkeypatch.setattr(benchmark, name, small)
    monkeypatch.setattr(benchmark, "NAMES", (7, 12))
    monkeypatch.setattr(benchmark, "PICTURES", (5, 8))
    monkeypatch.setattr(benchmark, "LAYERS", (1, 3))
    model = f"local-dir:{taught_clip / 'open_clip'}"
    benchmark.main(["--case", case, "--model", model, "--out", str(tmp_path), "--workers", "0"])
    rows = pd.read_csv(tmp_path / "table.csv")
    assert (tmp_path / f"open_clip-{case}.png").stat().st_size > 5000
    if case == "growth":
        assert list(rows["n_names"][:2]) == [10, 15] and list(rows["layers"]) == [2, 2, 2, 2, 1, 3]
        assert list(rows["steps"]) == [4, 4, 4, 4, 2, 6] and rows["fast_s"].gt(0).all()
    else:
        assert rows["shared_floor_s"][0] < rows["floor_s"][0] < rows["fast_s"][0]
        assert rows["steps"][0] == 4 and rows["n_images"][0] == 11 and rows["plain_s"].gt(0).all()
        assert list(rows["case"]) == [case] and rows["max_cos_diff"].lt(1e-5).all()


def test_the_gradient_pass_is_timed_by_both_losses(benchmark, taught_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "PAIRS", {"mini": 33, "large": 0})
    model = f"local-dir:{taught_clip / 'open_clip'}"
    for _ in range(2):  # a second run replaces the rows of the first
        benchmark.main(["--case", "gradient", "--model", model, "--out", str(tmp_path), "--workers", "0"])
    rows = pd.read_csv(tmp_path / "table.csv")
    assert list(rows.columns[: len(COLUMNS)]) == COLUMNS
    assert list(rows["case"]) == ["gradient of the forget loss", "gradient of the retain loss"]
    assert list(rows["n_images"]) == [33, 33] and rows["fast_s"].gt(0).all()
    assert rows["limit_share"].between(0, 1).all()


def test_a_profile_says_where_the_fast_ways_time_goes(benchmark, taught_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FIXED", benchmark.Size(names=7, classes=3, pictures=(6, 5), layers=2, steps=2))
    model = f"local-dir:{taught_clip / 'open_clip'}"
    benchmark.main(["--case", "fixed", "--profile", "--model", model, "--out", str(tmp_path), "--workers", "0"])
    (path,) = tmp_path.iterdir()
    rows = pd.read_csv(path)
    assert path.name == "open_clip-fixed-profile.csv" and rows["share"].sum() == pytest.approx(1, abs=1e-3)
    assert (
        rows["operator"].is_unique
        and list(rows["operator"])[10:] == ["all others"]
        and list(rows["seconds"][:10]) == sorted(rows["seconds"][:10], reverse=True)
    )


def test_names_of_the_benchmark_are_many_and_different(benchmark):
    names = benchmark.many_names(10177)
    assert len(set(names)) == 10177 and all(len(n.split()) == 2 for n in names)


def test_the_floor_counts_what_was_asked_for(clip):
    """A linear model of the count: twice the rows, twice the operations; a suffix costs less than the whole."""
    images = tiny.pairs(6).images
    tower = towers.Tower(clip, "vision", images, budget=towers.Budget(1.0, clip.device))
    tower.fill()
    whole = tower.floating_operations()
    # Two blocks of width 32 on 17 tokens: at least the products with their 12 * 32 * 32 weights, on all tokens of the first
    # block and one of the second.
    assert whole > 6 * 2 * 12 * 32 * 32 * 17
    tower.features(torch.arange(3), start=0)
    assert tower.floating_operations() == pytest.approx(1.5 * whole)
    tower.features(start=len(tower.stages) - 1)
    assert 1.5 * whole < tower.floating_operations() < 1.6 * whole
