#!/usr/bin/env bash
# Opens the explorer: a page on this machine (http://127.0.0.1:7860) on which edits of a CLIP or a pipeline are tried out with a
# slider for their strength. Without --model-dir: mini-CLIP and the edits of RESULT_DIR, else the committed ones of results/demo.
# Further arguments go to python -m slug.explorer, e.g. --model-dir FOLDER --results FOLDER --pictures FOLDER.
# Gradio goes into an environment of its own, .venv/explorer, on top of the other: it asks for an older Pillow than is tested.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

explorer="$ROOT/.venv/explorer"
if [ -n "$DRY_RUN" ] || ! "$explorer/bin/python" -c 'import gradio, torch' 2>/dev/null; then
  echo "explorer: installing Gradio into $explorer, once; about half a minute"
  run "$PYTHON" -m venv --clear "$explorer"
  install=("$explorer/bin/python" -m pip install --no-input --disable-pip-version-check -c "$explorer/constraints.txt" -e '.[explore]')
  if [ -n "$DRY_RUN" ]; then
    run "${install[@]}"
  else
    site='import sysconfig; print(sysconfig.get_path("purelib"))'
    "$PYTHON" -c "$site" >"$("$explorer/bin/python" -c "$site")/below.pth"
    grep -vi '^pillow==' scripts/constraints.txt >"$explorer/constraints.txt"
    "${install[@]}" >"$explorer/setup.log" 2>&1 || die "$(tail -n 5 "$explorer/setup.log")"
  fi
fi

what=()
if [[ " $* " != *" --model-dir"* ]] && [ "$PROFILE" = demo ]; then
  run "$PYTHON" src/demo/build_world.py --out "$DATA_DIR"
  run "$PYTHON" src/demo/convert_sd.py --out "$DATA_DIR/models"
  results=results/demo
  compgen -G "$RESULT_DIR/clip/*.delta.safetensors" >/dev/null && results="$RESULT_DIR/clip"
  what=(--model-dir "${MODEL#local-dir:}" --results "$results" --pictures "$VAL_DATA" "$IMAGENET_VAL")
fi
run "$explorer/bin/python" -m slug.explorer --clip "$SD_CLIP" --denoising-steps "$DENOISING_STEPS" --guidance "$GUIDANCE" \
  ${what[@]+"${what[@]}"} "$@"
