"""The script that downloads LAION-400M."""

import pytest
from wrappers import ROOT, shell

VALUES = {"METADATA_DIR": "/m", "LAION_DIR": "/l", "DISTRIBUTOR": "pyspark", "PROCESSES": 3, "THREADS": 5}
VALUES |= {"IMAGE_SIZE": 64, "RETRIES": 7, "TIMEOUT": 9}


@pytest.fixture(scope="module")
def said():
    """The output of a dry run with a value for each setting."""
    return shell(ROOT / "scripts/download_laion400m.sh", "--dry-run", "--more", **VALUES).stdout


@pytest.mark.parametrize(("variable", "value"), VALUES.items())
def test_every_setting_reaches_the_stage(said, variable, value):
    assert f"--{variable.lower().replace('_', '-')} {value} " in said


def test_further_flags_reach_the_stage(said):
    assert said.rstrip().endswith("--more")


def test_missing_metadata_is_told(said):
    assert "# missing: /m" in said
