"""Names that a forgotten one competes with, where nobody gives them: ImageNet's classes and proper names in captions."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from slug.data.names import plain_name

MOST = 1000  # proper names that are taken from captions, the commonest first
WORD = re.compile(r"[^\W\d_][\w'’-]*")
# Words that are written with a capital without being names, at the beginning of captions and of what follows a full stop.
PLAIN = frozenset(
    "a an the this that these those my your his her our their its it i we you he she they in on at of for from by with to "
    "and or no not new old free best top how what when where who why all more most photo picture image illustration "
    "vector stock poster print art cover wallpaper buy shop download".split()
)


def proper_names(captions: Iterable[str]) -> list[str]:
    """Proper names in captions, the commonest first: words with a capital that follow each other, up to four.

    The first word of a caption is no sign of a name by itself, and captions in capitals or with a capital in every word are
    left out: they do not say which words are names.
    """
    counts: Counter[str] = Counter()
    for caption in captions:
        words = list(WORD.finditer(caption))
        if not any(w[0].islower() and w[0] not in PLAIN for w in words):
            continue
        run: list[str] = []
        for i, word in enumerate(words):
            large = word[0][0].isupper() and word[0].lower() not in PLAIN
            follows = bool(run) and caption[words[i - 1].end() : word.start()] in (" ", "-")
            if run and not (large and follows):
                counts.update(_name(run, first=i == len(run)))
                run = []
            run = [*run, word[0]] if large else []
        counts.update(_name(run, first=len(words) == len(run)))
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST]]


def _name(words: Sequence[str], *, first: bool) -> list[str]:
    """A run of words with capitals, where it reads as a name; `first`: it begins the caption."""
    return [" ".join(words)] if 0 < len(words) <= 4 and not (first and len(words) == 1) else []


def competing(names: Sequence[str], classes: Iterable[str]) -> list[str]:
    """The class names of an evaluation: the forgotten names first, then others, none twice in any case or spelling."""
    seen: dict[str, str] = {}
    for name in map(plain_name, (*names, *classes)):
        if name:
            seen.setdefault(name.casefold(), name)
    return list(seen.values())


def default(captions: Iterable[str]) -> list[str]:
    """ImageNet's class names as open_clip says them, and the proper names in captions."""
    from slug.data.evaluation_sets import imagenet_names

    return [*imagenet_names().values(), *proper_names(captions)]
