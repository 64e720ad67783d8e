"""A small world, shared by the tests of the explorer."""

import explorer_world
import pytest


@pytest.fixture(scope="session")
def explored(tiny_clip, tmp_path_factory):
    """explorer_world.write of tiny_clip. Only for reading."""
    return explorer_world.write(tmp_path_factory.mktemp("explorer"), tiny_clip)
