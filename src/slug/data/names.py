"""Names: how people write them, and how they are found in captions as whole words."""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

from slug import files, progress
from slug.files import checked_name, name_stem, plain_name

__all__ = ["Matcher", "checked_name", "clean_name", "distinct", "name_stem", "plain_name", "read_aliases"]

MOST_SCREENED = 200  # names; a pattern of more would outgrow RE2's memory
BETWEEN_WORDS = re.compile(r"[\W_]+")  # \w is a letter or digit as str.isalnum knows them, or `_`


def clean_name(name: str) -> str:
    """An identity of CelebA's list as people write it: `Chris_Evans_(actor)` -> `Chris Evans`.

    Applies NFKC, resolves HTML entities, and removes text in brackets and invisible characters.
    """
    text = unicodedata.normalize("NFKC", html.unescape(name))
    text = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text)
    return plain_name("".join(c for c in text if unicodedata.category(c)[0] != "C"))


def _folded(text: str) -> str:
    """NFKC and casefold; each run of characters other than letters and digits becomes one space, with one at either end."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return f" {BETWEEN_WORDS.sub(' ', text).strip()} "


def distinct(names: Iterable[str]) -> list[str]:
    """Names without those that say the same as an earlier one: they would find the same captions. Each is told.

    SlugError for what is no name.
    """
    found: dict[str, str] = {}
    for name in map(checked_name, names):
        first = found.setdefault(_folded(name), name)
        if first != name:
            progress.write(f"note: {name!r} and {first!r} are two spellings of one name; {first!r} is taken")
    return list(found.values())


class Matcher:
    """Finds names in captions as whole words, in any case, with `_`, `-` and space alike (after NFKC and casefold).

    Where one of all `known` names contains a name looked for, the longest one counts: `tropical fish` is no `fish`.
    """

    def __init__(self, names: Iterable[str], known: Iterable[str] = ()) -> None:
        self.names = {_folded(n): n for n in names}
        longer = [_folded(k) for k in known]
        # For each name: the longer names that hide it, the longest first.
        self.hiding = {f: sorted((k for k in longer if f in k and k != f), key=len, reverse=True) for f in self.names}
        self.order = {f: i for i, f in enumerate(self.names)}
        self.by_first_word: dict[str, list[str]] = {}  # makes a caption cost the same with ten thousand names as with one
        for folded in self.names:
            for word in folded.split()[:1]:
                self.by_first_word.setdefault(word, []).append(folded)

    def find(self, caption: str) -> list[str]:
        """The names in a caption, spelled and ordered as they were given."""
        text = _folded(caption)
        started = {f for word in text.split() for f in self.by_first_word.get(word, ())}
        found = []
        for folded in sorted((f for f in started if f in text), key=self.order.__getitem__):
            shown = text
            for hidden in self.hiding[folded]:
                while hidden in shown:  # repeatedly: two in a row share the space between them
                    shown = shown.replace(hidden, " | ")  # a mark that keeps the words on either side apart
            if folded in shown:
                found.append(self.names[folded])
        return found

    def screen(self) -> str | None:
        """An RE2 pattern for Arrow that passes every caption with a name, and few others; None for too many names.

        Lower case folds an ASCII caption fully, so the pattern is exact for it, except for hidden names. Folding may turn
        other characters into anything, so every caption with one of them passes.
        """
        if len(self.names) > MOST_SCREENED:
            return None
        words = [r"[^a-z0-9]+".join(folded.split()) for folded in self.names if folded.isascii() and folded.strip()]
        # (?i:) must not include the first alternative: it would count the long s and the Kelvin sign as ASCII.
        named = rf"|(?i:(?:^|[^a-z0-9])(?:{'|'.join(words)})(?:[^a-z0-9]|$))" if words else ""
        return rf"[^\x00-\x7f]{named}"


def read_aliases(paths: Sequence[str]) -> dict[str, list[str]]:
    """{name, casefolded: its aliases} from CSVs with the columns name and alias."""
    found: dict[str, list[str]] = {}
    for given in paths:
        path = files.existing(given, "CSV of aliases", "give --aliases, or leave it out")
        for row in files.read_csv(path, ("name", "alias"), "it needs the columns name and alias"):
            if row["alias"].strip():
                found.setdefault(plain_name(row["name"]).casefold(), []).append(row["alias"].strip())
    return found
