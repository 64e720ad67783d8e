#!/usr/bin/env bash
# Runs the chapter on real data (docs/reproduce.md), command by command, on stand-ins: a bare copy of this repository (STANDIN_DIR, made anew) gets
# files with the names and formats of the real downloads, made from the embedded world, and the demo's model
# (src/demo/build_standin.py). Writes every command and its output to STANDIN_RECORD, results/standin/README.md. Names and grids
# are small; each can be overridden. Takes minutes on 2 cores.
set -euo pipefail
export PROFILE=paper
chosen_names="${NAMES:-Lion Owl}" # before the profile sets the paper's
chosen_model="${MODEL:-local-dir:data/models/mini-clip}"
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"

: "${STANDIN_DIR:=$RESULT_DIR/standin-clone}"
: "${STANDIN_RECORD:=$ROOT/results/standin/README.md}"
: "${STANDIN_WORLD:=$ROOT/data/demo}"
# Variables for the chapter's commands: the archives are not the official ones, the names are those of the embedded world, and
# one name, one learning rate and few epochs are enough to see every method run.
: "${STANDIN_VARIABLES:="ANY_ARCHIVE=1 'NAMES=$chosen_names' MODEL=$chosen_model IMAGENET_SHARE=1 \
COMPARE_NAMES=${chosen_names%% *} LR=1e-4 EPOCHS=1 FORGET_EPOCHS=3 WORKERS=2 PIPELINE=data/models/mini-sd-pipeline \
SD_CLIP=data/models/mini-clip-hf 'CANVAS_STYLES=Noto Twemoji' 'CANVAS_OBJECTS=bell rocket' 'SD_CONCEPTS=rocket key' \
'SD_OTHERS=airplane crown' DENOISING_STEPS=20 GUIDANCE=1"}"
export STANDIN_VARIABLES

run "$PYTHON" src/demo/build_world.py --out "$STANDIN_WORLD"
run rm -rf -- "$STANDIN_DIR"
run "$PYTHON" src/demo/build_standin.py --out "$STANDIN_DIR" --world "$STANDIN_WORLD"
run env -u DATA_DIR -u RESULT_DIR "$PYTHON" scripts/tools/readme_commands.py --chapter "Real data" --follow "$STANDIN_DIR" \
  --record "$STANDIN_RECORD"
