"""`python -m loadtests run | capacity | compare | check | list`: the commands, and what they print."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

from gateway.errors import InvalidArgument
from loadtests.job.baseline import read_baseline
from loadtests.job.budget import parse_budget
from loadtests.job.capacity_search import CapacitySearch
from loadtests.job.figures import Figures, all_figures
from loadtests.job.job_options import add_load, add_target, scenario_from, target_from
from loadtests.job.job_run import Job, run_job
from loadtests.job.junit import junit_xml
from loadtests.job.quantity import time_text
from loadtests.job.result_page import render_result
from loadtests.job.run_result import RunExit, RunResult, conclude
from loadtests.job.scenario_file import load_scenario, shipped
from loadtests.job.scenario_plan import Scenario
from loadtests.job.tally import Tally
from loadtests.job.target import LoadTarget, TargetFailed

COMMANDS: Final = ("run", "capacity", "compare", "check", "list")
DEMO: Final = ("flips", "sticky", "canary", "movement", "overload", "tenants")
_CODES: Final = "\n".join(f"  {code.value:>3}  {code.meaning}" for code in RunExit)
_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the commands."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Load tests of a gateway, or of any server of the Open Inference Protocol (docs/load-tests.md).",
        epilog=f"exit codes:\n{_CODES}\n\nwith the demo models, every output checked: {', '.join(DEMO)} (--help)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="Run a scenario.")
    run.add_argument("scenario", help="A file, or a shipped scenario: see list.")
    capacity = commands.add_parser("capacity", help="Find the highest rate at which the budgets hold.")
    capacity.add_argument("--first", type=float, default=50.0, help="The first rate to try [50].")
    capacity.add_argument("--at-least", type=float, default=0.0, help="Exit 1 where the capacity is less.")
    capacity.add_argument("--precision", type=float, default=10.0, help="In percent [10].")
    compare = commands.add_parser("compare", help="Run a scenario on two servers or versions by turns.")
    compare.add_argument("scenario", help="A file, or a shipped scenario: see list.")
    compare.add_argument("--with-server", default="", help="host:port of the other server.")
    compare.add_argument("--with-rest", default="", help="Its REST port's host:port.")
    compare.add_argument("--with-version", default="", help="The other version.")
    compare.add_argument("--rounds", type=int, default=3, help="Turns of each [3].")
    for one in (run, capacity, compare):
        add_target(one)
        add_load(one)
        one.add_argument("--report", type=Path, metavar="DIR", help="Write report.html, report.json, junit.xml there.")
        one.add_argument("-o", "--output", choices=["text", "json"], default="text", help="What is printed [text].")
    check = commands.add_parser("check", help="Say what is wrong with a scenario file; nothing is sent.")
    check.add_argument("scenario")
    commands.add_parser("list", help="The scenarios that are shipped.")
    return made


def main(arguments: Sequence[str]) -> int:
    """Runs a command, and returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(_BY_NAME[options.command](options))
    except InvalidArgument as error:
        print(f"error: {error}", file=sys.stderr)
        return RunExit.USAGE
    except TargetFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return RunExit.UNREACHABLE
    except KeyboardInterrupt:
        return RunExit.INTERRUPTED


def _run(options: argparse.Namespace) -> RunExit:
    scenario = scenario_from(load_scenario(options.scenario), options)
    baseline = read_baseline(options.baseline, scenario) if options.baseline is not None else None
    result = run_job(
        Job(
            scenario,
            target_from(options),
            baseline,
            undecided_fails=options.undecided == "fail",
            processes=options.processes,
            seed=options.seed,
        ),
        _progress(scenario),
    )
    _show(result, options)
    return result.exit


def _capacity(options: argparse.Namespace) -> RunExit:
    scenario = scenario_from(replace(load_scenario("steady"), seconds=5.0, warm_up_s=1.0), options)
    budgets = scenario.budgets if options.budget else (*scenario.budgets, parse_budget("p99", "100ms", "--budget"))
    target = target_from(options)
    search = CapacitySearch(options.first, options.precision / 100)
    last: RunResult | None = None
    while (rate := search.following()) is not None:
        job = Job(
            replace(scenario.at_rate(rate), budgets=budgets), target, processes=options.processes, seed=options.seed
        )
        result = run_job(job)
        if result.exit is RunExit.INTERRUPTED:
            return result.exit
        held = result.exit is RunExit.HELD
        search.note(rate, held)
        last = result if held or last is None else last
        why = (
            "holds"
            if held
            else "; ".join([*(f"{one.budget.title}: {one.text}" for one in result.broken), *result.problems])
        )
        print(f"{rate:10.1f}/s  {_latency_text(result)}  {why}", file=_human(options), flush=True)
        if result.exit is RunExit.INCONCLUSIVE:
            print(f"the load generator was the bottleneck: {result.bottlenecks[0]}", file=sys.stderr)
            print(f"capacity: at least {search.held:.1f}/s", file=_human(options))
            _write(last, options)
            return RunExit.INCONCLUSIVE
    assert last is not None
    _write(last, options)
    said = {"per-second": round(search.held, 1), "tried": [[round(rate, 1), held] for rate, held in search.tried]}
    rules = ", ".join(one.title for one in budgets)
    print(f"capacity: {search.held:.1f}/s within {rules}", file=_human(options))
    if options.output == "json":
        print(json.dumps(said))
    return RunExit.HELD if search.held and search.held >= options.at_least else RunExit.BROKEN


def _compare(options: argparse.Namespace) -> RunExit:
    if bool(options.with_server) == bool(options.with_version):
        raise InvalidArgument("--with-server or --with-version: name what to compare with, one of them")
    if options.rounds < 1:
        raise InvalidArgument("--rounds: 1 or more")
    first = scenario_from(load_scenario(options.scenario), options)
    second = replace(
        first, traffic=tuple(replace(one, version=options.with_version or one.version) for one in first.traffic)
    )
    if first.change is not None:
        raise InvalidArgument(f"scenario {first.name!r} changes routes: compare versions by one that does not")
    target = target_from(options)
    sides: list[tuple[Scenario, LoadTarget]] = [
        (first, target),
        (second, target_from(options, options.with_server, options.with_rest) if options.with_server else target),
    ]
    tallies = [Tally(), Tally()]
    results: list[RunResult | None] = [None, None]
    for turn in range(options.rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            scenario, where = sides[side]
            job = Job(scenario, where, processes=options.processes, seed=options.seed + turn)
            results[side] = result = run_job(job)
            if result.exit is RunExit.INTERRUPTED:
                return result.exit
            tallies[side].merge(_shifted(result.tally, turn * round(scenario.seconds)))
            print(f"turn {turn + 1}, {'AB'[side]}: {_latency_text(result)}", file=_human(options), flush=True)
    whole = replace(second, seconds=round(first.seconds) * options.rounds, warm_up_s=0.0)
    before = all_figures(tallies[0], whole.seconds)
    relative = [budget for budget in whole.budgets if budget.relative]
    usual = [parse_budget(name, text, name) for name, text in (("p50", "+10%"), ("p99", "+25%"), ("throughput", "-5%"))]
    assert results[1] is not None
    result = conclude(
        replace(whole, budgets=(*(one for one in whole.budgets if not one.relative), *(relative or usual))),
        tallies[1],
        server=sides[1][1].server,
        started=results[1].started,
        baseline=before,
        notes=(*results[1].notes, "A is the baseline of this report, B what it is about"),
        undecided_fails=options.undecided == "fail",
        processes=options.processes,
    )
    print(f"A: {_figures_text(before[''])}\nB:", file=_human(options))
    _show(result, options)
    return result.exit


def _check(options: argparse.Namespace) -> RunExit:
    scenario = load_scenario(options.scenario)
    print(f"{scenario.name}: {scenario.description}")
    print(f"  {scenario.warm_up_s:g} s of warm-up, {scenario.seconds:g} s measured, at most {scenario.highest:g}/s")
    for one in scenario.traffic:
        model = one.model or "--model"
        print(f"  traffic {one.name}: {one.protocol} to {model}, {one.payload.source}, {one.connections} connections")
    for budget in scenario.budgets:
        print(f"  budget {budget.title}")
    return RunExit.HELD


def _list(options: argparse.Namespace) -> RunExit:
    for name, path in shipped().items():
        print(f"{name:20} {load_scenario(str(path)).description}")
    return RunExit.HELD


_BY_NAME: Final = {"run": _run, "capacity": _capacity, "compare": _compare, "check": _check, "list": _list}


def _show(result: RunResult, options: argparse.Namespace) -> None:
    """Prints the result, and writes the report where one was asked for."""
    _write(result, options)
    text = json.dumps(result.as_json()) if options.output == "json" else text_of(result)
    if options.report is not None and options.output == "text":
        text += f"\nreport: {options.report / 'report.html'}"
    try:
        print(text, flush=True)
    except BrokenPipeError:  # its reader (`head`) has enough: the exit code says the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def text_of(result: RunResult) -> str:
    """Returns the result for a terminal."""
    lines = []
    width = max(len(name) for name in (*result.figures, "all"))
    for name, one in result.figures.items():
        if name and len(result.figures) == 2:
            continue  # one traffic is all of it
        lines.append(f"{name or 'all':{width}}  {_figures_text(one)}")
    for version, count in sorted(result.figures[""].versions.items()):
        lines.append(f"{count:8} by version {version}")
    for text, count in result.figures[""].failures.most_common(10):
        lines.append(f"{count:8} x {text}")
    if result.changes is not None:
        lines += [f"{event.at_s:7.1f} s  {event.text}" for event in result.changes.events[:10]]
        lines.append(f"{len(result.changes.events)} changes of the route; it is left as: {result.restored}")
    lines += [f"note: {text}" for text in result.notes]
    lines += [f"BOTTLENECK: {text}" for text in result.bottlenecks]
    for verdict in result.verdicts:
        lines.append(f"{verdict.state.value.upper():9} {verdict.budget.title}: {verdict.text}")
    lines += [f"WRONG     {text}" for text in result.problems]
    lines.append(f"{result.exit.name.lower()} (exit {int(result.exit)}): {result.exit.meaning}")
    return "\n".join(lines)


def _figures_text(one: Figures) -> str:
    times = "  ".join(f"{label} {time_text(one.latencies.at(share))}" for label, share in _SHARES.items())
    return f"{one.right} of {one.offered} right, {one.per_second:.1f}/s  {times}"


def _latency_text(result: RunResult) -> str:
    one = result.figures[""]
    p50, p99 = (time_text(one.latencies.at(share)) for share in (0.5, 0.99))
    return f"{one.per_second:.1f}/s right, {one.failures.total()} failed, p50 {p50}, p99 {p99}"


def _write(result: RunResult, options: argparse.Namespace) -> None:
    if options.report is not None:
        write_report(result, options.report)


def write_report(result: RunResult, directory: Path) -> None:
    """Writes report.html, report.json and junit.xml. Raises: InvalidArgument where they cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.html").write_text(render_result(result), encoding="utf-8")
        (directory / "report.json").write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
        (directory / "junit.xml").write_bytes(junit_xml(result))
    except OSError as error:
        raise InvalidArgument(f"--report: {directory}: {error.strerror or error}") from None


def _human(options: argparse.Namespace) -> TextIO:
    return sys.stderr if options.output == "json" else sys.stdout


def _shifted(tally: Tally, seconds: int) -> Tally:
    """Returns the measured calls as if they had begun so much later."""
    moments = {
        traffic: {second + seconds: moment for second, moment in by_second.items() if second >= 0}
        for traffic, by_second in tally.moments.items()
    }
    return replace(tally, moments=moments)


def _progress(scenario: Scenario) -> Callable[[Tally], None] | None:
    """Returns what shows on a terminal how far the run is; nothing elsewhere."""
    if not sys.stderr.isatty():
        return None
    whole = Tally()

    def heard(part: Tally) -> None:
        whole.merge(part)
        moments = [(second, moment) for one in whole.moments.values() for second, moment in one.items()]
        second = max((second for second, _ in moments), default=0)
        offered, failed = (sum(getattr(moment, name) for _, moment in moments) for name in ("offered", "failed"))
        end = "\n" if second + 1 >= scenario.seconds else ""
        sys.stderr.write(f"\r{second:5} s of {scenario.seconds:g}  {offered} calls, {failed} failed {end}")
        sys.stderr.flush()

    return heard
