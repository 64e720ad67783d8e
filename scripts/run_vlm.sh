#!/usr/bin/env bash
# A vision-language model forgets VLM_NAMES: gradients of its vision tower and the search by VLM_METHOD, then its answers before
# and after on the test split, also at the multiples VLM_FACTORS of each step. Reads LAION_DIR, VLM, VLM_CLIP and QUESTIONS;
# writes RESULT_DIR/{grads,vlm}/. Resumable. Further arguments go to c1_unlearn_vlm.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

words names "$VLM_NAMES"
[ ${#names[@]} -gt 0 ] || die "no names to forget; give VLM_NAMES, e.g. VLM_NAMES='Elon_Musk Taylor_Swift'"
if [ "$PROFILE" = demo ]; then
  run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
  run "$PYTHON" src/demo/convert_vlm.py --out "$DATA_DIR/models"
  run "$PYTHON" src/demo/build_questions.py --out "$DATA_DIR/vlm"
fi
need "$QUESTIONS" "see data/README.md, Questions"
run "$PYTHON" src/clip/a0_create_tar.py --name "${names[@]}" --laion-dir "$LAION_DIR" --tar-dir "$TAR_DIR" \
  --image-dir "$IMAGE_DIR" --known-names "$KNOWN_NAMES" --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
model=(--vlm "$VLM" --clip-model-id "$VLM_CLIP" --answer-batch-size "$ANSWER_BATCH" --max-new-tokens "$ANSWER_TOKENS")
model+=("${RUN_FLAGS[@]}")
run "$PYTHON" src/vlm/c1_unlearn_vlm.py --celeb-name "${names[@]}" --questions "$QUESTIONS" --tar-dir "$TAR_DIR" \
  --train-data "$TRAIN_DATA" --batch-size "$BATCH_SIZE" --jobs "$VLM_JOBS" \
  --unlearn-method "$VLM_METHOD" "${model[@]}" "$@"
run "$PYTHON" src/vlm/c2_eval_vlm.py --questions "$QUESTIONS" ${VLM_UTILITY:+--utility $VLM_UTILITY} \
  ${VLM_FACTORS:+--factors $VLM_FACTORS} \
  ${REFERENCE:+--out "$REFERENCE/vlm" --readme "$REFERENCE/vlm/README.md"} "${model[@]}"
[ -n "$DRY_RUN" ] || echo "all stages: $SECONDS s; table, transcripts and sheets: ${REFERENCE:-$RESULT_DIR}/vlm/"
