"""Failures that a user can mend."""


class SlugError(Exception):
    """An expected failure. Its message is one line: what is wrong, and what to do. Stages turn it into exit code 2."""
