#!/usr/bin/env bash
# The whole demo from a bare clone: set-up, world, forget sets, gradients, SLUG for all NAMES, the baselines for two of them at
# stored settings, report. A second run keeps what is valid.
# Reads data/emoji/ and data/models/; writes data/demo/ and RESULT_DIR. Time and figures: scripts/profiles/demo.sh.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"
need_names

times="$(printf '%-10s %5d s' set-up "$SECONDS")"
timed() { # timed LABEL COMMAND...
  local label="$1" from="$SECONDS"
  shift
  "$@"
  times+="$(printf '\n%-10s %5d s' "$label" $((SECONDS - from)))"
}

timed world run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
timed curation run "$PYTHON" src/clip/a0_create_tar.py --name "${NAME_LIST[@]}" --laion-dir "$LAION_DIR" \
  --tar-dir "$TAR_DIR" --image-dir "$IMAGE_DIR" --known-names "$KNOWN_NAMES" --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
timed gradients bash scripts/run_compute_grad.sh
timed slug bash scripts/run_clip_slug.sh
timed baselines bash scripts/run_clip_comparison.sh
timed report run "$PYTHON" src/clip/a4_report.py --result-dir "$RESULT_DIR"
printf '%s\n' "$times"
