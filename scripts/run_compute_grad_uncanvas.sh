#!/usr/bin/env bash
# Forget sets of STYLES and OBJECTS from CANVAS_DIR's pictures (a0_create_tar_ucanvas), and gradients of the pipeline's text
# tower (b1). Reads TRAIN_DATA too; writes TAR_DIR/{style or object}.tar and RESULT_DIR/grads/. Further arguments go to
# b1_compute_grad.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

[ -n "$STYLES$OBJECTS" ] || die "nothing to forget; give STYLES or OBJECTS, e.g. STYLES=Van_Gogh"
need "$CANVAS_DIR/data" "see data/README.md, Styles; for the demo: python src/demo/build_world.py"
run "$PYTHON" src/clip/a0_create_tar_ucanvas.py --canvas "$CANVAS_DIR/data" --tar-dir "$TAR_DIR" \
  --style $STYLES --object $OBJECTS "${RUN_FLAGS[@]}"
run "$PYTHON" src/sd/b1_compute_grad.py --celeb-name $STYLES $OBJECTS --clip-model-id "$SD_CLIP" --tar-dir "$TAR_DIR" \
  --train-data "$TRAIN_DATA" --batch-size "$BATCH_SIZE" "${RUN_FLAGS[@]}" "$@"
