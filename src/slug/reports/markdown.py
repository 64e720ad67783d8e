"""Markdown: tables, marked blocks of a document, and writing a report."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from slug import files
from slug.errors import SlugError


def table(heads: str, rows: Iterable[str | Sequence[object]]) -> str:
    """A Markdown table. The cells of a line are separated by ` | `, or given one by one."""
    lines = [heads, "", *(row if isinstance(row, str) else " | ".join(map(str, row)) for row in rows)]
    made = [f"| {line} |" for line in lines]
    made[1] = "|---" * len(heads.split(" | ")) + "|"
    return "\n".join(made)


class Table(NamedTuple):
    """A table by its cells, which a report writes as Markdown and a page as HTML."""

    heads: list[str]
    rows: list[list[str]]

    @property
    def text(self) -> str:
        """As Markdown."""
        return table(" | ".join(self.heads), self.rows)


def figure(what: str, path: str, caption: str) -> str:
    """A picture with a caption below it, which a reader sees; `what` is shown where the picture is not."""
    return f"![{what}]({path})\n\n*{caption}*"


def update_block(text: str, key: str, content: str) -> str:
    """`text` with `content` between `<!-- key -->` and `<!-- /key -->`. SlugError if the marks are missing."""
    pattern = re.compile(rf"(<!-- {key} -->\n).*?(<!-- /{key} -->)", re.S)
    if not pattern.search(text):
        raise SlugError(f"there is no <!-- {key} --> ... <!-- /{key} --> to fill; add both marks")
    return pattern.sub(lambda m: f"{m[1]}{content}\n{m[2]}", text)


def fill_blocks(path: str | Path, blocks: dict[str, str]) -> None:
    """`update_block` for each {key: content} in a Markdown file. SlugError if the file or a mark is missing."""
    found = files.existing(path, "README", "give --readme")
    text = found.read_text(encoding="utf-8")
    for key, content in blocks.items():
        text = update_block(text, key, content)
    files.write_text(found, text)


def publish(path: Path, text: str, key: str, readme: str = "", quoted: str = "") -> None:
    """Write a report, print it, and fill the block `key` of the Markdown file `readme`, if one is given.

    Args:
        quoted: the block's text if it differs from `text`: its links start from the readme's folder.
    """
    files.write_text(path, text + "\n")
    print(text)
    if readme:
        fill_blocks(readme, {key: quoted or text})
