#!/usr/bin/env bash
# Styles and objects that a pipeline forgets together: the first 2, 3, ... of MULTI_STYLES, of MULTI_SD_OBJECTS, and all of both
# (b5), by the edits of MULTI_METHOD, put together in MULTI_WAYS, and by MULTI_RIVALS, baselines that forget all at once. Uses
# the edits of run_uncanvas.sh if SD_METHODS has MULTI_METHOD; otherwise calls run_uncanvas.sh on these lists alone, in
# RESULT_DIR/sd-multi/, so that slug_ws spares the names of these lists. Writes multi.csv and multi.md to uncanvas/ of the
# folder it reads. Further arguments go to b5_unlearn_multi.py. Resumable.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

words known "$SD_METHODS"
if [[ " ${known[*]-} " != *" $MULTI_METHOD "* ]]; then
  results_in "$RESULT_DIR/sd-multi"
  REFERENCE='' STYLES="$MULTI_STYLES" OBJECTS="$MULTI_SD_OBJECTS" SD_METHODS="$MULTI_METHOD" bash scripts/run_uncanvas.sh
fi
need "$RESULT_DIR/sd/prompts.csv" "bash scripts/run_uncanvas.sh"
run "$PYTHON" src/sd/b5_unlearn_multi.py --style $MULTI_STYLES --object $MULTI_SD_OBJECTS --method "$MULTI_METHOD" \
  --ways $MULTI_WAYS --rivals $MULTI_RIVALS \
  --prompts "$RESULT_DIR/sd/prompts.csv" --classifiers "$CLASSIFIERS" "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" \
  ${REFERENCE:+--out "$REFERENCE/uncanvas" --readme "$REFERENCE/uncanvas/README.md"} "$@"
