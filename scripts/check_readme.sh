#!/usr/bin/env bash
# Runs every command of README and docs/ in order: those in code blocks and those named in sentences and tables. With --dry-run, as the
# tests call it, it runs their dry runs and --help instead, which takes seconds.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
no_more_arguments "$@"

commands="$("$PYTHON" scripts/tools/readme_commands.py)"
while IFS=$'\t' read -r chapter line; do
  if [ "$chapter" = "Real data" ] && [[ -z "$DRY_RUN" || "$line" = "python -m "* || "$line" = *" --dry-run" ]]; then
    echo "# skipped, scripts/run_standin.sh runs this chapter: $line"
    continue
  fi
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
      # `python` in the documents is the environment's.
      PATH="$(dirname -- "$PYTHON"):$PATH" DRY_RUN='' bash -c "$line" || die "a command of the documents failed: $line"
      ;;
  esac
done <<<"$commands"
