"""gateway feedback: what became true of predictions."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Annotated, TextIO

import grpc
import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, show
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Server
from gateway.pb import control_pb2

BATCH = 1000
FIELDS = (
    *("token", "model", "request_id", "row_index", "label", "label_num", "label_text", "reward", "label_time"),
    "source",
)
_TIMEOUT_S = 60.0
Line = tuple[int, control_pb2.FeedbackItem]

app = typer.Typer(no_args_is_help=True, help="Tell the gateway what became true of predictions.")


@app.command(epilog="Example: gateway feedback send flights 7f3a --label 1, or gateway feedback send -f labels.csv")
def send(
    model: Annotated[str, typer.Argument(help="Model that answered; with -f, that of lines without a model.")] = "",
    request_id: Annotated[str, typer.Argument(help="Id of the request.")] = "",
    token: Annotated[str, typer.Option("--token", help="x-gateway-token of the answer, instead of the two.")] = "",
    row: Annotated[int, typer.Option("--row", help="Row of the request's batch.")] = 0,
    label: Annotated[str, typer.Option("--label", help="A number is taken as a number, the rest as text.")] = "",
    text: Annotated[str, typer.Option("--text", help="A label that is text even where it looks like a number.")] = "",
    reward: Annotated[float | None, typer.Option("--reward", help="What the answer was worth.")] = None,
    time: Annotated[str, typer.Option("--time", help="When it became true: ISO 8601 or epoch seconds.")] = "",
    source: Annotated[str, typer.Option("--source", help="Who says so; of every row that names none.")] = "cli",
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", help=f"CSV with a head, or JSON lines (- is JSON lines): {', '.join(FIELDS)}."),
    ] = None,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Send one label or reward, or a file of them. Sending a file again is harmless: a label counts once."""
    if file is not None:
        if request_id or token or label or text or reward is not None:
            raise Failure(Exit.USAGE, "a label in the arguments and -f: give one of the two")
        accepted = _send_file(file, model, source, server)
    else:
        given = {"token": token, "model": model, "request_id": request_id, "row_index": row, "label": label}
        given |= {"label_text": text, "reward": reward, "label_time": time}
        accepted = _send_one({key: value for key, value in given.items() if value not in ("", None)}, source, server)
    show({"accepted": accepted}, output, note=f"{accepted} label{'' if accepted == 1 else 's'} accepted")


def _send_one(fields: Mapping[str, object], source: str, server: str) -> int:
    try:
        return _send([(0, item_of(fields))], source, server)
    except ValueError as error:
        raise Failure(Exit.USAGE, str(error)) from None


def _send_file(path: Path, model: str, source: str, server: str) -> int:
    with _opened(path) as (stream, size_bytes):
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("sending labels", total=size_bytes)
            counted = _Counted(stream, lambda done: progress.update(task, completed=done))
            rows = csv_rows(counted) if path.suffix.lower() == ".csv" else json_rows(counted)
            return _send(_numbered(path, rows, model), source, server)


def _send(lines: Iterable[Line], source: str, server: str) -> int:
    """Returns how many labels were accepted. Raises: Failure naming the refused line and how many came before it."""
    accepted, rest = 0, iter(lines)
    with control(server) as stub:
        while batch := list(islice(rest, BATCH)):
            request = control_pb2.SendFeedbackRequest(items=[item for _, item in batch], source=source)
            try:
                accepted += stub.SendFeedback(request, timeout=_TIMEOUT_S).accepted
            except grpc.RpcError as error:
                raise _refused(error, batch, accepted) from None
    return accepted


def _refused(error: grpc.RpcError, batch: list[Line], accepted: int) -> Failure:
    """Returns the server's words, with the line of the file where they name an item."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = (error.details() if isinstance(error, grpc.Call) else None) or str(error)
    index, closed, rest = text.removeprefix("items[").partition("].")
    if closed and index.isdigit() and int(index) < len(batch):
        number = batch[int(index)][0]
        text = f"line {number}: {rest}" if number else rest
    before = f"{accepted} labels were accepted before; " if accepted else ""
    timed_out = code is grpc.StatusCode.DEADLINE_EXCEEDED
    return Failure(Exit.TIMED_OUT if timed_out else Exit.REFUSED, f"{before}{code.name}: {text}")


class _Counted:
    """Yields the lines of a file and counts how far it has been read."""

    def __init__(self, stream: TextIO, tell: Callable[[int], object]) -> None:
        self._stream = stream
        self._tell = tell
        self._read = 0
        self._told = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._stream:
            self._read += len(line)
            if self._read - self._told > 1 << 16:
                self._tell(self._read)
                self._told = self._read
            yield line


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TextIO, int | None]]:
    """Yields the file and its size, None where it has none. Raises: Failure."""
    if str(path) == "-":
        yield sys.stdin, None
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield stream, path.stat().st_size
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"cannot read {path}: {getattr(error, 'strerror', error)}") from None


def csv_rows(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields line number and fields of every row; empty fields are not given. Raises: ValueError."""
    reader = csv.DictReader(iter(lines), strict=True)
    try:
        for fields in reader:
            if None in fields or None in fields.values():
                raise ValueError(f"line {reader.line_num}: {len(reader.fieldnames or ())} fields are wanted")
            yield reader.line_num, {key: value for key, value in fields.items() if value != ""}
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def json_rows(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields line number and fields of every JSON object; null is not given. Raises: ValueError."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"line {number}: {line.strip()[:40]!r} is no JSON object")
        yield number, {key: value for key, value in fields.items() if value is not None}


def _numbered(path: Path, rows: Iterable[tuple[int, Mapping[str, object]]], model: str) -> Iterator[Line]:
    number = 0
    try:
        for number, fields in rows:
            try:
                yield number, item_of({"model": model, **fields} if model and "token" not in fields else fields)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{path}: {error}") from None
    if not number:
        raise Failure(Exit.USAGE, f"{path}: no labels")


def item_of(fields: Mapping[str, object]) -> control_pb2.FeedbackItem:
    """Returns the message of a row; the server checks its values. Raises: ValueError, Failure."""
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r}: the fields are {', '.join(FIELDS)}")
    item = control_pb2.FeedbackItem()
    for name in ("token", "model", "request_id", "source"):
        if name in fields:
            setattr(item, name, str(fields[name]))
    if "row_index" in fields:
        item.row_index = _whole("row_index", fields["row_index"])
    if "reward" in fields:
        item.reward = _number("reward", fields["reward"])
    if "label_time" in fields:
        item.label_time_us = moment_us(fields["label_time"])
    _set_label(item, fields)
    return item


def _set_label(item: control_pb2.FeedbackItem, fields: Mapping[str, object]) -> None:
    given = [name for name in ("label", "label_num", "label_text") if name in fields]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} are given, one label is wanted")
    if "label_text" in fields:
        item.text = str(fields["label_text"])
    elif "label_num" in fields:
        item.number = _number("label_num", fields["label_num"])
    elif "label" in fields:
        label = fields["label"]
        try:
            if isinstance(label, str) and not isfinite(float(label)):
                raise ValueError
            item.number = _number("label", label)
        except ValueError:
            item.text = str(label)


def moment_us(given: object) -> int:
    """Returns microseconds since the epoch of ISO 8601 (without a zone: UTC) or seconds. Raises: ValueError."""
    try:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return round(given * 1e6)
        text = str(given)
        try:
            return round(float(text) * 1e6)
        except ValueError:
            moment = datetime.fromisoformat(text)
            return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)
    except (ValueError, OverflowError):
        raise ValueError(f"label_time is {given!r}, allowed: ISO 8601 or seconds since the epoch") from None


def _number(name: str, given: object) -> float:
    if isinstance(given, bool):
        return float(given)
    if isinstance(given, int | float | str):
        try:
            return float(given)
        except ValueError:
            pass
    raise ValueError(f"{name} is {given!r}, allowed: a number")


def _whole(name: str, given: object) -> int:
    try:
        value = int(str(given))
        if -(1 << 31) <= value < 1 << 31:
            return value
    except ValueError:
        pass
    raise ValueError(f"{name} is {given!r}, allowed: a whole number from 0 to {(1 << 31) - 1}")
