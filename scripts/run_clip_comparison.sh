#!/usr/bin/env bash
# The baselines for all NAMES (a3): FT, GA, GAFT, SalUn, SSD. Reads the gradients of run_compute_grad.sh, TAR_DIR, TRAIN_DATA,
# VAL_DATA and IMAGENET_VAL; writes records, logs and importances to RESULT_DIR. Resumable. Further arguments go to the stage.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names

IFS=' ' read -r -a methods <<<"$METHODS"
IFS=' ' read -r -a lr <<<"$LR"
IFS=' ' read -r -a selection <<<"$SELECTION"
bash scripts/run_compute_grad.sh --unlearn-method calc_importance
grad=("${MODEL_FLAGS[@]/--batch-size/--grad-batch-size}")
run "$PYTHON" src/clip/a3_unlearn_compare.py --celeb-name "${NAME_LIST[@]}" --unlearn-method "${methods[@]}" \
  --lr "${lr[@]}" --selection "${selection[@]}" --epochs "$EPOCHS" --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" \
  --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL" --trace "$TRACE" "${grad[@]}" "${RUN_FLAGS[@]}" "$@"
