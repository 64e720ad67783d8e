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
    slug\ *) # needs pictures of one's own
      [ -n "$DRY_RUN" ] || { echo "# skipped, needs your own pictures: $line" && continue; }
      echo "\$ $line"
      "$PYTHON" -m slug "$(cut -d' ' -f2 <<<"$line")" --help >/dev/null || die "a command of the documents failed: $line"
      ;;
    *scripts/setup.sh*) # it looks for an environment by itself
      echo "\$ $line"
      SLUG_PYTHON='' bash -c "$line ${DRY_RUN:+--dry-run}" || die "a command of the documents failed: $line"
      ;;
    *scripts/run_explorer.sh*) # a page that stays open
      [ -n "$DRY_RUN" ] && bash -c "${line%% --model-dir MODEL*} --dry-run" || echo "# skipped, opens a page: $line"
      ;;
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
