# Sourced by every script here. Finds ROOT and PYTHON, reads the profile, and defines die, run, need, need_names, at_once, words,
# results_in.
# All relative paths, those in variables included, start at the repository's root.
set -euo pipefail

die() {
  echo "error: $*" >&2
  exit 2
}

# run COMMAND...: print a command and run it; in a dry run, print it only.
run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  [ -n "$DRY_RUN" ] || "$@"
}

# need FILE COMMAND: stop if an earlier stage's file is missing, and name the command that makes it.
need() {
  if [ -e "$1" ]; then
    return
  elif [ -n "$DRY_RUN" ]; then
    echo "# missing: $1; made by: $2"
  else
    die "$1 is missing; make it first: $2"
  fi
}

need_names() { [ ${#NAME_LIST[@]} -gt 0 ] || die "no forget names; give NAMES, e.g. NAMES='Elon_Musk Taylor_Swift'"; }

# at_once FUNCTION: FUNCTION I for every part I of SD_JOBS, all at once. Two processes with one thread each make pictures 1.5 times
# as fast as one with two. Each job has its own process group, so that its child processes stop with it.
jobs=()
at_once() {
  local part job
  set -m
  trap '[ ${#jobs[@]} -eq 0 ] || kill -- "${jobs[@]/#/-}" 2>/dev/null || true' EXIT
  [ "$SD_JOBS" = 1 ] || local -x OMP_NUM_THREADS=$((($(getconf _NPROCESSORS_ONLN) + SD_JOBS - 1) / SD_JOBS))
  for part in $(seq "$SD_JOBS"); do
    "$1" "$part" &
    jobs+=($!)
    [ -z "$DRY_RUN" ] || wait $!
  done
  for job in "${jobs[@]}"; do wait "$job"; done
  jobs=()
}

# words ARRAY TEXT: the words of a list in a variable, which may stand on one line or on several, as an array.
words() { IFS=$' \t\n' read -r -d '' -a "$1" <<<"$2" || true; }

no_more_arguments() { [ $# -eq 0 ] || die "unknown argument $1; see --help"; }

# --dry-run and --help (which prints the script's leading comment) are handled here; the caller's "$@" keeps the rest.
export DRY_RUN="${DRY_RUN:-}"
rest=()
for argument in "$@"; do
  case "$argument" in
    --dry-run) DRY_RUN=1 ;;
    -h | --help)
      awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
      echo "Flags: --dry-run (print the commands only), --help. Variables: scripts/profiles/*.sh, chosen by PROFILE."
      exit 0
      ;;
    *) rest+=("$argument") ;;
  esac
done
set -- ${rest[@]+"${rest[@]}"}

ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)"
cd -- "$ROOT"

export PROFILE="${PROFILE:-demo}"
[ "$PROFILE" != base ] && [ -f "scripts/profiles/$PROFILE.sh" ] || die "there is no profile '$PROFILE', only demo and paper"
source "scripts/profiles/$PROFILE.sh"
source scripts/profiles/base.sh
[ "$PROTOCOL" = paper ] || [ "$PROTOCOL" = ours ] || die "there is no protocol '$PROTOCOL', only ours and paper"
export PROTOCOL
words NAME_LIST "$NAMES"

# Set-up compiles no package: the bytecode is written at the first import, also where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE=
# Where threads wait by spinning, two jobs on the same cores are many times slower than one after the other.
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"
# Keep the memory of large activations when they are freed: new pages for each matrix product cost 5% of a search.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-4294967296}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-4294967296}"

# results_in FOLDER: results go there from here on. Runs with other names or prompts get folders of their own, so that none
# mistakes another's gradients, records or tables for its own.
results_in() {
  export RESULT_DIR="$1"
  RUN_FLAGS=(--device "$DEVICE" --seed "$SEED" --workers "$WORKERS" --precision "$PRECISION" --result-dir "$RESULT_DIR"
    --protocol "$PROTOCOL")
}
results_in "$RESULT_DIR"
RULE_FLAGS=(--max-forget "$MAX_FORGET" --sigmas "$FORGET_SIGMAS")
MODEL_FLAGS=(--model "$MODEL" --pretrained "$PRETRAINED" --batch-size "$BATCH_SIZE")
SD_FLAGS=(--pipeline "$PIPELINE" --clip-model-id "$SD_CLIP" --denoising-steps "$DENOISING_STEPS" --guidance "$GUIDANCE"
  --generate-batch-size "$GENERATE_BATCH")
[ -z "$CLIP_MODEL_ID" ] || MODEL_FLAGS+=(--clip-model-id "$CLIP_MODEL_ID")

# setup.sh finds the Python to use, and makes an environment if there is none.
if [ "${0##*/}" != setup.sh ]; then
  PYTHON="$(bash scripts/setup.sh)"
  export SLUG_PYTHON="$PYTHON"
  export PYTHONPATH="$ROOT/src${PYTHONPATH:+:$PYTHONPATH}" # this clone's code, whichever clone the Python was made for
fi
