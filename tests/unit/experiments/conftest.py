"""Forget sets and gradients of the tiny world, for experiments on a CLIP."""

import pytest
import tiny_run


@pytest.fixture(scope="session")
def prepared(taught_clip, tiny_world, tmp_path_factory):
    """A tiny_run.Run with the forget sets and gradients of both names. Only for reading."""
    return tiny_run.prepare(tiny_world, taught_clip / "open_clip", tmp_path_factory.mktemp("prepared"))
