#!/usr/bin/env bash
# Times the search, plain against fast: mini-CLIP on the embedded world, where each part of the fast way is also switched off in
# turn; ViT-B-32 with random weights at a fixed size, at growing numbers of names, pictures and layers, and at the paper's size
# against one plain step. Needs the demo's world and gradients; writes results/bench/. Further arguments go to the benchmark.
# Takes about an hour on 2 cores; run nothing else meanwhile.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

need "$TAR_DIR" "bash scripts/run_demo.sh"
bash scripts/run_compute_grad.sh
name="${NAME_LIST[-1]}"
run "$PYTHON" scripts/tools/benchmark_search.py --celeb-name "$name" --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" \
  --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL" "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
for case in fixed growth paper; do
  run "$PYTHON" scripts/tools/benchmark_search.py --case "$case" --model ViT-B-32 --pretrained random "${RUN_FLAGS[@]}" "$@"
done
