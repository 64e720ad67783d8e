"""The one kind of failure that users are meant to see."""


class SlugError(Exception):
    """An expected failure: one line that says what is wrong and what to do. Stages print it and exit with code 2."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(str(text).split()))  # a library's message may have several lines


def brief(err: object, limit: int = 200) -> str:
    """The message of a library's error, as one line of at most `limit` characters."""
    return " ".join(str(err).split())[:limit]
