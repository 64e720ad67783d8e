#!/usr/bin/env bash
# Times search, gradients and evaluation of ViT-B-32, ViT-L-14 and ViT-H-14 (random weights) at the paper's size on a GPU, in
# float32, TF32 and bfloat16, within 8 minutes; answers are compared with those of float32. Writes results/bench/gpu.csv.
# Further arguments go to scripts/tools/bench_gpu.py. Without a GPU, to try it: DEVICE=cpu bash scripts/tools/bench_gpu.sh
# --size tiny --models local-dir:data/models/mini-clip --out FOLDER
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"

device="$DEVICE"
[ "$device" != auto ] || device=cuda
run "$PYTHON" scripts/tools/bench_gpu.py --device "$device" --seed "$SEED" --workers "$WORKERS" "$@"
