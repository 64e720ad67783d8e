"""Reports need no model library: they import fast, and run where torch is not installed."""

import os
import pkgutil
import subprocess
import sys

from slug import files, reports

MODULES = [m.name for m in pkgutil.walk_packages(reports.__path__, "slug.reports.")]
LIGHT = [*MODULES, "slug.schema", "slug.artifacts.records", "slug.artifacts.canvas_records"]


def test_reports_are_imported_without_torch():
    code = f"import sys, {', '.join(LIGHT)}; print(*{{'torch', 'transformers', 'timm'}} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(files.ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("\n", "")
