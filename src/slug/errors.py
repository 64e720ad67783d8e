"""The one kind of failure that users are meant to see."""


class SlugError(Exception):
    """An expected failure: one line that says what is wrong and what to do. Stages print it and exit with code 2."""

    def __init__(self, text):
        super().__init__(" ".join(str(text).split()))  # what a library says may have lines of its own
