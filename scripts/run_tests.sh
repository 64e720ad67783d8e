#!/usr/bin/env bash
# Lint, format check and tests, a process a core, with set-up where nothing is installed. Further arguments go to pytest, e.g.
# -k house, or -n 0 for one process.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

run "$PYTHON" -m ruff check .
run "$PYTHON" -m ruff format --check .
# One thread each: the tests' models are too small for more. A file's tests share what it prepared.
OMP_NUM_THREADS=1 run "$PYTHON" -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
