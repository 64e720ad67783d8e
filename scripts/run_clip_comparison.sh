#!/usr/bin/env bash
# The baselines (a3) FT, GA, GAFT, SalUn and SSD on COMPARE_NAMES. Reads the gradients of run_compute_grad.sh, TAR_DIR,
# TRAIN_DATA, VAL_DATA and IMAGENET_VAL; writes records, logs and importances to RESULT_DIR. Resumable.
# Searches the grid of LR and SELECTION, or uses the settings chosen in the table SETTINGS_FROM: the demo profile runs two
# names at the reference's settings; COMPARE_NAMES= SETTINGS_FROM= searches the grid for all. Further arguments go to the stage.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names

words methods "$METHODS"
words lr "$LR"
words selection "$SELECTION"
words compared "$COMPARE_NAMES"
names=()
for name in "${NAME_LIST[@]}"; do
  [[ ${#compared[@]} -gt 0 && " ${compared[*]} " != *" $name "* ]] || names+=("$name")
done
if [ ${#names[@]} -eq 0 ]; then
  echo "# no baselines: none of COMPARE_NAMES ($COMPARE_NAMES) is among NAMES"
  exit
fi
bash scripts/run_compute_grad.sh --unlearn-method ssd
grad=("${MODEL_FLAGS[@]/--batch-size/--grad-batch-size}")
run "$PYTHON" src/clip/a3_unlearn_compare.py --celeb-name "${names[@]}" --unlearn-method "${methods[@]}" \
  --lr "${lr[@]}" --selection "${selection[@]}" --epochs "$EPOCHS" --forget-epochs "$FORGET_EPOCHS" \
  ${SETTINGS_FROM:+--settings-from "$SETTINGS_FROM"} \
  --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL" \
  --imagenet-share "$IMAGENET_SHARE" --trace "$TRACE" \
  --mia-data "$MIA_DATA" "${RULE_FLAGS[@]}" \
  "${grad[@]}" "${RUN_FLAGS[@]}" "$@"
