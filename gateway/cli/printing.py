"""The output of a command: a table for people, YAML or JSON for machines.

In tables every character of foreign texts (reasons, errors, names) that could steer a terminal is escaped.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from unicodedata import category

import msgspec
import yaml
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.page.message_values import Value

READABLE_WIDTH = 24  # a column is not squeezed to less
_PIPE_WIDTH = 10_000
_STEERING = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class Format(StrEnum):
    """The choices of -o."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def show(
    value: Value,
    form: Format,
    *,
    columns: Sequence[str] = (),
    rows: Iterable[Sequence[Value]] = (),
    note: str | Iterable[str] = "",
) -> None:
    """Prints `value` for machines, or `rows` under `columns` and then the lines of `note` for people."""
    if form is Format.JSON:
        _write(to_json(value, indent=2))
    elif form is Format.YAML:
        _write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())
    else:
        if columns:
            out = console()
            out.print(table(columns, rows, out))
        for text in [note] if isinstance(note, str) and note else note:
            _write(printable(text))


def counted(number: int, noun: str) -> str:
    """Returns the number and the noun, in the plural unless there is one of it: "1 worker", "2 workers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Returns the text with control, formatting and unassigned characters as escapes, so that it stays on its line."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or category(character) == "Zs"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def to_json(value: Value, *, indent: int = 0) -> str:
    """Returns the value as JSON, on one line unless `indent` says otherwise; NaN and infinities are null.

    Characters that could steer a terminal are escapes, as JSON has them, beyond those that JSON asks for.
    """
    text = msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def say(text: str) -> None:
    """Prints a line on standard error, where it does not mix with data."""
    sys.stderr.write(printable(text) + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")  # not by rich, which takes :bug: for a name


def console() -> Console:
    """Returns standard output. A pipe has no width: lines that a program reads are not folded to 80 columns."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def table(columns: Sequence[str], rows: Iterable[Sequence[Value]], out: Console) -> RenderableType:
    """Returns the rows under their columns, as wide as `out` at most.

    1. If all columns fit, nothing is folded.
    2. Otherwise the columns wider than READABLE_WIDTH share the remaining width and fold their texts.
    3. If even that does not fit, each row is a block of its own, with a line for each column that is not empty.
    """
    cells = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    needs = [max(len(name), *(Text(row[place]).cell_len for row in cells), 0) for place, name in enumerate(columns)]
    left = out.width - 3 * (len(columns) - 1)
    widths = _fitted(needs, left)
    if widths is None:
        return _blocks(columns, cells)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, width in zip(columns, widths, strict=True):
        made.add_column(name, overflow="fold", width=width)
    for row in cells:
        # Text, not a string: what a server or a document says is no markup.
        made.add_row(*(Text(cell) for cell in row))
    return made


def _fitted(needs: Sequence[int], left: int) -> list[int] | None:
    """Returns the widths of columns that need these; None if the remaining width is too small to read them in."""
    for widest in range(max(needs), READABLE_WIDTH - 1, -1):
        widths = [min(need, widest) for need in needs]
        if sum(widths) <= left:
            return widths
    return list(needs) if sum(needs) <= left else None


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Group:
    blocks: list[RenderableType] = []
    for row in rows:
        if blocks:
            blocks.append(Text(""))
        block = Table.grid(padding=(0, 2))
        block.add_column(width=max(map(len, columns)))
        block.add_column(overflow="fold")
        for name, cell in zip(columns, row, strict=True):
            if cell:
                block.add_row(Text(name), Text(cell))
        blocks.append(block)
    return Group(*blocks)


def line(value: Value, form: Format) -> None:
    """Writes `value` at once, as one line of JSON or one document of a YAML stream."""
    text = to_json(value)
    if form is Format.YAML:
        text = "---\n" + yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
