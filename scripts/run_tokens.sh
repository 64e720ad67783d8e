#!/usr/bin/env bash
# What brings back what run_uncanvas.sh made a pipeline forget? Tries TOKEN_STYLES and TOKEN_OBJECTS, for every method that was
# run: an optimised prompt token (textual inversion), other wordings and words (TOKEN_WORDS), the edit without its low-rank
# part, merged with the original, and trained on retained pictures, in SD_JOBS processes. Writes tokens.csv, tokens.md, back.csv
# and back.md to RESULT_DIR/uncanvas/. Further arguments go to b4_optimised_tokens.py. Resumable, by concept and attempt.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

need "$RESULT_DIR/sd/prompts.csv" "bash scripts/run_uncanvas.sh"

# attempt FLAGS: b4 on all concepts, or on a part of them
attempt() {
  run "$PYTHON" src/sd/b4_optimised_tokens.py --style $TOKEN_STYLES --object $TOKEN_OBJECTS \
    --prompts "$RESULT_DIR/sd/prompts.csv" --classifiers "$CLASSIFIERS" ${TOKEN_WORDS:+--words "$TOKEN_WORDS"} \
    --retain-rate "$TOKEN_RETAIN_LR" \
    "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
}

more=("$@")
count() { attempt ${more[@]+"${more[@]}"} --part "$1" "$SD_JOBS"; }

[ "$SD_JOBS" = 1 ] || at_once count
attempt ${REFERENCE:+--out "$REFERENCE/uncanvas" --readme "$REFERENCE/uncanvas/README.md"} "$@"
