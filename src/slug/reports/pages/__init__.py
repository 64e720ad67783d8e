"""HTML pages that need no other file: one of a result folder, one of an edit by someone's own pictures."""
