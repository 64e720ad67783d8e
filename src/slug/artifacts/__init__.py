"""Formats on disk: gradient files, deltas, adapters, cards, records."""
