#!/usr/bin/env bash
# Styles and objects of a pipeline forgotten together, after run_uncanvas.sh: the first 2, 3, ... of MULTI_STYLES, of
# MULTI_SD_OBJECTS, and all of both (b5), by the first of SD_METHODS. Writes multi.csv and multi.md to RESULT_DIR/uncanvas/. Further arguments go to
# b5_unlearn_multi.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

need "$RESULT_DIR/sd/prompts.csv" "bash scripts/run_uncanvas.sh"
run "$PYTHON" src/sd/b5_unlearn_multi.py --style $MULTI_STYLES --object $MULTI_SD_OBJECTS --method "${SD_METHODS%% *}" \
  --prompts "$RESULT_DIR/sd/prompts.csv" --classifiers "$CLASSIFIERS" "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" \
  ${REFERENCE:+--out "$REFERENCE/uncanvas" --readme README.md} "$@"
