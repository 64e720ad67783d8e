"""The one kind of failure that users are meant to see."""


class SlugError(Exception):
    """An expected failure: one line that says what is wrong and what to do. Stages print it and exit with code 2."""

    def __init__(self, text):
        super().__init__(" ".join(str(text).split()))  # what a library says may have lines of its own


def brief(err, limit=200):
    """What a library's error says, as one line of at most `limit` characters."""
    return " ".join(str(err).split())[:limit]
