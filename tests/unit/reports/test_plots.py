"""Every plot is drawn from the smallest input that it takes."""

import types

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from slug.reports import plots, samples


def layer(name, importance, alignment):
    return types.SimpleNamespace(name=name, importance=importance, alignment=alignment)


LAYERS = [layer("visual.proj", 0.1, 0.01), layer("visual.transformer.resblocks.1.mlp.c_fc.weight", 0.5, -0.2)]
STEPS = pd.DataFrame(
    {
        "layer": ["", "visual.proj", "visual.proj"],
        "step": [0.0, 1.0, 2.0],
        "forget_acc1": [0.9, 0.5, 0.0],
        "identities_acc1": [0.8, np.nan, 0.7],
        "objects_acc1": [0.8, 0.8, 0.7],
        "identities_trace": [0.7, 0.6, 0.6],
    }
)
TASKS, COUNTS = (
    {t: f"other {t}" for t in ("identities", "objects")},
    {"forget": 9, "identities": 9, "objects": 9, "trace": 5},
)
PICTURES = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
IMAGES, SAID, RIGHT = (
    PICTURES.permute(0, 2, 3, 1).numpy(),
    [("a", "b"), ("a", ""), ("c", "c"), ("d", "d")],
    [(True, False)] * 4,
)
CURVE = pd.DataFrame({"name": "a", "factor": [0.5, 1.0], "forget_acc": [0.5, 0.0], "identities_change": [0.0, -0.1]})
COSINES = pd.DataFrame({"name": "a", "side": "forget", "samples": [8, 8, 16, 16], "pairs": [8, 8, 16, 16]})
COSINES = COSINES.assign(layer=["all", "visual.proj"] * 2, cosine=[0.9, 0.8, 0.99, 0.98])
FRONTS = pd.DataFrame({"name": "a", "samples": [8, 0], "encoder": "vision", "layer": ["x", "y"], "importance": [0.1, 0.2]})
FRONTS = FRONTS.assign(alignment=[0.1, -0.2], on_front=True)
DRAW = {
    "pareto": lambda p, stem: p.pareto(LAYERS, LAYERS, "visual.proj", "t", stem),
    "steps": lambda p, stem: p.steps(STEPS[1:], STEPS.iloc[0], dict(STEPS.iloc[2]), TASKS, COUNTS, "t", stem),
    "reached": lambda p, stem: p.reached(STEPS[1:], STEPS.iloc[0], dict(STEPS.iloc[2]), TASKS, COUNTS, "t", stem),
    "tradeoff": lambda p, stem: p.tradeoff(
        {"original": np.array([[0.9, 0.8]]), "slug": np.array([[0.0, 0.7], [0.5, 0.8]])},
        {"slug": (0.0, 0.7)},
        "t",
        stem,
        bars={"slug": (0.69, 0.72)},
    ),
    "costs": lambda p, stem: p.costs({"slug": (9.0, 1.0, 10.0, 5.0), "ga": (90.0, 20.0, 10.0, 5.0)}, "t", stem),
    "similarity": lambda p, stem: p.similarity(np.eye(2), np.zeros((2, 2)), ["a", "b"], "t", stem),
    "pictures": lambda p, stem: p.pictures(IMAGES, [True, True, False, False], SAID, "t", stem, RIGHT),
    "variants": lambda p, stem: p.variants(
        {"x": {"v": pd.Series([1.0, 2.0])}}, lambda s: (1.5, 1.0, 2.0), {"x": 1.0}, {"which?": {"v": "in words"}}, "t", stem
    ),
    "relearning": lambda p, stem: p.relearning(
        {"2": {"slug": (np.arange(2), np.zeros(2), np.ones(2))}}, (0.9, 0.8), "t", stem
    ),
    "sheet": lambda p, stem: p.sheet([PICTURES, PICTURES], list("abcd"), [[True] * 4, [False] * 4], 2, "t", stem),
    "cells": lambda p, stem: p.cells(PICTURES, [True] * 4, [False] * 4, (["a", "b"], ["c", "d"]), "t", stem),
    "compared": lambda p, stem: p.compared([np.zeros((8, 8))], [[("a", 0.9), ("b", 0.1)]], [[("b", 1.0)]], "t", stem),
    "assistant": lambda p, stem: p.assistant(CURVE, "t", stem),
    "canvas": lambda p, stem: p.canvas({"x": ([0.8, 1.0], {"slug": [1.0, 0.5]}, {"bar": (0.9, 0.8)})}, 0.85, "t", stem),
    "sample_cosines": lambda p, stem: p.sample_cosines(COSINES, [0.95, 0.99], stem),
    "sample_fronts": lambda p, stem: p.sample_fronts(FRONTS, samples.overlap(FRONTS), stem),
    "ranks": lambda p, stem: p.ranks({"SLUG": 1.5, "gradient ascent": 2.5}, [(1.5, 2.5)], 1.2, 8, stem),
    "bars": lambda p, stem: p.bars({"a": 1.0, "b": 200.0}, "seconds", "t", stem),
    "growth": lambda p, stem: p.growth({"a": [(1, 2, 3), (2, 3, 4)], "b": [(1, 2, 3), (2, 3, 4)]}, "t", stem),
}


def test_every_plot_is_drawn_here():
    assert set(DRAW) == {n for n, f in vars(plots).items() if callable(f)} - {"save"}


@pytest.mark.parametrize("name", DRAW)
def test_a_plot_is_written_as_png_and_pdf(name, tmp_path):
    DRAW[name](plots, tmp_path / "x")
    assert {p.name for p in tmp_path.iterdir()} == {"x.png", "x.pdf"} and all(p.stat().st_size for p in tmp_path.iterdir())
    with Image.open(tmp_path / "x.png") as image:  # all its colours, and no wider than a column of 5.5 inches
        assert image.mode == "RGBA" and image.width / image.info["dpi"][0] < 5.7


def test_a_plot_is_the_same_every_time(tmp_path):
    for name in "ab":
        DRAW["bars"](plots, tmp_path / name)
    for end in ("png", "pdf"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()
