"""The script that downloads LAION-400M."""

import tiny
from wrappers import shell


def test_every_setting_of_the_script_reaches_the_stage():
    values = {
        "METADATA_DIR": "/m",
        "LAION_DIR": "/l",
        "DISTRIBUTOR": "pyspark",
        "PROCESSES": 3,
        "THREADS": 5,
        "IMAGE_SIZE": 64,
    }
    values |= {"RETRIES": 7, "TIMEOUT": 9}
    done = shell(tiny.ROOT / "scripts/download_laion400m.sh", "--dry-run", "--more", **values)
    for variable, value in values.items():
        assert f"--{variable.lower().replace('_', '-')} {value} " in done.stdout
    assert "# missing: /m" in done.stdout and done.stdout.rstrip().endswith("--more")
