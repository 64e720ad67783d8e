#!/usr/bin/env bash
# Lint, format check and tests, with set-up where nothing is installed. Further arguments go to pytest, e.g. -k house.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

run "$PYTHON" -m ruff check .
run "$PYTHON" -m ruff format --check .
run "$PYTHON" -m pytest "$@"
