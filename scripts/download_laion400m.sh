#!/usr/bin/env bash
# Downloads LAION-400M as shards, by img2dataset with the paper's settings. Reads METADATA_DIR (URL and TEXT of every picture,
# see data/README.md); writes LAION_DIR. Resumable. DISTRIBUTOR=pyspark or ray spreads it over a cluster. Further arguments go
# to the stage. To download the pictures of some names only: python src/clip/a0_create_tar.py --download.
set -euo pipefail
export PROFILE="${PROFILE:-paper}"
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

need "$METADATA_DIR" "download LAION-400M's metadata as described in data/README.md"
run "$PYTHON" src/clip/a0_download.py --metadata-dir "$METADATA_DIR" --laion-dir "$LAION_DIR" --distributor "$DISTRIBUTOR" \
  --processes "$PROCESSES" --threads "$THREADS" --image-size "$IMAGE_SIZE" --retries "$RETRIES" --timeout "$TIMEOUT" \
  "${RUN_FLAGS[@]}" "$@"
