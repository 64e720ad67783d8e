#!/usr/bin/env bash
# SLUG on SD_CONCEPTS, characters and objects that no classifier knows: the unedited CLIP judges the pictures, and SD_OTHERS must
# stay. Needs run_compute_grad_sd.sh; writes RESULT_DIR/sd/. Further arguments go to b2_unlearn_sd.py. What is valid is kept.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

prompts="$RESULT_DIR/sd/prompts-names.csv"
run "$PYTHON" src/clip/a0_create_prompts_uncanvas.py --names $SD_CONCEPTS $SD_OTHERS --out "$prompts" "${RUN_FLAGS[@]}"
run "$PYTHON" src/sd/b2_unlearn_sd.py --object $SD_CONCEPTS --select clip --prompts "$prompts" --tar-dir "$TAR_DIR" \
  --train-data "$TRAIN_DATA" --batch-size "$BATCH_SIZE" "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
