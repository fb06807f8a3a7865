"""Runs the benchmark. Exit codes: 0 done, 1 a server failed or answered wrongly, 2 usage or no h2load, 130 stopped."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadtests.bench import cases, h2load, idle, report, servers, weight_cost
from loadtests.bench.cases import Case
from loadtests.bench.h2load import LoadFailed
from loadtests.bench.machine import describe
from loadtests.bench.models import MODELS
from loadtests.bench.options import Options, read_options
from loadtests.bench.pairing import run_rounds, turn_count, turns
from loadtests.bench.run import Row
from loadtests.bench.servers import GatewaySetup, Server, ServerFailed

_PLAIN_WIDTH = 190
_SMALL_MODEL = "tiny"
_news = Console(stderr=True)
_results = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)

Start = Callable[[], AbstractContextManager[Server]]


def gateway_setups(options: Options) -> list[GatewaySetup]:
    """The gateways of the run; the first is the one that the others are compared with."""
    first, *further = options.workers
    setups = []
    if "gateway" in options.systems:
        setups.append(GatewaySetup("gateway", workers=first))
        setups += [GatewaySetup(f"gateway {workers} workers", workers=workers) for workers in further]
        setups += [
            GatewaySetup(f"gateway no {feature}", workers=first, off=frozenset({feature}))
            for feature in options.features_off
        ]
    if "rest" in options.systems:
        setups.append(GatewaySetup("gateway REST", workers=first, rest="binary"))
    if "rest-json" in options.systems:
        setups.append(GatewaySetup("gateway REST in JSON", workers=first, rest="json"))
    if "guarded" in options.systems:
        setups.append(GatewaySetup("gateway with a token", workers=first, guarded=True))
    if "judged" in options.systems:
        setups.append(GatewaySetup("gateway judged", workers=first, judged=True))
    if "traced" in options.systems:
        setups.append(GatewaySetup("gateway traced", workers=first, traced=True))
    if "grpcio" in options.systems:
        setups.append(GatewaySetup("gateway grpcio", transport="grpcio", workers=first))
    return setups


def starts(options: Options, made: Sequence[Case], work: Path) -> list[Start]:
    """How each system of the run is started, in the order of their turns."""

    def of(setup: GatewaySetup) -> Start:
        return lambda: servers.gateway(setup, made, work)

    outcome: list[Start] = [of(setup) for setup in gateway_setups(options)]
    if "aio" in options.systems:
        outcome.append(lambda: servers.bare(made, work))
    if options.floor:
        outcome.append(lambda: servers.floor(options.floor, made, work))
    if options.against:
        outcome.append(lambda: servers.against(options.against, options.pid, made))
    return outcome


@contextmanager
def work_directory(options: Options) -> Iterator[Path]:
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
        yield options.work.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        yield Path(folder)


def progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=_news, transient=True)


def start_all(options: Options, made: Sequence[Case], work: Path, stack: ExitStack, running: list[Server]) -> None:
    """Appends the servers of the run, which `stack` stops."""
    for start in starts(options, made, work):
        server = stack.enter_context(start())
        _news.print(f"{server.label} answers at {server.address}", highlight=False)
        running.append(server)


def title_of(row: Row) -> str:
    return f"{row.system}, {row.model}, {row.concurrency} at a time"


def measure(options: Options, made: Sequence[Case], running: Sequence[Server], rows: list[Row]) -> None:
    """Appends the rows as they come, so that those of a run that was stopped are not lost."""
    with progress() as shown:
        task = shown.add_task("", total=turn_count(options, len(running)))

        def begun(title: str) -> None:
            shown.update(task, description=title)
            if not _news.is_terminal:
                _news.print(title, highlight=False)

        for group in turns(options, running, made):
            for row in run_rounds(group, options, begun):
                rows.append(row)
                shown.advance(task)
                if row.fault:
                    _news.print(f"{title_of(row)}: {row.fault}", style="red", markup=False, soft_wrap=True)


def measure_idle(options: Options, body: Path, running: Sequence[Server]) -> list[idle.IdleCost]:
    costs = []
    with progress() as shown:
        for server in running:
            task = shown.add_task(f"idle connections: {server.label}", total=options.idle_connections)

            def advanced(count: int, task: TaskID = task) -> None:
                shown.update(task, completed=count)

            costs.append(idle.hold(server, options.idle_connections, body, advanced=advanced))
    return costs


def log_costs(stopped: Sequence[Server]) -> list[dict[str, object]]:
    """What the log took of each gateway beside its workers, for all requests, warming up and repeated runs included."""
    tallies = [(server.label, server.tally) for server in stopped]
    return [
        {"system": label, "cpu_s": tally.log_cpu_s, "calls": tally.calls}
        for label, tally in tallies
        if tally.log_cpu_s is not None and tally.calls
    ]


def tell(options: Options, rows: Sequence[Row], costs: Sequence[idle.IdleCost], stopped: Sequence[Server]) -> int:
    """Prints and writes what was found; the exit code."""
    summaries = report.summarize(rows, base=rows[0].system if rows else "")
    if summaries:
        _results.print(report.table(summaries, base=summaries[0].system))
    logs = log_costs(stopped)
    for log in logs:
        _results.print(
            f"{log['system']}: files of the log, over all runs and the stop, took {log['cpu_s']:.2f} s of CPU for "
            f"{log['calls']:,} requests",
            highlight=False,
        )
    for cost in costs:
        _results.print(
            f"{cost.system}: {cost.connections} idle connections take {cost.kib_each:.1f} KiB each "
            f"(RSS {cost.rss_before_mib:.0f} -> {cost.rss_after_mib:.0f} MiB)",
            highlight=False,
        )
    if options.json is not None:
        shown = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
        about = {"machine": describe(), "options": shown, "log": logs, "idle": [asdict(cost) for cost in costs]}
        options.json.write_text(json.dumps(report.as_json(rows, summaries, about), indent=1) + "\n")
    outcome = report.faults(summaries)
    for fault in outcome:
        _results.print(f"fault: {fault}", style="red", highlight=False, markup=False, soft_wrap=True)
    return 1 if outcome else 0


def tell_weights(options: Options, case: Case, work: Path) -> None:
    """Prints and writes what one large model costs."""

    def begun(title: str) -> None:
        _news.print(title, highlight=False)

    cost = weight_cost.measure(case, work, workers=options.workers[0], megabytes=options.weights_mb, begun=begun)
    for line in cost.lines():
        _results.print(line, highlight=False, soft_wrap=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": describe(), "weights": asdict(cost)}, indent=1) + "\n")


def run(options: Options) -> int:
    rows: list[Row] = []
    costs: list[idle.IdleCost] = []
    running: list[Server] = []
    status = 0
    try:
        with work_directory(options) as work, ExitStack() as stack:
            names = (_SMALL_MODEL,) if options.idle_connections or options.weights_mb else options.models
            made = cases.make((MODELS[name] for name in names), work)
            if options.only_models:
                _results.print(f"models are in {made[0].repository}", highlight=False)
                return 0
            if options.weights_mb:
                tell_weights(options, made[0], work)
                return 0
            start_all(options, made, work, stack, running)
            if options.idle_connections:
                costs += measure_idle(options, made[0].body, running)
            else:
                measure(options, made, running, rows)
    except (ServerFailed, LoadFailed) as error:
        _news.print(f"failed: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        status = 1
    except KeyboardInterrupt:
        status = 130
    return tell(options, rows, costs, running) or status


def main(arguments: Sequence[str]) -> int:
    options = read_options(arguments)
    if not h2load.installed() and not options.only_models and not options.idle_connections:
        _news.print(h2load.MISSING, style="red", highlight=False, soft_wrap=True)
        return 2
    return run(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
