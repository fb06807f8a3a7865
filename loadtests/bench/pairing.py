"""Who runs when: the systems take turns, round after round, and a disturbed run is repeated."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from loadtests.bench.alone import Layout, layouts, run_in_process
from loadtests.bench.cases import Case
from loadtests.bench.machine import cores
from loadtests.bench.options import Options
from loadtests.bench.run import Driver, Row
from loadtests.bench.servers import Server

# The model that is long enough for its own speed to be the yardstick.
ALONE: Final = "conv"
_TRIAL_S: Final = 0.5

Measure = Callable[[], Row]


@dataclass(frozen=True, slots=True)
class Turn:
    """One run that is to be made, in words and as a call."""

    title: str
    measure: Measure


def turns(options: Options, servers: Sequence[Server], cases: Sequence[Case]) -> Iterator[list[Turn]]:
    """For each model and concurrency the systems in their order: one round's worth, to be gone through round by round.

    The layout of ONNX Runtime alone is chosen when its turn is near: the fastest of those that could serve the calls.
    """
    driver = Driver(options.seconds, options.arms)
    for case in cases:
        for concurrency in options.concurrency:
            made = [
                Turn(
                    f"{case.model.name}, {concurrency} at a time: {server.label}",
                    lambda server=server, case=case, concurrency=concurrency: driver.run(server, case, concurrency),  # type: ignore[misc]
                )
                for server in servers
                if not server.rest or server.rest in case.rest
            ]
            if case.model.name == ALONE:
                layout = fastest_layout(case, concurrency)
                made.append(
                    Turn(
                        f"{case.model.name}: {layout.label}",
                        lambda case=case, layout=layout, concurrency=concurrency: run_in_process(  # type: ignore[misc]
                            case, layout, concurrency, options.seconds
                        ),
                    )
                )
            yield made


def turn_count(options: Options, servers: int) -> int:
    each = len(options.concurrency) * options.rounds
    alone = each if ALONE in options.models else 0
    return servers * each * len(options.models) + alone


def fastest_layout(case: Case, concurrency: int) -> Layout:
    layouts_here = layouts(concurrency, cores())
    if len(layouts_here) == 1:
        return layouts_here[0]
    return max(layouts_here, key=lambda layout: run_in_process(case, layout, concurrency, _TRIAL_S).requests_per_s)


def calmest(measure: Measure, options: Options) -> Row:
    """The first run that was not disturbed, or the calmest of as many as are allowed.

    A run with a fault is not repeated: it is a finding.
    """
    best: Row | None = None
    for attempt in range(1, options.tries + 1):
        row = measure()
        disturbed = row.calm.disturbed(most_other_cores=options.most_other_cores, most_drift=options.most_drift)
        row = replace(row, disturbed=disturbed, tries=attempt)
        if row.fault or not disturbed:
            return row
        if best is None or _unrest(row, options) < _unrest(best, options):
            best = row
    assert best is not None
    return replace(best, tries=options.tries)


def _unrest(row: Row, options: Options) -> float:
    """How far it is beyond what counts as calm; 1 is the border."""
    return max(row.calm.other_cores / options.most_other_cores, row.calm.drift / options.most_drift)


def run_rounds(made: Sequence[Turn], options: Options, begun: Callable[[str], None]) -> Iterator[Row]:
    """A B A B: each round has every turn once. `begun` is told the title of each."""
    for number in range(options.rounds):
        for turn in made:
            begun(f"{turn.title} ({number + 1}/{options.rounds})")
            yield replace(calmest(turn.measure, options), round=number)
