"""Pages from Jinja2 templates. Every value is escaped; no page refers to another file or address."""

import functools
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from slug.errors import SlugError
from slug.reports import naming
from slug.schema import ORIGINAL

WORDS = {  # abbreviations in the heads of tables
    "FA@1": "forget accuracy: the share of pictures of the forgotten name that still get it as the first answer",
    "FA@5": "the same among the first five answers",
    "MIA": "membership inference accuracy: how well a logistic regression on the cosine tells the forget set from other "
    "pictures of the same concept; 50% is chance",
    "other identities @1": "zero-shot accuracy, first answer, on pictures of all other people, characters and animals",
    "other objects @1": "zero-shot accuracy, first answer, on pictures of all other objects",
}


def _template(name: str) -> str | None:
    path = resources.files("slug.reports") / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def explained(head: str) -> Markup:
    """The head of a column, with what its abbreviations stand for."""
    said = str(escape(head))
    for short, long in WORDS.items():
        said = re.sub(rf"^{re.escape(short)}", f'<abbr title="{escape(long)}">{short}</abbr>', said)
    return Markup(said)


def numeric(rows: Sequence[Sequence[str]]) -> set[int]:
    """The columns of a table that hold numbers, or nothing."""
    columns = list(zip(*rows, strict=False))
    number = re.compile(r"[-+\u2212]?[\d.,]+(e[-+]?\d+)?(%|$|[\s(])|-$|\u2013$|at most \d")
    filled = [[str(cell) for cell in column if str(cell)] for column in columns]
    return {i for i, column in enumerate(filled) if i and column and all(map(number.match, column))}


def minus(cell: object) -> str:
    """A cell of a table with true minus signs before its numbers."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "\u2212", str(cell))


def method(name: str) -> str:
    """A method in words."""
    return "unedited model" if name == ORIGINAL else naming.label(name)


def signed(value: float, plus: str = "+") -> str:
    """A number with two digits and a true minus sign; a change has a plus sign as well."""
    return minus(f"{value:{plus}.2f}")


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of this package; a value that is missing is an error."""
    how: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    made = jinja2.Environment(loader=jinja2.FunctionLoader(_template), autoescape=True, **how)
    made.globals |= {f.__name__: f for f in (explained, numeric, signed, minus, method)} | {"words": list(WORDS.items())}
    return made


def render(template: str, **values: Any) -> str:
    """A page."""
    return environment().get_template(template).render(**values)


def unless_missing(make: Callable[[], Any]) -> tuple[Any, str]:
    """(what `make` returns, ""), or (None, why not, in one line) where a file that it reads is missing or damaged."""
    try:
        return make(), ""
    except SlugError as err:
        return None, str(err)
