"""The explorer: a page on this machine on which edits are tried out, see scripts/run_explorer.sh."""
