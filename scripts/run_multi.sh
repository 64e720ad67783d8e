#!/usr/bin/env bash
# Several of NAMES forgotten at once: the edits that run_clip_slug.sh found, for the first 2, 3, ... of MULTI_NAMES together, plain
# sum and joint search. Gradients leave all of them out of the retain set, so that everything goes to RESULT_DIR/multi/. Further
# arguments go to a5_unlearn_multi.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

export NAMES="$MULTI_NAMES" RESULT_DIR="$RESULT_DIR/multi"
IFS=$' \t\n' read -r -d '' -a names <<<"$NAMES" || true
[ ${#names[@]} -gt 1 ] || die "MULTI_NAMES needs two names or more"
run "$PYTHON" src/clip/a0_create_tar.py --name "${names[@]}" --laion-dir "$LAION_DIR" --tar-dir "$TAR_DIR" \
  --image-dir "$IMAGE_DIR" --known-names "$KNOWN_NAMES" --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
bash scripts/run_compute_grad.sh
bash scripts/run_clip_slug.sh
RUN_FLAGS=(--device "$DEVICE" --seed "$SEED" --workers "$WORKERS" --precision "$PRECISION" --result-dir "$RESULT_DIR")
run "$PYTHON" src/clip/a5_unlearn_multi.py --celeb-name "${names[@]}" --joint --val-data "$VAL_DATA" \
  --imagenet-val "$IMAGENET_VAL" --imagenet-share "$IMAGENET_SHARE" "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}" \
  ${REFERENCE:+--out "$REFERENCE/multi" --readme README.md} "$@"
