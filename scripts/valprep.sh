#!/usr/bin/env bash
# Sorts ImageNet's validation pictures into one folder for each class (a0_prepare_imagenet). Reads the official
# ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz (IMAGENET_TAR, IMAGENET_DEVKIT; by default beside IMAGENET_VAL);
# writes IMAGENET_VAL. Works from any folder, data/ImageNet/ included. Resumable. ANY_ARCHIVE=1 accepts archives with other
# checksums.
set -euo pipefail
export PROFILE=paper # the demo has no archives
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

folder="$(dirname -- "$IMAGENET_VAL")"
run "$PYTHON" src/clip/a0_prepare_imagenet.py --tar "${IMAGENET_TAR:-$folder/ILSVRC2012_img_val.tar}" \
  --devkit "${IMAGENET_DEVKIT:-$folder/ILSVRC2012_devkit_t12.tar.gz}" --imagenet-val "$IMAGENET_VAL" "${RUN_FLAGS[@]}" \
  ${ANY_ARCHIVE:+--any-archive} "$@"
