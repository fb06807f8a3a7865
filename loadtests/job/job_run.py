"""Carries a job out: routes guarded, senders sent off, everything ended in every case."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from loadtests.job.budget import Budget
from loadtests.job.figures import Figures
from loadtests.job.route_changes import RouteChanges
from loadtests.job.route_guard import RouteGuard
from loadtests.job.run_result import RunResult, conclude
from loadtests.job.scenario_plan import Scenario
from loadtests.job.sender import SenderOrder
from loadtests.job.sender_fleet import SenderFleet
from loadtests.job.tally import Tally
from loadtests.job.target import LoadTarget


@dataclass(frozen=True, slots=True)
class Job:
    """A scenario, the server it is for, and what it is judged by."""

    scenario: Scenario
    target: LoadTarget
    baseline: Mapping[str, Figures] | None = None
    budgets: Sequence[Budget] = ()
    undecided_fails: bool = False
    processes: int = 1
    seed: int = 1


def run_job(job: Job, heard: Callable[[Tally], None] | None = None) -> RunResult:
    """Returns what came of the job; SIGINT and SIGTERM end it early.

    Raises: TargetFailed, InvalidArgument. Order: then the route is as it was, and no sender is left.
    """
    scenario, changes, guard = job.scenario, None, None
    started = datetime.now(UTC).isoformat(timespec="seconds")
    order = SenderOrder(
        job.target,
        scenario.traffic,
        scenario.seconds,
        scenario.warm_up_s,
        count=job.processes,
        seed=job.seed,
        watching=scenario.change is not None,
    )
    fleet = SenderFleet(order)
    with ExitStack() as stack:
        if scenario.change is not None:
            guard = stack.enter_context(RouteGuard(job.target, scenario.changed_model))
            changes = changes_of(scenario, job.target, guard.owner)
            stack.callback(changes.end)
        interrupted = asyncio.run(_run(fleet, changes, heard))
    return conclude(
        scenario,
        fleet.tally,
        server=job.target.server,
        started=started,
        baseline=job.baseline,
        budgets=job.budgets,
        wrong=changes.judge(fleet.tally.sightings) if changes is not None else (),
        changes=changes.log if changes is not None else None,
        restored=guard.restored if guard is not None else "",
        notes=fleet.notes,
        interrupted=interrupted,
        undecided_fails=job.undecided_fails,
        processes=job.processes,
    )


def changes_of(scenario: Scenario, target: LoadTarget, owner: str) -> RouteChanges:
    """Returns the changes that the scenario names; their first route is in force. Raises: TargetFailed."""
    assert scenario.change is not None
    keys = [one.key for one in scenario.traffic if one.model == scenario.changed_model and one.key is not None]
    return RouteChanges(
        target,
        scenario.changed_model,
        scenario.change,
        seconds=scenario.seconds,
        key=keys[0] if keys else None,
        owner=owner,
    )


async def _run(fleet: SenderFleet, changes: RouteChanges | None, heard: Callable[[Tally], None] | None) -> bool:
    """Returns whether somebody has ended the run."""
    loop, work = asyncio.get_running_loop(), asyncio.current_task()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if work is not None and not interrupted:
            interrupted = True
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        await fleet.prepare()
        await fleet.run(changes.begin if changes is not None else _ignore, heard)
    except asyncio.CancelledError:
        if not interrupted:
            raise
        if work is not None:
            work.uncancel()
    finally:
        await fleet.close()
    return interrupted


def _ignore(start_s: float) -> None:
    """Nothing is changed in this scenario."""
