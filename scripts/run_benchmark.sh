#!/usr/bin/env bash
# Times the search, plain against fast: mini-CLIP on the embedded world, where each part of the fast way is also switched off in
# turn; ViT-B-32 with random weights at a fixed size against two plain steps, at growing numbers of names, pictures and layers,
# and at the paper's size against one plain step; the gradient pass of both. Needs the demo's world and gradients; writes
# results/bench/. Further arguments go to the benchmark. Takes about 40 minutes on 2 cores; run nothing else meanwhile.
set -euo pipefail
export PROFILE=demo
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
need_names

need "$TAR_DIR" "bash scripts/run_demo.sh"
bash scripts/run_compute_grad.sh
name="${NAME_LIST[${#NAME_LIST[@]} - 1]}"
further=("$@")
bench() { run "$PYTHON" scripts/tools/benchmark_search.py "$@" "${RUN_FLAGS[@]}" ${further[@]+"${further[@]}"}; }
bench --celeb-name "$name" --tar-dir "$TAR_DIR" --train-data "$TRAIN_DATA" --val-data "$VAL_DATA" \
  --imagenet-val "$IMAGENET_VAL" "${MODEL_FLAGS[@]}"
bench --case gradient "${MODEL_FLAGS[@]}"
for case in gradient fixed growth paper; do
  bench --case "$case" --model ViT-B-32 --pretrained random
done
