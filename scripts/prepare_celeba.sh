#!/usr/bin/env bash
# Chooses the identities of CelebA that are evaluated (a0_prepare_celeba): the most frequent ones and NAMES. Reads VAL_DATA's
# identity lists and pictures; writes VAL_DATA/frequent_celebs.txt. Further arguments go to the stage, e.g. --count 50 --force.
set -euo pipefail
export PROFILE=paper # the demo builds its own list
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

run "$PYTHON" src/clip/a0_prepare_celeba.py --data-root "$VAL_DATA" --name "${NAME_LIST[@]}" "${RUN_FLAGS[@]}" "$@"
