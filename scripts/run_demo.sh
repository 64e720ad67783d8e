#!/usr/bin/env bash
# The whole demo from a bare clone: set-up, world, forget sets, gradients, SLUG for all NAMES, the baselines for two of them at
# stored settings, report. A second run keeps what is valid.
# Reads data/emoji/ and data/models/; writes data/demo/ and RESULT_DIR. Time and figures: scripts/profiles/demo.sh.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"
need_names

run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
NO_PLAN=1 bash scripts/run_all_clip.sh
[ -n "$DRY_RUN" ] || echo "with set-up and world $SECONDS s"
