#!/usr/bin/env bash
# The search, plain against fast, in one run each: mini-CLIP on the embedded world; ViT-B-32 with random weights at a fixed size,
# against its numbers of names, pictures and layers, and at the paper's size beside one plain step.
# Needs the demo's world and gradients; writes results/bench/. Further arguments go to the benchmark.
# On 2 cores it takes about an hour; run it alone. In the search case each part of the fast way is switched off as well.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

need "$TAR_DIR" "bash scripts/run_demo.sh"
bash scripts/run_compute_grad.sh
name="${NAME_LIST[-1]}"
run "$PYTHON" scripts/benchmark_search.py --celeb-name "$name" --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" \
  --val-data "$VAL_DATA" --imagenet-val "$IMAGENET_VAL" "${MODEL_FLAGS[@]}" "${RUN_FLAGS[@]}" "$@"
for case in fixed growth paper; do
  run "$PYTHON" scripts/benchmark_search.py --case "$case" --model ViT-B-32 --pretrained random "${RUN_FLAGS[@]}" "$@"
done
