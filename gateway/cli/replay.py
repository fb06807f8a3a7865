"""gateway replay: what another version would have answered to the requests that are in the log."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli.exits import Exit, Failure
from gateway.cli.extra import analysis
from gateway.cli.printing import Format, say, show
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DataDir, Model, Output
from gateway.cli.written_file import check_place, write_file
from gateway.errors import InvalidArgument
from gateway.page.message_values import Value, moment
from gateway.replay.replay_question import MOST_ROWS, REPLAY_PROCESS, ReplayMessage, ReplayQuestion, RerunQuestion
from gateway.replay.replay_report import LOGGED, MISSING, ReplayReport, replay_verdict
from gateway.replay.served_repository import served_repository

if TYPE_CHECKING:
    from collections.abc import Callable

Repository = Annotated[
    str, typer.Option("--model-repository", help="Its URI; else that of the gateway that runs on the data directory.")
]
Version = Annotated[str, typer.Option("--version", help="The version to try.")]


def replay(
    model: Model,
    version: Version,
    against: Annotated[
        str, typer.Option("--against", help=f"The version to compare with, or {LOGGED}: what was answered then.")
    ] = LOGGED,
    window: Annotated[str, typer.Option("--window", help="START..END (without END), a date, or the last 1d.")] = "1d",
    where: Annotated[str, typer.Option("--where", help="An SQL condition on the rows, for example arm = 'b'.")] = "",
    rows: Annotated[
        int,
        typer.Option("--rows", help="At most; of more, whole requests are drawn.", min=1, max=MOST_ROWS),
    ] = 10_000,
    by: Annotated[str, typer.Option("--by", help="A column of the log: the report has a line for each value.")] = "",
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", help="Without classes, how far a score may move, in parts of its range.", min=0.0, max=1.0
        ),
    ] = 0.01,
    fail_above: Annotated[
        str, typer.Option("--fail-above", help="End with 1 if more rows than this change, or none was replayed: 1%.")
    ] = "",
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as one HTML file.")] = None,
    repository: Repository = "",
    limit_s: Annotated[
        float, typer.Option("--time-limit", help="Seconds after which the rest is left out.", min=1.0, max=86400.0)
    ] = 600.0,
    memory_mb: Annotated[
        int,
        typer.Option("--memory-limit", help="MiB of address space of a version; 0: as when it is loaded.", min=0),
    ] = 0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Run logged requests through a version, and say what would change: classes, scores, errors, time and memory.

    Each version runs in a process of its own at the lowest priority, within limits; no answer reaches anybody, and
    nothing is logged. Run it on the gateway's host: it reads the log and the models, and needs no running gateway.
    What the log does not hold is counted and told. The newest minute is not there yet.
    """
    limit = _share(fail_above) if fail_above else None
    check_place("--html", html)
    with analysis():
        from gateway.drift.report.span import parse_span
    now_us = int(time() * 1e6)
    try:
        span = parse_span(window, now_us=now_us)
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    served = served_repository(data_dir)
    question = ReplayQuestion(
        data_dir=str(data_dir.absolute()),
        model=model,
        version=version,
        start_us=span.start_us,
        end_us=span.end_us,
        now_us=now_us,
        against=against,
        repository=repository or served.uri,
        links_to=served.links_to,
        where=where,
        by=by,
        rows=rows,
        tolerance=tolerance,
        limit_s=limit_s,
        memory_bytes=memory_mb << 20,
    )
    report = asked(question).report
    if report is None:
        raise Failure(Exit.REFUSED, "the process of the replay ended without a report")
    verdict = replay_verdict(report, limit) if limit is not None else None
    if html is not None:
        with analysis():
            from gateway.replay.replay_page import render_replay
        write_file("--html", html, render_replay(report, verdict))
    value: Value = msgspec.to_builtins(report) | {"verdict": msgspec.to_builtins(verdict)}
    if output is Format.TABLE:
        _show(report)
    else:
        show(value, output)
    if verdict is not None:
        say(f"{verdict.verdict}: {verdict.reason}")
        if verdict.verdict in ("fail", "nodata"):
            raise Failure(Exit.REFUSED, f"version {version} of {model} does not pass the gate of {fail_above}")


def asked(question: ReplayQuestion | RerunQuestion) -> ReplayMessage:
    """Returns the last that a process says, which answers the question. Raises: Failure (it refuses)."""
    last = ReplayMessage()
    with (
        _progress() as tell,
        subprocess.Popen(
            [sys.executable, *REPLAY_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            process.stdin.close()
            for line in process.stdout:
                last = msgspec.json.decode(line, type=ReplayMessage)
                tell(last.done, last.total)
        except BrokenPipeError:
            pass
        finally:
            process.kill()
    if last.error:
        raise Failure(Exit.USAGE if last.is_usage else Exit.REFUSED, last.error)
    return last


@contextmanager
def _progress() -> "Iterator[Callable[[int, int], None]]":
    """Shows a progress bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("replaying", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _share(text: str) -> float:
    """Returns the share that "1%" or "0.01" means."""
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise Failure(Exit.USAGE, f"--fail-above is {text!r}, expected a share such as 1% or 0.01")
    return share


def _show(report: ReplayReport) -> None:
    kinds = {"class": "get another class", "moved": "move", "nan": "become NaN", "failed": "fail"}
    changed = report.changed
    head = [
        f"{report.rows} rows of {report.requests} requests, version {report.version} against {report.against}, "
        f"{moment(report.start_us)} to {moment(report.end_us)}",
        f"{changed.rows} would change: {changed.share:.3%} of all traffic ({changed.low:.3%} to {changed.high:.3%})",
        *(f"  {rows} {kinds[kind]}" for kind, rows in report.kinds.items() if rows),
        *(f"  {rows} rows from class {was} to {now}" for was, now, rows in report.transitions[:5]),
    ]
    if report.comparable:
        head.append(f"{report.bit_equal} of {report.comparable} rows of {report.against} are to the bit as in the log")
    head += [f"not replayed: {rows} rows: {MISSING[kind]}" for kind, rows in report.missing.items() if rows]
    show(None, Format.TABLE, note=[*head, *report.notes, ""])
    spreads = [("BEFORE", report.before), ("AFTER", report.after), ("DIFFERENCE", report.differences)]
    names = list(report.differences.quantiles)
    if names:
        show(
            None,
            Format.TABLE,
            columns=("SCORE", "ROWS", "MEAN", *(f"{float(name):.0%}" for name in names)),
            rows=[
                [title, one.count, f"{one.mean:.4g}", *(f"{one.quantiles[name]:.4g}" for name in names)]
                for title, one in spreads
                if one.quantiles
            ],
        )
    show(
        None,
        Format.TABLE,
        columns=("VERSION", "CONTENT", "RUN p50 us", "p90", "p99", "MEMORY MiB", "LOADED IN ms", "FAILED ROWS"),
        rows=[
            [
                *(side.version, side.digest[:12], *(side.run_us.get(name, "") for name in ("p50", "p90", "p99"))),
                *(f"{side.peak_bytes / (1 << 20):.0f}" if side.digest else "", side.load_ms or "", side.failed_rows),
            ]
            for side in report.sides
        ],
    )
    for one in report.failures:
        told = f"version {one.version} fails {one.rows} rows (as {one.request_id}): {one.reason}"
        show(None, Format.TABLE, note=told)
    if report.segments:
        show(
            None,
            Format.TABLE,
            columns=(report.by.upper(), "ROWS", "CHANGED", "SHARE", "FROM", "TO", "MEAN DIFFERENCE"),
            rows=[
                [
                    *(one.value, one.changed.of, one.changed.rows, f"{one.changed.share:.2%}"),
                    *(f"{one.changed.low:.2%}", f"{one.changed.high:.2%}"),
                    "" if one.mean_difference is None else f"{one.mean_difference:.4g}",
                ]
                for one in report.segments
            ],
        )
    if report.largest:
        show(
            None,
            Format.TABLE,
            columns=("REQUEST", "ROW", "ANSWERED BY", "BEFORE", "AFTER", "SCORE BEFORE", "SCORE AFTER", "DIFFERENCE"),
            rows=[
                [
                    *(one.request_id, one.row_index, one.version, one.before, one.after),
                    *("" if score is None else f"{score:.5g}" for score in (one.score_before, one.score_after)),
                    f"{one.difference:.4g}",
                ]
                for one in report.largest
            ],
        )
