#!/usr/bin/env bash
# The UnlearnCanvas protocol: each of STYLES and OBJECTS is forgotten and evaluated among CANVAS_STYLES and CANVAS_OBJECTS.
# Prompts, forget sets, gradients, SLUG and the baselines (SD_METHODS), then UA, IRA, CRA and FID on the test split, in SD_JOBS
# processes. Reads CANVAS_DIR, PIPELINE and CLASSIFIERS; writes RESULT_DIR/{grads,sd,uncanvas}/.
# --quick: 2 styles, 3 objects, 2 test seeds, 4 validation seeds, no FID, in RESULT_DIR/sd-quick/.
# --test-objects: the objects of data/emoji/canvas_test_objects.txt by every method, in RESULT_DIR/sd-test-objects/.
# Further arguments go to b2_unlearn_sd.py. Resumable.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

seeds=()
fid=()
more=()
part=uncanvas # of REFERENCE
[[ " $* " != *" --quick "* || " $* " != *" --test-objects "* ]] || die "give --quick or --test-objects, not both"
for argument in "$@"; do
  if [ "$argument" = --quick ]; then
    export STYLES="Noto Twemoji" OBJECTS="bell rocket skull" SD_METHODS=slug_w
    export CANVAS_STYLES="$STYLES" CANVAS_OBJECTS="$OBJECTS"
    results_in "$RESULT_DIR/sd-quick"
    seeds=(--test-seeds 0 1 --validation-seeds 1000 1001 1002 1003)
    fid=(--no-fid)
  elif [ "$argument" = --test-objects ]; then
    [ "$PROFILE" = demo ] || die "--test-objects are objects of the embedded world; leave it out, or use PROFILE=demo"
    part=uncanvas-test-objects
    OBJECTS="$(grep -v '#' data/emoji/canvas_test_objects.txt)"
    export OBJECTS STYLES="" CANVAS_OBJECTS="$CANVAS_OBJECTS $OBJECTS" SD_METHODS="$SD_ALL_METHODS"
    results_in "$RESULT_DIR/sd-test-objects"
  else
    more+=("$argument")
  fi
done
if [ "$PROFILE" = demo ]; then
  run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
  run "$PYTHON" src/demo/convert_sd.py --out "$DATA_DIR/models"
fi
# Report missing data now, not after hours.
run "$PYTHON" scripts/check_data.py --only retain canvas classifiers --train-data "$TRAIN_DATA" --canvas "$CANVAS_DIR" \
  --classifiers "$CLASSIFIERS" --strict
prompts="$RESULT_DIR/sd/prompts.csv"
run "$PYTHON" src/clip/a0_create_prompts_uncanvas.py --canvas "$CANVAS_DIR/data" --out "$prompts" \
  --style $CANVAS_STYLES $STYLES --object $CANVAS_OBJECTS $OBJECTS --classifiers "$CLASSIFIERS" \
  ${NEVER_LEARNED:+--leave-out "$NEVER_LEARNED"} \
  ${seeds[@]+"${seeds[@]}"} "${RUN_FLAGS[@]}"
for method in $(printf '%s\n' slug $SD_METHODS | grep ^slug | sort -u); do
  bash scripts/run_compute_grad_uncanvas.sh --unlearn-method "$method"
done

# forget I: all methods, on the I-th of SD_JOBS parts of the concepts
forget() {
  local method how
  for method in $SD_METHODS; do
    how=(--method "$method")
    [[ "$method" != *_rounds ]] || how+=(--rounds "$SD_ROUNDS")
    run "$PYTHON" src/sd/b2_unlearn_sd.py "${how[@]}" --style $STYLES --object $OBJECTS --part "$1" "$SD_JOBS" \
      --prompts "$prompts" --classifiers "$CLASSIFIERS" --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" \
      --batch-size "$BATCH_SIZE" "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" ${more[@]+"${more[@]}"}
  done
}

# evaluate FLAGS: UA, IRA, CRA and FID of every record
evaluate() {
  local reference="$CANVAS_DIR/reference" # pictures for FID only, if there are any
  [ -d "$reference" ] || reference="$CANVAS_DIR/data"
  run "$PYTHON" src/sd/b3_eval_uncanvas.py --prompts "$prompts" --classifiers "$CLASSIFIERS" --reference "$reference" \
    ${fid[@]+"${fid[@]}"} "${SD_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
}

draw() { evaluate --part "$1" "$SD_JOBS"; }

at_once forget
[ "$SD_JOBS" = 1 ] || at_once draw
evaluate ${REFERENCE:+--out "$REFERENCE/$part" --readme "$REFERENCE/$part/README.md"}
[ -n "$DRY_RUN" ] || echo "all stages: $SECONDS s; tables and sheets: ${REFERENCE:-$RESULT_DIR}/uncanvas/"
