#!/usr/bin/env bash
# The study of the paper's claims on NAMES and STUDY_NAMES: forget sets, gradients, every name in every variant (a6) in STUDY_JOBS
# processes, verdicts (a4). Reads LAION_DIR, TRAIN_DATA, VAL_DATA and IMAGENET_VAL; writes RESULT_DIR/study/, because its
# gradients leave all these names out of the retain set. --quick: the quick variants on two identities and one object, which
# the full study reuses. Further arguments go to a6_study.py, e.g. --engine ray for a Ray cluster. Resumable.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

export NAMES="$NAMES $STUDY_NAMES"
results_in "$RESULT_DIR/study"
IFS=$' \t\n' read -r -d '' -a NAME_LIST <<<"$NAMES" || true
need_names

if [ "$PROFILE" = demo ]; then
  run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
fi
run "$PYTHON" src/clip/a0_create_tar.py --name "${NAME_LIST[@]}" --laion-dir "$LAION_DIR" --tar-dir "$TAR_DIR" \
  --image-dir "$IMAGE_DIR" --known-names "$KNOWN_NAMES" --max-count "$MAX_COUNT" "${RUN_FLAGS[@]}"
bash scripts/run_compute_grad.sh
run "$PYTHON" src/clip/a6_study.py --celeb-name "${NAME_LIST[@]}" --jobs "$STUDY_JOBS" --tar-dir "$TAR_DIR" \
  --train-data "$TRAIN_DATA" --laion-dir "$LAION_DIR" --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL" \
  --imagenet-share "$IMAGENET_SHARE" "${RULE_FLAGS[@]}" "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
run "$PYTHON" src/clip/a4_report.py --study "$RESULT_DIR" \
  ${REFERENCE:+--out "$REFERENCE/study" --report results/REPORT.md --readme "$REFERENCE/study/README.md"}
[ -n "$DRY_RUN" ] || echo "all stages: $SECONDS s"
