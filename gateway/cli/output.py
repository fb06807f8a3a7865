"""What a command prints: a table for people, YAML or JSON for machines."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Value = str | int | float | bool | None | Sequence["Value"] | Mapping[str, "Value"]


class Format(StrEnum):
    """The choices of -o."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def show(
    value: Value, form: Format, *, columns: Sequence[str] = (), rows: Iterable[Sequence[Value]] = (), note: str = ""
) -> None:
    """`value` is printed for machines, or `rows` under `columns` and then `note` for people."""
    if form is Format.JSON:
        _write(to_json(value, indent=2))
    elif form is Format.YAML:
        _write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())
    else:
        if columns:
            _table(columns, rows)
        if note:
            _write(note)


def to_json(value: Value, *, indent: int = 0) -> str:
    """The value as JSON, on one line unless `indent` says otherwise; what is no finite number is null."""
    return msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()


def say(text: str) -> None:
    """`text` is a line on standard error, where it does not mix with data."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def moment(microseconds: int) -> str:
    """A point in time since the epoch as ISO 8601 in UTC, to the millisecond."""
    if not microseconds:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _write(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
    console().print(table(columns, rows), markup=False)


def console() -> Console:
    """Standard output. A pipe has no width of its own: lines that a program reads are not folded to 80 columns."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=400)


def table(columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> Table:
    """The rows under their columns, as people read them."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        # Text, not a string: what a server or a document says is no markup.
        made.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return made


def line(value: Value, form: Format) -> None:
    """`value` is one line of JSON, or one document of a YAML stream, written at once."""
    text = to_json(value)
    if form is Format.YAML:
        text = "---\n" + yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
