#!/usr/bin/env bash
# Lint, format check, types, the checks of the source's shape, links of the documents, and tests, with set-up if nothing is installed. Tests run in one
# process for each core. Further arguments go to pytest, e.g. -k profile, or -n 0 for a single process.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

run "$PYTHON" -m ruff check .
run "$PYTHON" -m ruff format --check .
run "$PYTHON" -m mypy
run "$PYTHON" scripts/tools/check_house.py
run "$PYTHON" scripts/tools/module_tree.py --check
# The links of all documents; where MkDocs is installed (pip install -e '.[docs]'), the site as well.
site=(--check)
! "$PYTHON" -c 'import material' 2>/dev/null || site=()
run "$PYTHON" scripts/tools/build_site.py ${site[@]+"${site[@]}"}
# One thread in each process, for the tests' models are small. The tests of a file share its fixtures, hence its process.
OMP_NUM_THREADS=1 run "$PYTHON" -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
