#!/usr/bin/env bash
# For maintainers: makes the committed reference, results/demo/, anew. Runs the demo with all names and the whole grid of the
# baselines, then several names at once, UnlearnCanvas in full, the vision-language model, the durability of the edits and the
# study. Resumable. Takes three hours on 2 cores, without durability and study.
set -euo pipefail
export PROFILE=demo COMPARE_NAMES='' SETTINGS_FROM='' TRACE=200
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"

bash scripts/run_demo.sh --with-baselines
run "$PYTHON" src/demo/evaluate_clip.py --out results/demo --readme results/demo/README.md
run "$PYTHON" src/clip/a4_report.py --result-dir "$RESULT_DIR" --out results/demo --readme results/demo/README.md
REFERENCE=results/demo bash scripts/run_multi.sh
REFERENCE=results/demo SD_METHODS="$SD_ALL_METHODS" bash scripts/run_uncanvas.sh
REFERENCE=results/demo bash scripts/run_uncanvas.sh --test-objects
REFERENCE=results/demo bash scripts/run_uncanvas_multi.sh
REFERENCE=results/demo bash scripts/run_tokens.sh
REFERENCE=results/demo RECORDS=results/demo bash scripts/run_lasting.sh
REFERENCE=results/demo VLM_FACTORS='0.5 0.7 1.4 2' bash scripts/run_vlm.sh
run "$PYTHON" src/demo/evaluate_vlm.py --out results/demo --readme results/demo/vlm/README.md
REFERENCE=results/demo bash scripts/run_study.sh
run "$PYTHON" scripts/tools/rewrite_reports.py # README's table, and the index of all results
