"""Pictures, pairs, names, evaluation sets and splits, and what makes them."""
