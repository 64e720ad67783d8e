#!/usr/bin/env bash
# The benchmark of unlearning methods by its frozen protocol (data/emoji/protocol.json, docs/protocol.md): forget sets, every run
# of the plan (gradients, SLUG's variants by encoder, rivals), then table.csv, leaderboards and comparisons. Resumable: every
# stage keeps what is valid. Reads the embedded world; writes RESULT_DIR/benchmark/. --quick: three development names.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
quick=()
if [ "${1:-}" = --quick ]; then
  quick=(--quick)
  shift
fi
no_more_arguments "$@"

run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
results_in "$RESULT_DIR/benchmark"
flags=(${quick[@]+"${quick[@]}"} --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL"
  "${RUN_FLAGS[@]}")
plan="$("$PYTHON" src/clip/a8_benchmark.py --plan "${flags[@]}")"
draft="$(sed -n 's/^# draft: //p' <<<"$plan")"
[ -z "$draft" ] || [ -n "$DRY_RUN" ] || die "$draft"
IFS=' ' read -r -a names < <(sed -n 's/^# names: //p' <<<"$plan")
run "$PYTHON" src/clip/a0_create_tar.py --name "${names[@]}" --laion-dir "$LAION_DIR" --tar-dir "$TAR_DIR" \
  --image-dir "$IMAGE_DIR" --known-names "$KNOWN_NAMES" --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
while IFS= read -r line; do
  case "$line" in
    "# names:"*) ;;
    "#"*) echo "$line" ;;
    *)
      echo "+ $line"
      [ -n "$DRY_RUN" ] || eval "${line/#python /\"\$PYTHON\" }"
      ;;
  esac
done <<<"$plan"
run "$PYTHON" src/clip/a8_benchmark.py "${flags[@]}"
