#!/usr/bin/env bash
# A maintainer's step: run the demo and put its small result files in place of the committed reference, results/demo/.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"

bash scripts/run_demo.sh
run "$PYTHON" src/demo/evaluate_clip.py --out results/demo --readme README.md
run "$PYTHON" src/clip/a4_report.py --result-dir "$RESULT_DIR" --out results/demo --readme README.md
