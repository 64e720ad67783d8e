"""What came out for each forgotten name, and the verdict over all of them in a sentence, by the targets of the protocol."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from slug import schema
from slug.evaluation.statistics import interval
from slug.reports import clip_tables, intervals
from slug.settings import MAX_FORGET

REACHED, MISSED, OPEN, NOTHING = "reached", "not reached", "not resolved", "nothing to forget"


class Outcome(NamedTuple):
    """What came out for a name on the test split.

    `status` is one of this module's; `why` says what is wrong with the name, empty where all targets are reached.
    """

    name: str
    status: str
    why: str
    pictures: int
    before: int  # recognised pictures
    after: int
    sources: int  # source images; 0 where the record does not say

    @property
    def by_pictures(self) -> str:
        """The 95% bound of what is still recognised, by pictures."""
        return bound(self.after, self.pictures)

    @property
    def by_sources(self) -> str:
        """The same by source images; known where none of their pictures is recognised."""
        return bound(0, self.sources) if self.after == 0 and self.sources else ""


def bound(correct: int, total: int) -> str:
    """The 95% interval (Clopper-Pearson) of a fraction as text; of none the one-sided upper bound."""
    low, high = interval(correct, total)
    return f"at most {high:.1%}" if correct == 0 else f"{low:.1%} to {high:.1%}"


def limit(record: Mapping[str, Any]) -> float:
    """The share of a name's pictures that may still be recognised."""
    rule = record.get("rule")
    found = rule.get("max_forget") if isinstance(rule, dict) else None
    return float(found) if isinstance(found, (int, float)) else MAX_FORGET


def outcome(record: Mapping[str, Any]) -> Outcome:
    """What came out for the name of one of SLUG's records."""
    before, after = (record["splits"]["test"][state] for state in (schema.ORIGINAL, record["method"]))
    n = int(after["n_forget"])
    was, now = round(before["forget_acc1"] * n), round(after["forget_acc1"] * n)
    sources, caveat = int(after.get("n_drawings") or 0), record.get("caveat") or ""
    wrong, unsure = list[str](), list[str]()
    if now > limit(record) * n:
        wrong.append(f"{now} of {n} test pictures are still recognised ({now / n:.1%}, 95% interval {bound(now, n)})")
    elif caveat:
        wrong.append(caveat)
    for task, margin in clip_tables.MARGINS.items():
        change, low, high = intervals.ends(after, task)
        if math.isnan(change):
            continue
        said = (
            f"{change:+.2f} points on other {task} (95% interval {low:+.2f} to {high:+.2f}; target: at most {margin} lost)"
        )
        {"beyond": wrong, "not resolved": unsure}.get(intervals.verdict(after, task, margin), []).append(said)
    status = NOTHING if not was or caveat.startswith("nothing") else MISSED if wrong else OPEN if unsure else REACHED
    why = (
        caveat or f"none of its {n} test pictures was recognised before" if status == NOTHING else "; ".join(wrong + unsure)
    )
    return Outcome(record["name"], status, why, n, was, now, sources)


class Verdict(NamedTuple):
    """The verdict in a sentence, the counts that it rests on, and what is wrong, name by name."""

    sentence: str
    counts: str
    wrong: list[tuple[str, str, str]]  # name, status, why

    def text(self) -> str:
        """For a terminal."""
        return "\n".join([f"verdict: {self.sentence} {self.counts}", *(f"  {n}: {s}: {why}" for n, s, why in self.wrong)])


def verdict(records: Iterable[Mapping[str, Any]]) -> Verdict:
    """The verdict over SLUG's records of a folder."""
    slugs = [r for r in records if schema.is_slug(r["method"])]
    found = [outcome(r) for r in slugs]
    if not found:
        return Verdict("No name was forgotten by SLUG: there is no record of it here.", "", [])
    share = max(limit(r) for r in slugs)
    lost = " and ".join(f"{margin} point{'s' * (margin != 1)} on other {t}" for t, margin in clip_tables.MARGINS.items())
    reached = [o.name for o in found if o.status == REACHED]
    sentence = f"{len(reached)} of {_names(len(found))} reached every target"
    others = [f"{_listed(n)} {word}" for word, n in _by_status(found)]
    sentence += f"; {'; '.join(others)}." if others else "."
    sentence += (
        f" The targets, on test pictures: at most {share:.0%} of a name's pictures still recognised, at most {lost} lost."
    )
    return Verdict(sentence, _counts(found), [(o.name, o.status, o.why) for o in found if o.status != REACHED])


def _names(count: int) -> str:
    return f"{count} name{'s' * (count != 1)}"


def _listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a sentence; of very many the first ones and how many more there are."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def _by_status(found: Sequence[Outcome]) -> Iterable[tuple[str, list[str]]]:
    words = {
        MISSED: "did not",
        OPEN: "cannot be judged by so few pictures",
        NOTHING: "had nothing to forget, for the unedited model did not recognise the pictures",
    }
    for status, word in words.items():
        names = [o.name for o in found if o.status == status]
        if names:
            yield word, names


def _counts(found: Sequence[Outcome]) -> str:
    """How many pictures are still recognised, over all names, with bounds by pictures and by source images."""
    was, now, n = (sum(getattr(o, c) for o in found) for c in ("before", "after", "pictures"))
    by_name = [interval(o.after, o.pictures)[1] for o in found]
    said = f"Of {n} test pictures the unedited model recognises {was} and the edited ones {now} "
    said += f"({bound(now, n)} with 95% confidence"
    sources = sum(o.sources for o in found)
    if now == 0 and sources:
        said += f"; {bound(0, sources)} by their {sources} source images, which are the independent ones"
    single = " For a single name" if len(found) > 1 else ""
    return said + ")." + (f"{single} the bound is {max(by_name):.1%} at the worst." if single else "")
