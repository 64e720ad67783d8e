#!/usr/bin/env bash
# The whole demo from a bare clone: set-up, world, forget sets, gradients, SLUG on all NAMES, the baselines on two of them at
# stored settings, report. A second run keeps valid files.
# Reads data/emoji/ and data/models/; writes data/demo/ and RESULT_DIR. Expected time: scripts/profiles/demo.sh.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"
need_names

run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
NO_PLAN=1 bash scripts/run_all_clip.sh
[ -n "$DRY_RUN" ] || echo "all stages, with set-up and world: $SECONDS s"
