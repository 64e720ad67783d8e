"""What edits are scored by: tasks, prompts, questions, and the statistics of their figures."""
