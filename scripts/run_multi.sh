#!/usr/bin/env bash
# Several names forgotten at once: MULTI_NAMES, then MULTI_OBJECTS and MULTI_MIXTURE (identities and objects) if they are set.
# For each list: forget sets, gradients and SLUG (MULTI_METHOD) on every name, then the first 2, 3, ... of them together, as a
# plain sum and by a joint search (a5). Gradients leave all names of a list out of the retain set, so each list has its own
# folder: RESULT_DIR/multi/, multi-objects/, multi-mixture/, or with MULTI_PART, e.g. ws: multi-ws/, multi-ws-objects/,
# multi-ws-mixture/. Further arguments go to a5_unlearn_multi.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# together LIST KIND SHARE ARGUMENTS...: all stages for one list of names, on this fraction of IMAGENET_VAL's pictures
together() {
  local part="$MULTI_PART${MULTI_PART:+${2:+-}}$2" names RUN_FLAGS
  local -x NAMES="$1" RESULT_DIR="$RESULT_DIR/multi${part:+-$part}" IMAGENET_SHARE="$3"
  shift 3
  words names "$NAMES"
  [ ${#names[@]} -gt 1 ] || die "MULTI_NAMES, MULTI_OBJECTS and MULTI_MIXTURE need two names or more each"
  results_in "$RESULT_DIR"
  run "$PYTHON" src/clip/a0_create_tar.py --name "${names[@]}" --laion-dir "$LAION_DIR" --tar-dir "$TAR_DIR" \
    --image-dir "$IMAGE_DIR" --known-names "$KNOWN_NAMES" --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
  bash scripts/run_compute_grad.sh --unlearn-method "$MULTI_METHOD"
  bash scripts/run_clip_slug.sh --unlearn-method "$MULTI_METHOD" --fronts "$MULTI_FRONTS"
  run "$PYTHON" src/clip/a5_unlearn_multi.py --celeb-name "${names[@]}" --joint --val-data "$VAL_DATA" \
    --imagenet-val "$IMAGENET_VAL" --imagenet-share "$IMAGENET_SHARE" --max-forget "$MAX_FORGET" "${MODEL_FLAGS[@]}" \
    "${RUN_FLAGS[@]}" ${REFERENCE:+--out "$REFERENCE/multi" --part "$part" --readme "$REFERENCE/multi/README.md"} "$@"
}

if [ "$PROFILE" = demo ]; then
  run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
fi
together "$MULTI_NAMES" "" "$IMAGENET_SHARE" "$@"
[ -z "$MULTI_OBJECTS" ] || together "$MULTI_OBJECTS" objects "$MULTI_IMAGENET_SHARE" "$@"
[ -z "$MULTI_MIXTURE" ] || together "$MULTI_MIXTURE" mixture "$MULTI_IMAGENET_SHARE" "$@"
