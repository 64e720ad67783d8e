#!/usr/bin/env bash
# The whole demo from a bare clone: set-up, world, forget sets, gradients, SLUG on all NAMES, report. With --with-baselines also
# the baselines, on two of the names at stored settings. A second run keeps valid files. The last lines are the verdict and
# the path of report.html.
# Reads data/emoji/ and data/models/; writes data/demo/ and RESULT_DIR. Expected time: scripts/profiles/demo.sh.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names
baselines=(--without-baselines)
if [ "${1:-}" = --with-baselines ]; then
  baselines=()
  shift
fi
no_more_arguments "$@"

run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
NO_PLAN=1 STARTED="$SECONDS" bash scripts/run_all_clip.sh ${baselines[@]+"${baselines[@]}"}
