#!/usr/bin/env bash
# Make .venv in the repository from nothing but Python 3.11 or 3.12; a second call returns at once.
# Makes nothing where an environment holds the pinned packages: SLUG_PYTHON (a python), else the active venv or conda
# environment. Prints the path of the Python to use; everything else goes to stderr. pip's own settings (PIP_*) hold.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"
exec 3>&1 1>&2

use() {
  echo "$1" >&3
  exit 0
}

# lacks PYTHON: the first pinned requirement it does not hold; nothing if it has them all.
lacks() {
  "$1" - 2>/dev/null <<'PY' || echo "a Python 3.11 or 3.12 that runs"
import sys, tomllib
from importlib.metadata import PackageNotFoundError, version

if sys.version_info[:2] not in ((3, 11), (3, 12)):
    sys.exit(1)
with open("pyproject.toml", "rb") as f:
    project = tomllib.load(f)["project"]
for pin in project["dependencies"] + project["optional-dependencies"]["dev"]:
    name, wanted = pin.split("==")
    try:
        found = version(name).split("+")[0]  # 2.13.0+cpu is 2.13.0
    except PackageNotFoundError:
        found = None
    if found != wanted:
        print(pin)
        break
PY
}

# stamp PYTHON: what an installation depends on.
stamp() {
  "$1" - "$ROOT" 2>/dev/null <<'PY'
import hashlib, pathlib, sys

print(sys.version.split()[0], hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes()).hexdigest(), sys.argv[1])
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

# pin PACKAGE: its requirement as pyproject.toml states it.
pin() { sed -n "s/^ *\"\($1==[^\"]*\)\".*/\1/p" pyproject.toml; }

venv="$ROOT/.venv"
python="$venv/bin/python"

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
if [ -f "$venv/slug-stamp" ] && [ "$(stamp "$python")" = "$(cat "$venv/slug-stamp")" ]; then
  use "$python"
fi

[ -n "$DRY_RUN" ] || rm -f "$venv/slug-stamp"
if ! "$python" -m pip --version >/dev/null 2>&1; then
  base="$(base_python)"
  run "$base" -m venv --clear "$venv" || die "$base -m venv failed; on Debian and Ubuntu: apt install python3-venv"
fi
install=("$python" -m pip install --no-input --disable-pip-version-check)
run "${install[@]}" "$(pin torch)"                  # first, so that nothing below asks for another build of it
run "${install[@]}" --no-deps "$(pin torchvision)"  # a CUDA build: without its dependencies it keeps torch as it is
run "${install[@]}" -e '.[dev]'
run "$python" -c 'import slug.torchvision_cpu, open_clip' || die "the packages are installed in $venv but do not import"
if [ -z "$DRY_RUN" ]; then
  stamp "$python" >"$venv/slug-stamp"
  echo "set-up took $SECONDS s -> $venv"
fi
use "$python"
