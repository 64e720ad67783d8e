"""Names: as people write them, and found in captions as whole words."""

import html
import re
import unicodedata


def plain_name(name):
    """A name as people write it: `Elon_Musk` -> `Elon Musk`."""
    return " ".join(name.replace("_", " ").split())


MOST_SCREENED = 200  # names


BETWEEN_WORDS = re.compile(r"[\W_]+")  # \w is what str.isalnum calls a letter or digit, and `_`


def _folded(text):
    """NFKC and casefold, every run of characters that are no letter or digit turned into a space, one space each side."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return f" {BETWEEN_WORDS.sub(' ', text).strip()} "


class Matcher:
    """Finds names in captions as whole words (PAPER.md, section 3): NFKC and casefold, `_`, `-` and space alike.

    Args:
        names: the names looked for.
        known: other names; where one of these contains a looked-for name, the longest wins, so that `tropical fish` is
            no `fish`.
    """

    def __init__(self, names, known=()):
        self.names = {_folded(n): n for n in names}
        longer = [_folded(k) for k in known]
        # For each name: the known names that hide it wherever they stand.
        self.hiding = {f: sorted((k for k in longer if f in k and k != f), key=len, reverse=True) for f in self.names}
        self.order = {f: i for i, f in enumerate(self.names)}
        self.by_first_word = {}  # so that a caption costs the same with ten thousand names as with one
        for folded in self.names:
            for word in folded.split()[:1]:
                self.by_first_word.setdefault(word, []).append(folded)

    def find(self, caption):
        """The looked-for names that stand in a caption, as they were given and in that order."""
        text = _folded(caption)
        started = {f for word in text.split() for f in self.by_first_word.get(word, ())}
        found = []
        for folded in sorted((f for f in started if f in text), key=self.order.__getitem__):
            shown = text
            for hidden in self.hiding[folded]:
                while hidden in shown:  # again: two in a row share the space between them
                    shown = shown.replace(hidden, " | ")  # a mark, so that what stood around it does not join
            if folded in shown:
                found.append(self.names[folded])
        return found

    def screen(self):
        """A RE2 pattern, as Arrow takes it: it matches every caption that `find` finds a name in, and few others.

        A caption within ASCII is folded by lower case alone, so the pattern decides it (but for hidden names); any other one
        matches, since folding may turn its characters into anything. None where the names are so many that `find` itself is
        faster than the pattern, whose automaton outgrows RE2's memory.
        """
        if len(self.names) > MOST_SCREENED:
            return None
        words = [r"[^a-z0-9]+".join(folded.split()) for folded in self.names if folded.isascii() and folded.strip()]
        # (?i:) must not reach the first part: there it would let the long s and the Kelvin sign pass for ASCII.
        named = rf"|(?i:(?:^|[^a-z0-9])(?:{'|'.join(words)})(?:[^a-z0-9]|$))" if words else ""
        return rf"[^\x00-\x7f]{named}"


def clean_name(name):
    """An identity as people write it: `Chris_Evans_(actor)` -> `Chris Evans`.

    NFKC; HTML entities resolved; what stands in brackets and characters that do not show left out; then `plain_name`.
    """
    text = unicodedata.normalize("NFKC", html.unescape(name))
    text = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text)
    return plain_name("".join(c for c in text if unicodedata.category(c)[0] != "C"))
