#!/usr/bin/env bash
# Finds or makes a Python environment with the locked packages (scripts/constraints.txt) and prints the path of its Python;
# everything else goes to stderr. Takes SLUG_PYTHON (a python) if it is set, else the active venv or conda environment if that
# holds the packages, else .venv in the repository, made from Python 3.11 or 3.12. A second call returns at once. pip's own
# settings (PIP_*) apply. --notebooks installs the notebooks' packages as well and says how to start; --docs those of the site.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
LOCK=scripts/constraints.txt
EXTRAS=demo,diffusion,download,vlm,dev # what the demo and the tests need
more=""
while [ "${1:-}" = --notebooks ] || [ "${1:-}" = --docs ]; do
  more+=",${1#--}"
  shift
done
no_more_arguments "$@"
exec 3>&1 1>&2

use() {
  [[ "$more" != *notebooks* ]] || echo "notebooks: $1 -m jupyterlab notebooks"
  echo "$1" >&3
  exit 0
}

# lacks PYTHON: the first package of pyproject.toml that it does not hold in the locked version; nothing if it has them all.
lacks() {
  "$1" - "$LOCK" "$EXTRAS$more" 2>/dev/null <<'PY' || echo "a Python 3.11 or 3.12 that runs"
import re, sys, tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

if sys.version_info[:2] not in ((3, 11), (3, 12)):
    sys.exit(1)
lock, extras = sys.argv[1:]
project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = project["dependencies"] + [r for e in extras.split(",") for r in project["optional-dependencies"][e]]
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
locked = {plain(line.split("==")[0]): line.strip() for line in Path(lock).read_text().splitlines() if "==" in line}
for requirement in wanted:
    pin = locked[plain(re.match(r"[\w.-]+", requirement)[0])]
    name, tested = pin.split("==")
    try:
        found = version(name).split("+")[0]  # 2.13.0+cpu is 2.13.0
    except PackageNotFoundError:
        found = None
    if found != tested:
        print(pin)
        break
PY
}

# stamp PYTHON: what an installation depends on.
stamp() {
  "$1" - "$ROOT" pyproject.toml "$LOCK" 2>/dev/null <<'PY'
import hashlib, sys
from pathlib import Path

content = b"".join(Path(path).read_bytes() for path in sys.argv[2:])
print(sys.version.split()[0], hashlib.sha256(content).hexdigest(), sys.argv[1])
PY
}

base_python() {
  local candidate
  for candidate in python3 python3.11 python3.12 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "Python 3.11 or 3.12 is needed, and python3 is $(python3 -V 2>/dev/null || echo absent);" \
    "install one, or use conda (environment.yml)"
}

venv="$ROOT/.venv"
python="$venv/bin/python"

[ -z "$DRY_RUN" ] || [ "${SLUG_PYTHON:-}" != "$python" ] || use "$python" # a dry run names it before it is there
if [ -n "${SLUG_PYTHON:-}" ]; then
  missing="$(lacks "$SLUG_PYTHON")"
  [ -z "$missing" ] || die "SLUG_PYTHON ($SLUG_PYTHON) lacks $missing; install it there, or unset SLUG_PYTHON"
  use "$SLUG_PYTHON"
fi
for prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
  if [ -n "$prefix" ] && [ "$prefix" != "$venv" ]; then
    missing="$(lacks "$prefix/bin/python")"
    [ -n "$missing" ] || use "$prefix/bin/python"
    echo "note: the active environment $prefix lacks $missing; taking $venv instead"
  fi
done
if [ -f "$venv/slug-stamp" ] && [ "$(stamp "$python")" = "$(cat "$venv/slug-stamp")" ] &&
  { [ -z "$more" ] || [ -z "$(lacks "$python")" ]; }; then
  use "$python"
fi

# quiet COMMAND...: run it with its output in the log; its last lines are shown if it fails.
log="$venv/setup.log"
quiet() {
  if [ -n "$DRY_RUN" ]; then
    run "$@"
  elif ! "$@" >>"$log" 2>&1; then
    tail -n 20 "$log"
    die "this command failed, and $log holds all that it said: $*"
  fi
}

[ -n "$DRY_RUN" ] || rm -f "$venv/slug-stamp"
if ! "$python" -m pip --version >/dev/null 2>&1; then
  base="$(base_python)"
  run "$base" -m venv --clear "$venv" || die "$base -m venv failed; on Debian and Ubuntu: apt install python3-venv"
fi
if [ -z "$DRY_RUN" ]; then
  rm -f "$log"
  echo "set-up: installing the packages into $venv; one to three minutes, said in $log"
fi
# Without --no-compile pip would compile every module of every package, which takes longer than to unpack them all.
install=("$python" -m pip install --no-input --disable-pip-version-check --no-compile -c "$LOCK")
quiet "${install[@]}" torch                 # first, so that nothing below asks for another build of it
quiet "${install[@]}" --no-deps torchvision # a CUDA build: without its dependencies it keeps torch as it is
quiet "${install[@]}" -e ".[$EXTRAS$more]"
quiet "$python" -c 'import slug.torchvision_cpu, open_clip'
if [ -z "$DRY_RUN" ]; then
  stamp "$python" >"$venv/slug-stamp"
  echo "set-up: $SECONDS s"
fi
use "$python"
