#!/usr/bin/env bash
# Forget sets of SD_CONCEPTS, which PIPELINE makes itself (b0), and gradients of its text tower (b1). Reads TRAIN_DATA;
# writes SD_TAR_DIR/{name}.tar, SD_IMAGE_DIR/{name}/ and RESULT_DIR/sd-names/grads/. Further arguments go to b1_compute_grad.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

results_in "$RESULT_DIR/sd-names"
run "$PYTHON" src/sd/b0_generate_forget_set.py --object $SD_CONCEPTS --tar-dir "$SD_TAR_DIR" --image-dir "$SD_IMAGE_DIR" \
  "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}"
run "$PYTHON" src/sd/b1_compute_grad.py --celeb-name $SD_CONCEPTS --clip-model-id "$SD_CLIP" --tar-dir "$SD_TAR_DIR" \
  --train-data "$TRAIN_DATA" --batch-size "$BATCH_SIZE" "${RUN_FLAGS[@]}" "$@"
