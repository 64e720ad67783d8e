#!/usr/bin/env bash
# Table 1 on CLIP for all NAMES: forget sets, gradients, SLUG, the baselines, report. A second run keeps valid files.
# --without-baselines leaves the baselines out. The last lines are the verdict and the path of the page to look at.
# Reads LAION_DIR, TRAIN_DATA, VAL_DATA and IMAGENET_VAL; writes TAR_DIR, IMAGE_DIR and RESULT_DIR. PROFILE=paper runs the
# paper's five names. PROTOCOL says whose rules are followed, ours or the paper's; the paper's points are printed, and in a
# dry run ours too. A dry run ends with the state of the data and an estimate of what each stage will take, by
# scripts/tools/estimate.py (NO_PLAN=1 skips both).
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names
stages=(data curation gradients slug baselines report)
if [ "${1:-}" = --without-baselines ]; then
  stages=(data curation gradients slug report)
  shift
fi
no_more_arguments "$@"

if [ -n "$DRY_RUN" ] || [ "$PROTOCOL" = paper ]; then
  "$PYTHON" -m slug.protocols "$PROTOCOL"
else
  echo "protocol: $PROTOCOL; its points: bash scripts/run_all_clip.sh --dry-run, docs/protocol.md"
fi
number=0
timed() { # timed COMMAND...: the next stage, with its number and its seconds
  local from="$SECONDS" label="${stages[$number]}"
  number=$((number + 1))
  [ -n "$DRY_RUN" ] || echo "[$number/${#stages[@]}] $label"
  "$@"
  [ -n "$DRY_RUN" ] || echo "[$number/${#stages[@]}] $label: $((SECONDS - from)) s; $((SECONDS + ${STARTED:-0})) s since the start"
}

# Report missing data now, not after hours.
places=(--laion-dir "$LAION_DIR" --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" --val-data "$VAL_DATA"
  --imagenet-val "$IMAGENET_VAL" --mia-data "$MIA_DATA")
needed=(laion retain celeba imagenet)
[ "$PROTOCOL" = ours ] || needed+=(membership)
timed run "$PYTHON" scripts/check_data.py --only "${needed[@]}" --name "${NAME_LIST[@]}" "${places[@]}" --strict
timed run "$PYTHON" src/clip/a0_create_tar.py --name "${NAME_LIST[@]}" --laion-dir "$LAION_DIR" \
  --tar-dir "$TAR_DIR" --image-dir "$IMAGE_DIR" --known-names "$KNOWN_NAMES" --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
timed bash scripts/run_compute_grad.sh
timed bash scripts/run_clip_slug.sh
[[ " ${stages[*]} " != *" baselines "* ]] || timed bash scripts/run_clip_comparison.sh
# The verdict and the page's path come last, below the seconds of their own stage.
timed run "$PYTHON" src/clip/a4_report.py --result-dir "$RESULT_DIR" | awk '
  /^verdict:/ { held = 1 }
  held && !/^\[[0-9]+\// { last = last $0 "\n"; next }
  { print }
  END { printf "%s", last }'
if [ -n "$DRY_RUN" ] && [ -z "${NO_PLAN:-}" ]; then
  words lr "$LR"
  words selection "$SELECTION"
  words methods "$METHODS"
  "$PYTHON" scripts/tools/estimate.py --stored --data --celeb-name "${NAME_LIST[@]}" --compare-names $COMPARE_NAMES "${places[@]}" \
    --imagenet-share "$IMAGENET_SHARE" --max-count "$MAX_COUNT" --unlearn-method "${methods[@]}" --lr "${lr[@]}" \
    --selection "${selection[@]}" --epochs "$EPOCHS" --forget-epochs "$FORGET_EPOCHS" \
    ${SETTINGS_FROM:+--settings-from "$SETTINGS_FROM"} "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}"
fi
