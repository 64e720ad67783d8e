"""What brings a forgotten concept back: the table of back.csv."""

import pandas as pd

from slug import schema
from slug.evaluation.statistics import interval
from slug.reports import caveats, intervals, markdown, naming, rules

LEAST = 0.5  # share of pictures in which the original must show a concept for a way to ask for it to count
ASKING = {"wording": "other wordings", "synonym": "synonyms", "language": "other languages"}  # attacks by words


def report(frame: pd.DataFrame) -> str:
    """Markdown of back.csv: for each kind a table of attempts, with a column for each method.

    A cell is the share of pictures that show the concept, its 95% interval and the counts, over all concepts. Of a concept's
    wordings and words, those count by which the original shows it in LEAST of its pictures; what is left out is said.
    """
    frame = frame.assign(form=frame["form"].fillna(""))
    keys = ["attack", "form", "kind", "name"]
    first = frame[frame["method"] == schema.ORIGINAL].set_index(keys)
    known = (first["shown"] >= LEAST * first["n"]) & (first["n"] > 0)
    asked = frame["attack"].isin(ASKING)
    drawn = frame.set_index(keys).index.map(known.to_dict())
    counts = frame[~asked | (drawn == True)]  # noqa: E712  (an object column with missing values)
    methods = naming.in_order(frame["method"])
    parts = []
    for kind, part in intervals.groups(counts, "kind", sort=False):
        rows = []
        for attack, mine in intervals.groups(part, "attack", sort=False):
            if attack in ASKING:
                rows += _asked(ASKING[attack], mine, methods)
            else:
                rows += [
                    _row(f"{attack} {form}".strip(), own, methods)
                    for form, own in intervals.groups(mine, "form", sort=False)
                ]
        count = part["name"].nunique()
        parts.append(markdown.table(f"{count} {kind}{'s' if count > 1 else ''} | {' | '.join(methods)}", rows))
    said = [*_left_out(frame, first, known), *caveats.black(frame, "{method}, {name}, {attack} {form}"), rules.line(frame)]
    return "\n\n".join([HEAD, *parts, *said])


HEAD = (
    "The share of pictures in which the classifier finds what was forgotten (95% interval; pictures), after each attempt to "
    "bring it back. The strongest is, for each method and concept, the wording or the word that shows it most often. The "
    "original stands beside: what it does not draw nobody can bring back."
)


def _cell(shown: int, n: int) -> str:
    """A share with its interval and counts."""
    low, high = interval(shown, n)
    return f"{shown / n:.1%} ({low:.1%} to {high:.1%}; {shown} of {n})" if n else ""


def _row(label: str, part: pd.DataFrame, methods: list[str]) -> list[str]:
    """A row of a table: counts over concepts and forms."""
    cells = []
    for method in methods:
        mine = part[part["method"] == method]
        cells.append(_cell(int(mine["shown"].sum()), int(mine["n"].sum())) if len(mine) else "")
    return [label, *cells]


def _asked(label: str, part: pd.DataFrame, methods: list[str]) -> list[list[str]]:
    """The rows of an attack by words: all of its forms, and the strongest of each concept."""
    best = part.assign(share=part["shown"] / part["n"].clip(lower=1))
    best = best.sort_values("share", ascending=False, kind="stable").drop_duplicates(["method", "name"])
    count = part[["name", "form"]].drop_duplicates().shape[0]
    return [_row(f"{label} ({count})", part, methods), _row(f"the strongest of the {label}", best, methods)]


def _left_out(frame: pd.DataFrame, first: pd.DataFrame, known: pd.Series) -> list[str]:
    """Sentences on the ways of asking that are in no figure, because the original does not draw the concept by them."""
    said = []
    for attack, label in ASKING.items():
        mine = first[first.index.get_level_values("attack") == attack]
        out = mine[~known[mine.index]]
        if len(out):
            rows = out.reset_index().to_dict("records")
            each = ", ".join(f"{r['name']}: {r['form']} ({r['shown']} of {r['n']})" for r in rows)
            said.append(f"Left out of {label}, {len(out)} of {len(mine)}, which the original does not draw: {each}.")
    without = sorted(set(frame["name"]) - set(frame.loc[frame["attack"] == "synonym", "name"]))
    if without:
        said.append(f"No synonym is known of: {', '.join(without)}.")
    return said
