"""What families of CLIP take: memory of the gradient pass and of the search, bounded by --cache-gb."""

import importlib

import pytest
import tiny

from slug.evaluation import clip_tasks


@pytest.fixture
def families(monkeypatch, clip):
    """Of a tiny model, whatever is asked for."""
    monkeypatch.syspath_prepend(str(tiny.ROOT / "scripts" / "tools"))
    module = importlib.import_module("measure_families")
    small = module.Size(names=7, classes=3, pictures=(6, 5), layers=2, steps=1)
    monkeypatch.setattr(module, "SIZES", {"small": small._replace(names=4), "paper": small})
    monkeypatch.setattr(module, "load", lambda *_: clip)
    return module


@pytest.mark.parametrize(("size", "names"), [("small", 4), ("paper", 7)])
def test_the_search_is_measured_by_itself_with_the_cache_it_may_take(families, tmp_path, monkeypatch, size, names):
    asked, make = [], clip_tasks.Evaluation.__init__

    def noted(self, clip, sets, **how):
        asked.append((how["cache_gb"], len(sets[0].pictures.names)))
        make(self, clip, sets, **how)

    monkeypatch.setattr(clip_tasks.Evaluation, "__init__", noted)
    settings = families.parse_args(["--device", "cpu", "--workers", "0", "--size", size, "--cache-gb", "0.25"])
    row = families.measure(settings, "ViT-B-32", tmp_path)
    assert asked == [(0.25, names)]
    assert 0 < row["gradient_mem_mb"] <= row["peak_mem_mb"] == max(row["gradient_mem_mb"], row["search_mem_mb"])
    assert row["gradient_s"] > 0 and row["step_s"] > 0 and row["batch_size"] == 16
