#!/usr/bin/env bash
# Runs every command of README, in order: those in code blocks and those that a sentence or a table names. With --dry-run it
# runs their dry runs and --help instead, which takes seconds: that is what the tests do.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"

# Lines of bash blocks, and `...` spans that start with a command (or variables and then one).
commands="$("$PYTHON" - <<'PY'
import re

text = open("README.md", encoding="utf-8").read()
blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", "").splitlines()]
prose = re.sub(r"```.*?```", "", text, flags=re.S)
spans = [re.sub(r"\s+", " ", s) for s in re.findall(r"`([^`]+)`", prose)]
start = re.compile(r"(?:[A-Z_]+=(?:\"[^\"]*\"|'[^']*'|\S+) )*(?:bash|python) (?:scripts|src)/\S+")
found = [line for line in [*lines, *spans] if start.match(line) or line.startswith(("git ", "cd "))]
print("\n".join(dict.fromkeys(found)))
PY
)"
while IFS= read -r line; do
  case "$line" in
    git\ clone* | cd\ *) echo "# skipped: $line" ;; # this is the clone
    *scripts/check_readme.sh*) echo "# skipped: $line" ;;
    *PROFILE=paper* | *MODEL=ViT*)
      [ -n "$DRY_RUN" ] && bash -c "$line --dry-run" || echo "# skipped, needs the paper's data: $line"
      ;;
    *)
      if [ -n "$DRY_RUN" ]; then
        case "$line" in
          *bash\ *) line="$line --dry-run" ;;
          *) line="$(sed -E 's/(python [^ ]+\.py)( .*)?/\1 --help/' <<<"$line") >/dev/null" ;;
        esac
      fi
      echo "\$ $line"
      # `python` in README is the environment's.
      PATH="$(dirname -- "$PYTHON"):$PATH" DRY_RUN='' bash -c "$line" || die "README's command failed: $line"
      ;;
  esac
done <<<"$commands"
