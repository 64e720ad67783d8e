"""The tiny world as both families of models see it."""

import clip_world
import pytest
import tiny

from slug.evaluation import reference


@pytest.fixture(scope="session", params=tiny.FAMILIES)
def world(request, taught_clip, tiny_world):
    return clip_world.World(taught_clip, tiny_world, request.param)


@pytest.fixture(scope="session")
def open_clip_world(taught_clip, tiny_world):
    return clip_world.World(taught_clip, tiny_world, "open_clip")


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """The plain way decodes in worker processes, which take longer to start than a few pictures take to decode."""
    monkeypatch.setattr(reference, "WORKERS", 0)
