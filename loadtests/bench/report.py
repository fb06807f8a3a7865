"""What the runs come to: medians, ratios to the first system, a table and JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from rich.table import Table

from loadtests.bench.run import Row

_FIGURES: Final[Mapping[str, Callable[[Row], float | None]]] = {
    "requests_per_s": lambda row: row.requests_per_s,
    "p50_ms": lambda row: row.p50_ms,
    "p99_ms": lambda row: row.p99_ms,
    "cpu_us": lambda row: row.cpu_us,
    "workers_us": lambda row: row.workers_us,
    "compactor_us": lambda row: row.compactor_us,
    "later_us": lambda row: row.later_us,
    "rss_mib": lambda row: row.rss_mib,
    "workers_rss_mib": lambda row: row.workers_rss_mib,
    "client_cores": lambda row: row.client_cores,
}
_LATENCIES: Final = ("p50_ms", "p99_ms")
_COMPARED: Final = ("requests_per_s", "p50_ms", "p99_ms", "cpu_us")


@dataclass(frozen=True, slots=True)
class Summary:
    """The runs of one system on one model at one concurrency.

    `figures`: medians over the rounds. `ratios`: the first system's figure over this one's, the median of the rounds'
    ratios, since rounds are neighbours in time; empty for the first system itself.
    """

    system: str
    model: str
    concurrency: int
    runs: int
    disturbed: int
    faults: tuple[str, ...]
    figures: Mapping[str, float]
    ratios: Mapping[str, float]


def summarize(rows: Sequence[Row], base: str) -> list[Summary]:
    """A summary for each system, model and concurrency, in the order of the runs. `base`: the first system."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.concurrency, row.system), []).append(row)
    made = []
    for (model, concurrency, system), group in groups.items():
        bases = {} if system == base else {row.round: row for row in groups.get((model, concurrency, base), ())}
        good = [row for row in group if not row.fault]
        made.append(
            Summary(
                system=system,
                model=model,
                concurrency=concurrency,
                runs=len(group),
                disturbed=sum(row.disturbed for row in group),
                faults=tuple(dict.fromkeys(row.fault for row in group if row.fault)),
                figures=_medians({name: [read(row) for row in good] for name, read in _FIGURES.items()}),
                ratios=_medians({name: _ratios(name, good, bases) for name in _COMPARED}),
            )
        )
    return made


def _ratios(name: str, rows: Sequence[Row], bases: Mapping[int, Row]) -> list[float | None]:
    read = _FIGURES[name]
    ratios: list[float | None] = []
    for row in rows:
        base = None if row.alone and name in _LATENCIES else bases.get(row.round)
        ours, theirs = read(base) if base is not None and not base.fault else None, read(row)
        ratios.append(ours / theirs if ours is not None and theirs else None)
    return ratios


def _medians(lists: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    known = {name: [value for value in values if value is not None] for name, values in lists.items()}
    return {name: median(values) for name, values in known.items() if values}


def table(summaries: Sequence[Summary], base: str) -> Table:
    """One line for each summary; a section for each model."""
    made = Table(
        title="Medians over the rounds. CPU: microseconds of user and system time for each request, all processes of "
        f"the server; later: what it used afterwards to finish. Ratios: {base} over the line's system.",
        title_justify="left",
        title_style="",
    )
    headings = ("requests/s", "p50 ms", "p99 ms", "CPU us", "workers", "compactor", "later", "RSS MiB")
    for heading in ("model", "calls", "system"):
        made.add_column(heading, no_wrap=True)
    for heading in (*headings, "x req/s", "x p50", "x p99", "x CPU", "disturbed"):
        made.add_column(heading, justify="right", no_wrap=True)
    shown = ("requests_per_s", "p50_ms", "p99_ms", "cpu_us", "workers_us", "compactor_us", "later_us", "rss_mib")
    before = ""
    for summary in summaries:
        if before not in ("", summary.model):
            made.add_section()
        before = summary.model
        made.add_row(
            summary.model,
            str(summary.concurrency),
            summary.system,
            *(figure_text(summary.figures.get(name)) for name in shown),
            *(_ratio(summary.ratios.get(name)) for name in _COMPARED),
            f"{summary.disturbed}/{summary.runs}",
        )
    return made


def faults(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{summary.system}, {summary.model}, {summary.concurrency} at a time: {fault}"
        for summary in summaries
        for fault in summary.faults
    ]


def as_json(rows: Sequence[Row], summaries: Sequence[Summary], about: Mapping[str, object]) -> dict[str, object]:
    """Everything, of values that JSON can hold: what is not a number is null."""
    return {
        **about,
        "summaries": [asdict(summary) for summary in summaries],
        "runs": [{name: None if value != value else value for name, value in asdict(row).items()} for row in rows],
    }


def figure_text(value: float | None) -> str:
    """Three digits, as many as such figures are good for."""
    if value is None or value != value:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
