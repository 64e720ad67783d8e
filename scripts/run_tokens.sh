#!/usr/bin/env bash
# Can an optimised prompt token (textual inversion) bring back what run_uncanvas.sh made a pipeline forget? Tries TOKEN_STYLES
# and TOKEN_OBJECTS, for every method that was run. Writes tokens.csv and tokens.md to RESULT_DIR/uncanvas/. Further arguments
# go to b4_optimised_tokens.py.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

need "$RESULT_DIR/sd/prompts.csv" "bash scripts/run_uncanvas.sh"
run "$PYTHON" src/sd/b4_optimised_tokens.py --style $TOKEN_STYLES --object $TOKEN_OBJECTS \
  --prompts "$RESULT_DIR/sd/prompts.csv" --classifiers "$CLASSIFIERS" "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" \
  ${REFERENCE:+--out "$REFERENCE/uncanvas" --readme "$REFERENCE/uncanvas/README.md"} "$@"
