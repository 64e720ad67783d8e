#!/usr/bin/env bash
# SLUG on CLIP for all NAMES (a2). Reads the gradients of run_compute_grad.sh, TAR_DIR, VAL_DATA, IMAGENET_VAL and, with PROTOCOL=paper, MIA_DATA; writes
# plots, logs, records and deltas to RESULT_DIR/clip/. Further arguments go to the stage, e.g. --force.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names

run "$PYTHON" src/clip/a2_unlearn_slug.py --celeb-name "${NAME_LIST[@]}" --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" \
  --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL" --imagenet-share "$IMAGENET_SHARE" --trace "$TRACE" \
  --mia-data "$MIA_DATA" "${RULE_FLAGS[@]}" \
  "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
