"""What came out of forgetting by someone's own pictures, from its record: the figures with their intervals, and as text."""

from collections.abc import Mapping
from typing import Any

from slug.reports.verdicts import bound
from slug.schema import AGREEMENT, NAMES, ORIGINAL, PAIRS

Record = Mapping[str, Any]
Row = tuple[str, str, str, str]  # what, before, after, how sure
WORDS = {
    NAMES: "the other names' pictures are recognised",
    AGREEMENT: "same answer as the unedited model",
    PAIRS: "own caption is the nearest one",
}


def words(task: str) -> str:
    """What the accuracy of a retained task is a fraction of."""
    return WORDS.get(task, f"right in {task}")


def tasks(record: Record) -> list[str]:
    """The retained tasks of a record."""
    test = record["splits"]["test"][ORIGINAL]
    return [
        k.removesuffix("_acc1")
        for k in test
        if k.endswith("_acc1") and f"n_{k.removesuffix('_acc1')}" in test and not k.startswith(("forget", "neighbours"))
    ]


def percent(value: float) -> str:
    """A fraction as text."""
    return f"{100 * value:.1f}%"


def _change(row: Mapping[str, Any], task: str) -> str:
    if f"{task}_change" not in row:
        return ""
    change, low, high = (100 * row[f"{task}_change{end}"] for end in ("", "_low", "_high"))
    return f"{change:+.1f} points ({low:+.1f} to {high:+.1f})"


def forget_rows(record: Record) -> list[Row]:
    """The figures of forgetting on the test split, with what they rest on."""
    before, after = (record["splits"]["test"][state] for state in (ORIGINAL, record["method"]))
    n, sources, name = after["n_forget"], after["n_sources"], record["name"]
    rows = [
        (
            f"recognised as {name}, of {n} pictures",
            f"{percent(before['forget_acc1'])} ({before['forget_recognised']})",
            f"{percent(after['forget_acc1'])} ({after['forget_recognised']})",
            bound(after["forget_recognised"], n),
        ),
        (
            f"source images of which a picture is recognised, of {sources}",
            str(before["sources_recognised"]),
            str(after["sources_recognised"]),
            bound(after["sources_recognised"], sources),
        ),
        (f"{name} among the first five answers", percent(before["forget_acc5"]), percent(after["forget_acc5"]), ""),
        (
            f"rank of “{name}” among {after['n_captions']} captions, for its pictures",
            f"{before['rank_of_name']:.0f}",
            f"{after['rank_of_name']:.0f}",
            "median",
        ),
        (
            f"its pictures among the {n} nearest to “{name}”, with {after['n_pictures']} others",
            percent(before["precision_of_name"]),
            percent(after["precision_of_name"]),
            "",
        ),
        ("cosine of its pictures and its name", f"{before['forget_cosine']:.3f}", f"{after['forget_cosine']:.3f}", "mean"),
    ]
    for task, found in after["in_labelled"].items():
        was, correct = before["in_labelled"][task]["acc1"], round(found["acc1"] * found["n"])
        rows.append(
            (
                f"recognised in {task}, of {found['n']} pictures",
                percent(was),
                percent(found["acc1"]),
                bound(correct, found["n"]),
            )
        )
    return rows


def retain_rows(record: Record) -> list[Row]:
    """The figures of retention on the test split."""
    before, after = (record["splits"]["test"][state] for state in (ORIGINAL, record["method"]))
    rows = []
    for task in tasks(record):
        what = f"{words(task)}, of {after[f'n_{task}']} pictures"
        rows.append((what, percent(before[f"{task}_acc1"]), percent(after[f"{task}_acc1"]), _change(after, task)))
    if PAIRS in tasks(record):
        rows.append(("own caption among the five nearest", percent(before["pairs_acc5"]), percent(after["pairs_acc5"]), ""))
    if "neighbours_acc1" in after:
        correct = round(after["neighbours_acc1"] * after["n_neighbours"])
        rows.append(
            (
                f"same answer, of {after['n_neighbours']} pictures taken for one of the ten names nearest to it",
                percent(before["neighbours_acc1"]),
                percent(after["neighbours_acc1"]),
                bound(correct, after["n_neighbours"]),
            )
        )
    rows.append(
        (
            "cosine of pairs",
            f"{before['cosine']:.3f}",
            f"{after['cosine']:.3f}",
            f"mean change {after['cosine'] - before['cosine']:+.3f}",
        )
    )
    return rows


def text(record: Record) -> str:
    """A record in a few lines for a terminal."""
    if "towers" in record:
        return "\n".join(text(own) for own in record["towers"].values())
    before, after = (record["splits"]["test"][state] for state in (ORIGINAL, record["method"]))
    n, hits, layer = after["n_forget"], after["forget_recognised"], record["layer"].removesuffix(".weight")
    by_source = bound(after["sources_recognised"], after["n_sources"])
    said = ", ".join(f"{name} {share:.0%}" for name, share in record["splits"]["test"]["said"])
    lines = [
        f"{record['name']}: {layer}, step {record['step']:.4g} ({record['method']} on {record['model']})",
        f"  recognised {percent(before['forget_acc1'])} -> {percent(after['forget_acc1'])} of {n} test pictures "
        f"({bound(hits, n)}), {after['n_sources']} source images ({by_source})",
        f"  the unedited model says: {said}",
        *(f"  {what}: {was} -> {now}" + (f", {sure}" if sure else "") for what, was, now, sure in retain_rows(record)),
        f"  {record['seconds']:.0f} s, of which {record['search_s']:.0f} s gradients and search",
        *(f"  note: {note}" for note in record["notes"]),
    ]
    return "\n".join(lines)
