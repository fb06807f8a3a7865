"""The gateway and its rivals, one after another, on one model, and the table of it in Markdown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway import __version__
from loadtests.bench.cases import Case
from loadtests.bench.report import Summary, figure_text
from loadtests.bench.rivals.launch import installed_version, started
from loadtests.bench.rivals.roster import GRPC, REST_JSON, Rival
from loadtests.bench.run import Driver, Row
from loadtests.bench.servers import GatewaySetup, Server, ServerFailed, gateway

_SHOWN: Final[Mapping[str, str]] = {
    "requests/s": "requests_per_s",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "CPU us": "cpu_us",
}
NOT_MEASURED: Final = "not measured here"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server of the comparison; `start` runs it, its files below a directory."""

    title: str
    version: str
    protocol: str
    processes: str
    start: Callable[[Path], AbstractContextManager[Server]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long each is measured. Units: seconds for each timed part."""

    concurrency: tuple[int, ...]
    seconds: float
    rounds: int
    most_other_cores: float
    most_drift: float


def ours(case: Case, workers: int, *, rest: bool) -> Contender:
    """The gateway with every feature on; over REST its requests are those of the rivals that have no gRPC."""
    title = "gateway, REST" if rest else "gateway"
    setup = GatewaySetup(title.replace(",", ""), workers=workers, rest="json" if rest else "")

    def start(work: Path) -> AbstractContextManager[Server]:
        return gateway(replace(setup, label=title), [case], work)

    processes = f"{workers} workers"
    return Contender(title, __version__, REST_JSON if rest else GRPC, processes, start)


def theirs(rival: Rival, venvs: Path, case: Case, workers: int) -> Contender:
    """A rival of the roster. `start` raises ServerFailed if it is not installed."""

    def start(work: Path) -> AbstractContextManager[Server]:
        return started(rival, venvs, case, work / rival.name, workers)

    try:
        version = f"{rival.distribution} {installed_version(rival, venvs)}"
    except ServerFailed:
        version = ", ".join(rival.requirements)
    return Contender(rival.title, version, rival.protocol, rival.processes.format(workers=workers), start)


def measure(
    contenders: Sequence[Contender], case: Case, pace: Pace, work: Path, begun: Callable[[str], None]
) -> Iterator[Row]:
    """A row for each contender and concurrency in each round. Only the one that is measured runs.

    One that does not start has rows with that fault.
    """
    driver = Driver(pace.seconds, "one")
    for number in range(pace.rounds):
        for contender in contenders:
            begun(f"{contender.title} ({number + 1}/{pace.rounds})")
            try:
                with contender.start(work / str(number)) as server:
                    rows = [driver.run(server, case, calls) for calls in pace.concurrency]
            except ServerFailed as error:
                rows = [Row.failed(contender.title, case.model.name, calls, str(error)) for calls in pace.concurrency]
            for row in rows:
                disturbed = row.calm.disturbed(most_other_cores=pace.most_other_cores, most_drift=pace.most_drift)
                yield replace(row, round=number, disturbed=disturbed)


def markdown(contenders: Sequence[Contender], summaries: Sequence[Summary], concurrency: Sequence[int]) -> str:
    """A line for each contender, most requests first; those without figures are last and say so.

    Order: by the first concurrency.
    """
    of = {(summary.system, summary.concurrency): summary for summary in summaries}
    headings = [f"{calls}: {name}" for calls in concurrency for name in _SHOWN]
    lines = [
        "| server | version | protocol | " + " | ".join(headings) + " |",
        "|---|---|---|" + "---:|" * len(headings),
    ]

    def rank(contender: Contender) -> float:
        figures = of[contender.title, concurrency[0]].figures
        return -figures.get("requests_per_s", 0.0)

    for contender in sorted(contenders, key=rank):
        cells = [contender.title, contender.version, contender.protocol]
        for calls in concurrency:
            figures = of[contender.title, calls].figures
            cells += [figure_text(figures[name]) if figures.get(name) else NOT_MEASURED for name in _SHOWN.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
