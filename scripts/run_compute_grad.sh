#!/usr/bin/env bash
# Forget and retain gradients of all NAMES (a1). Reads TAR_DIR/{name}.tar and TRAIN_DATA; writes RESULT_DIR/grads/.
# Further arguments go to the stage, e.g. --unlearn-method ssd, or slug_w, for what another method needs.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names

for name in "${NAME_LIST[@]}"; do
  need "$TAR_DIR/$name.tar" "python src/clip/a0_create_tar.py --name $name --laion-dir $LAION_DIR --tar-dir $TAR_DIR \
--image-dir $IMAGE_DIR${KNOWN_NAMES:+ --known-names $KNOWN_NAMES}"
done
run "$PYTHON" src/clip/a1_compute_grad.py --unlearn-method slug --celeb-name "${NAME_LIST[@]}" \
  --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
