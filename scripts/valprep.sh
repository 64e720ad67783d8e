#!/usr/bin/env bash
# ImageNet's validation pictures, one folder a class (a0_prepare_imagenet): reads the official ILSVRC2012_img_val.tar and
# ILSVRC2012_devkit_t12.tar.gz (IMAGENET_TAR, IMAGENET_DEVKIT; beside IMAGENET_VAL), writes IMAGENET_VAL. Run it from
# anywhere, data/ImageNet/ included. Resumable. ANY_ARCHIVE=1 takes archives whose checksum is another.
set -euo pipefail
export PROFILE=paper # the demo's world has no archives
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

folder="$(dirname -- "$IMAGENET_VAL")"
run "$PYTHON" src/clip/a0_prepare_imagenet.py --tar "${IMAGENET_TAR:-$folder/ILSVRC2012_img_val.tar}" \
  --devkit "${IMAGENET_DEVKIT:-$folder/ILSVRC2012_devkit_t12.tar.gz}" --imagenet-val "$IMAGENET_VAL" "${RUN_FLAGS[@]}" \
  ${ANY_ARCHIVE:+--any-archive} "$@"
