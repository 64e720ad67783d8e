#!/usr/bin/env bash
# Table 1 by both protocols on the same NAMES, and one table with both side by side. Reads what run_all_clip.sh reads; writes
# RESULT_DIR and RESULT_DIR/protocol-paper, then PROTOCOLS_OUT (RESULT_DIR/protocols): table.csv and report.md. Resumable.
# Further arguments go to run_all_clip.sh, e.g. --without-baselines.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names

if [ "$PROFILE" = demo ]; then
  run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
fi
results="$RESULT_DIR"
declare -A folders=([ours]="$results" [paper]="$results/protocol-paper")
for protocol in ours paper; do
  PROTOCOL="$protocol" RESULT_DIR="${folders[$protocol]}" bash scripts/run_all_clip.sh "$@"
done
run "$PYTHON" scripts/tools/compare_protocols.py --ours "${folders[ours]}/clip/report/table.csv" \
  --paper "${folders[paper]}/clip/report/table.csv" --out "${PROTOCOLS_OUT:-$results/protocols}"
