#!/usr/bin/env bash
# Durability: can forgotten names be brought back? Tests every edit of NAMES in RECORDS, by SLUG and by the baselines, under
# relearning, coarser weights, a probe, other spellings, drawing styles and sums of features (a7). RECORDS is RESULT_DIR/clip,
# which run_all_clip.sh fills, or results/demo, the committed run. Makes forget sets and gradients first, because the baselines
# are trained again; writes RESULT_DIR/lasting/. LASTING_JOBS processes share the names. Resumable. --report runs nothing and
# only reports. Further arguments go to a7_lasting.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names

if [[ " $* " != *" --report "* ]]; then
  need "$RECORDS" "bash scripts/run_all_clip.sh"
  if [ "$PROFILE" = demo ]; then
    run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
  fi
  run "$PYTHON" src/clip/a0_create_tar.py --name "${NAME_LIST[@]}" --laion-dir "$LAION_DIR" --tar-dir "$TAR_DIR" \
    --image-dir "$IMAGE_DIR" ${KNOWN_NAMES:+--known-names "$KNOWN_NAMES"} --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
  bash scripts/run_compute_grad.sh
  bash scripts/run_compute_grad.sh --unlearn-method ssd
fi
words aliases "$ALIASES"
words gold "$GOLD"
run "$PYTHON" src/clip/a7_lasting.py --celeb-name "${NAME_LIST[@]}" --records "$RECORDS" \
  ${aliases[@]+--aliases "${aliases[@]}"} ${gold[@]+--gold "${gold[@]}"} \
  --relearn-lr "$RELEARN_LR" --jobs "$LASTING_JOBS" --tar-dir "$TAR_DIR" \
  --train-data "$TRAIN_DATA" --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL" --imagenet-share "$IMAGENET_SHARE" \
  "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}" \
  ${REFERENCE:+--out "$REFERENCE/lasting" --readme "$REFERENCE/lasting/README.md"} "$@"
