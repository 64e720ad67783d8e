#!/usr/bin/env bash
# SLUG on SD_CONCEPTS, characters and objects that no classifier knows: the unedited CLIP judges the pictures, and SD_OTHERS are
# the retained concepts. Needs run_compute_grad_sd.sh; writes RESULT_DIR/sd-names/{sd,uncanvas}/: records and deltas, then
# results on the test split and sheets of pictures before and after. Further arguments go to b2_unlearn_sd.py. Resumable.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

results_in "$RESULT_DIR/sd-names"
prompts="$RESULT_DIR/sd/prompts.csv"
# A concept has one prompt, where a style or an object has one for each cell, so it is tested on more seeds than five.
run "$PYTHON" src/clip/a0_create_prompts_uncanvas.py --names $SD_CONCEPTS $SD_OTHERS --test-seeds {0..19} --out "$prompts" \
  "${RUN_FLAGS[@]}"
run "$PYTHON" src/sd/b2_unlearn_sd.py --object $SD_CONCEPTS --select clip --prompts "$prompts" --tar-dir "$SD_TAR_DIR" \
  --train-data "$TRAIN_DATA" --batch-size "$BATCH_SIZE" "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
run "$PYTHON" src/sd/b3_eval_uncanvas.py --judge clip --prompts "$prompts" "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}"
