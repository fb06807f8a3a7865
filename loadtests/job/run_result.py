"""What came of a run, and what it is worth: verdicts, the senders' own state, the exit code. Pure."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from loadtests.job.budget import FAILURES, Budget, BudgetState, BudgetVerdict, judge
from loadtests.job.figures import Figures, all_figures
from loadtests.job.quantity import time_text
from loadtests.job.route_changes import ChangeLog
from loadtests.job.scenario_plan import CanaryPlan, Scenario
from loadtests.job.tally import Tally

FORMAT: Final = "loadtests/v1"
_LATE_S: Final = 0.005
_LATE_SHARE: Final = 0.25  # of the p99 of calls, that may be the sender's own lateness
_BUSY: Final = 0.9
_HALF_BUSY: Final = 0.5
_WAITED: Final = 0.01


class RunExit(IntEnum):
    """The exit codes, each with its meaning for help and documentation."""

    meaning: str

    HELD = 0, "every budget held"
    BROKEN = 1, "a budget was broken, an answer was wrong, or a change of the route failed"
    USAGE = 2, "the scenario or an argument is wrong; nothing was sent"
    UNREACHABLE = 3, "the server is not there, or has no such model; the figures of a run that it ended are no result"
    INCONCLUSIVE = 4, "a budget of time or throughput was broken while the load generator itself was the bottleneck"
    INTERRUPTED = 130, "Ctrl-C or SIGTERM; the route is as it was"

    def __new__(cls, code: int, meaning: str) -> "RunExit":
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning = meaning
        return made


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that a report says. `figures` are by traffic, "" for all of it."""

    scenario: Scenario
    server: str
    started: str
    tally: Tally
    figures: Mapping[str, Figures]
    verdicts: Sequence[BudgetVerdict]
    problems: Sequence[str]
    bottlenecks: Sequence[str]
    notes: Sequence[str] = ()
    changes: ChangeLog | None = None
    restored: str = ""
    interrupted: bool = False
    undecided_fails: bool = False
    processes: int = 1
    host: Mapping[str, object] = field(default_factory=dict)

    @property
    def broken(self) -> list[BudgetVerdict]:
        """Returns the budgets that fail the run."""
        fails = {BudgetState.BROKEN, *((BudgetState.UNDECIDED,) if self.undecided_fails else ())}
        return [one for one in self.verdicts if one.state in fails]

    @property
    def exit(self) -> RunExit:
        if self.interrupted:
            return RunExit.INTERRUPTED
        if self.problems or any(one.budget.name == FAILURES for one in self.broken):
            return RunExit.BROKEN
        if self.broken:
            return RunExit.INCONCLUSIVE if self.bottlenecks else RunExit.BROKEN
        return RunExit.HELD

    def as_json(self) -> dict[str, Any]:
        """Returns the report, which is a baseline for later runs as well."""
        return {
            "format": FORMAT,
            "exit": int(self.exit),
            "verdict": self.exit.name.lower(),
            "meaning": self.exit.meaning,
            "job": self.scenario.job(),
            "description": self.scenario.description,
            "server": self.server,
            "started": self.started,
            "host": dict(self.host),
            "budgets": [
                {"budget": one.budget.title, "state": one.state.value, "text": one.text} for one in self.verdicts
            ],
            "problems": list(self.problems),
            "figures": {name or "all": figures.as_json() for name, figures in self.figures.items()},
            "senders": {
                "processes": self.processes,
                "lateness-ms": {
                    "p50": _milliseconds(self.tally.lags.at(0.5)),
                    "p99": _milliseconds(self.tally.lags.at(0.99)),
                },
                "cpu-share": round(self.tally.busy_s / self.tally.senders_s, 3) if self.tally.senders_s else None,
                "waited-for-a-connection": self.tally.waited,
                "bottlenecks": list(self.bottlenecks),
            },
            "changes": self.changes.as_json() if self.changes is not None else None,
            "restored": self.restored,
            "notes": list(self.notes),
            "seconds": {
                traffic: {
                    str(second): {
                        "offered": one.offered, "right": one.right, "failed": one.failed,
                        "p50-ms": _milliseconds(one.latencies.at(0.5)), "p99-ms": _milliseconds(one.latencies.at(0.99)),
                    }
                    for second, one in sorted(moments.items())
                }
                for traffic, moments in self.tally.moments.items()
            },
        }  # fmt: skip


def conclude(
    scenario: Scenario,
    tally: Tally,
    *,
    server: str,
    started: str,
    baseline: Mapping[str, Figures] | None = None,
    budgets: Sequence[Budget] = (),
    wrong: Sequence[str] = (),
    changes: ChangeLog | None = None,
    restored: str = "",
    notes: Sequence[str] = (),
    interrupted: bool = False,
    undecided_fails: bool = False,
    processes: int = 1,
) -> RunResult:
    """Returns the result of a run whose calls are in `tally`."""
    figures = all_figures(tally, scenario.seconds)
    problems = [*wrong, *_after_canary(scenario, tally, changes)]
    problems += [
        f"{count} answers were wrong: {text.removeprefix('WRONG: ')}"
        for text, count in (figures[""].failures.items() if "" in figures else ())
        if text.startswith("WRONG")
    ]
    if not figures[""].offered and not interrupted:
        problems.append("no call was measured: the rate is too low for the duration")
    return RunResult(
        scenario=scenario,
        server=server,
        started=started,
        tally=tally,
        figures=figures,
        verdicts=judge((*scenario.budgets, *budgets), figures, baseline),
        problems=problems,
        bottlenecks=bottlenecks(tally, figures[""], processes),
        notes=notes,
        changes=changes,
        restored=restored,
        interrupted=interrupted,
        undecided_fails=undecided_fails,
        processes=processes,
        host={"cpus": os.cpu_count() or 1, "load": round(os.getloadavg()[0], 2)},
    )


def bottlenecks(tally: Tally, figures: Figures, processes: int) -> list[str]:
    """Returns what in the load generator held the run back; latencies contain it, so a budget that held has held."""
    made = []
    late_s, p99_s = tally.lags.at(0.99), figures.latencies.at(0.99)
    busy = tally.busy_s / tally.senders_s if tally.senders_s else 0.0
    if tally.lags.total and late_s > _LATE_S and late_s > _LATE_SHARE * p99_s:
        remedy = (
            f"use --processes {processes + 1}, another host, or a lower rate"
            if busy > _HALF_BUSY
            else f"the senders used {busy:.0%} of their CPUs, so something else on this host did; use another one"
        )
        made.append(
            f"1 % of the calls were sent {time_text(late_s)} or more after their time, which is in their latency: "
            f"{remedy}"
        )
    if busy > _BUSY:
        made.append(f"the senders used {busy:.0%} of their CPUs: use --processes {processes + 1}, or another host")
    if tally.waited > _WAITED * max(figures.offered, 1):
        made.append(f"{tally.waited} calls waited for a free connection: raise `connections` of the REST traffic")
    return made


def _after_canary(scenario: Scenario, tally: Tally, changes: ChangeLog | None) -> list[str]:
    """Returns what failed once the canary was gone."""
    if not isinstance(scenario.change, CanaryPlan) or changes is None or changes.settled_s is None:
        return []
    after = [
        moment
        for traffic in scenario.traffic
        if traffic.model == scenario.changed_model
        for second, moment in tally.measured(traffic.name)
        if second > changes.settled_s
    ]
    offered, failed = sum(one.offered for one in after), sum(one.failed for one in after)
    if not offered:
        return ["no call was measured after the canary was taken back: make the run longer"]
    if failed > scenario.change.failures_after * offered:
        return [f"{failed} of {offered} calls failed after the canary was taken back"]
    return []


def _milliseconds(seconds: float) -> float | None:
    return round(1e3 * seconds, 3) if seconds < float("inf") else None
