"""What a run is worth: exit code, report, baseline, JUnit, page."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gateway.errors import InvalidArgument
from loadtests.job.baseline import differences, read_baseline
from loadtests.job.budget import BudgetState, parse_budget
from loadtests.job.capacity_search import CapacitySearch
from loadtests.job.command import text_of, write_report
from loadtests.job.junit import junit_xml
from loadtests.job.result_page import render_result
from loadtests.job.route_changes import ChangeEvent, ChangeLog
from loadtests.job.run_result import RunExit, RunResult, conclude
from loadtests.job.scenario_file import load_scenario
from loadtests.job.scenario_plan import Scenario
from loadtests.job.tally import Tally

STEADY = replace(load_scenario("steady").for_models(["m"]), seconds=8.0)
CANARY = replace(load_scenario("canary-bad-version").for_models(["m"]), seconds=8.0)


def counted(milliseconds: float = 10.0, *, failures: Sequence[str] = (), lag_s: float = 0.0001) -> Tally:
    """Ten calls a second for eight seconds, after one of warm-up; failures in second 5."""
    tally = Tally(busy_s=0.5, senders_s=9)
    for second in range(-1, 8):
        moment = tally.moment("calls", second)
        moment.offered = moment.right = 10
        moment.versions["1"] += 10
        for _ in range(10):
            moment.latencies.add(milliseconds / 1000)
            tally.lags.add(lag_s)
    for text in failures:
        tally.moment("calls", 5).offered += 1
        tally.moment("calls", 5).failures[text] += 1
    return tally


def result(tally: Tally, scenario: Scenario = STEADY, *budgets: str, **more: object) -> RunResult:
    made = [parse_budget(name, value, "test") for name, _, value in (text.partition("=") for text in budgets)]
    return conclude(scenario, tally, server="host:1", started="2026-01-01T00:00:00+00:00", budgets=made, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (result(counted()), RunExit.HELD),
        (result(counted(failures=["UNAVAILABLE: x"])), RunExit.BROKEN),
        (result(counted(), STEADY, "p50=5ms"), RunExit.BROKEN),
        # The generator was late by more than a quarter of the latency: of time nothing is known.
        (result(counted(lag_s=0.009), STEADY, "p50=5ms"), RunExit.INCONCLUSIVE),
        (result(counted(lag_s=0.009)), RunExit.HELD),  # in spite of it
        (result(counted(lag_s=0.009, failures=["UNAVAILABLE: x"])), RunExit.BROKEN),
        (result(counted(failures=["WRONG: it has another id"]), STEADY, "failures=5%"), RunExit.BROKEN),
        (result(counted(), wrong=["version 2 answered 1 calls while it was not in force"]), RunExit.BROKEN),
        (result(counted(), interrupted=True), RunExit.INTERRUPTED),
        (result(Tally()), RunExit.BROKEN),
    ],
)  # fmt: skip
def test_the_exit_code_says_what_a_run_is_worth(made: RunResult, code: RunExit) -> None:
    assert made.exit is code
    assert f"exit {code.value}" in text_of(made)
    assert json.loads(json.dumps(made.as_json()))["exit"] == code.value


def test_the_generator_says_what_held_it_back() -> None:
    busy = replace(counted(), busy_s=8.9, waited=60)
    assert [text.split()[0:3] for text in result(busy).bottlenecks] == [
        ["the", "senders", "used"],
        ["60", "calls", "waited"],
    ]
    assert "something else on this host did" in result(counted(lag_s=0.02)).bottlenecks[0]
    assert "use --processes 2" in result(replace(counted(lag_s=0.02), busy_s=7.0)).bottlenecks[0]
    assert result(counted(lag_s=0.002)).bottlenecks == []


@pytest.mark.parametrize(("settled_s", "wrong"), [(3.2, True), (6.0, False), (None, False)])
def test_no_call_may_fail_after_a_canary_is_gone(settled_s: float | None, wrong: bool) -> None:
    log = ChangeLog(events=[ChangeEvent(1.0, "x")], settled_s=settled_s)
    made = result(counted(failures=["INTERNAL: x"]), CANARY, changes=log)
    assert bool(made.problems) is wrong
    assert made.exit is (RunExit.BROKEN if wrong else RunExit.HELD)


def test_a_report_is_the_baseline_of_the_same_job(tmp_path: Path) -> None:
    write_report(result(counted()), tmp_path / "base")
    path = tmp_path / "base" / "report.json"
    baseline = read_baseline(path, STEADY)
    slow = result(counted(15.0), STEADY, "p90=+20%", baseline=baseline)
    assert [one.state for one in slow.broken] == [BudgetState.BROKEN]
    assert "10 ms in the baseline, allowed is 12 ms" in slow.broken[0].text
    assert result(counted(11.0), STEADY, "p90=+20%", baseline=baseline).exit is RunExit.HELD
    with pytest.raises(InvalidArgument, match=r"is of another job: traffic\.calls\.rates was .*, is "):
        read_baseline(path, STEADY.at_rate(99))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InvalidArgument, match=r"no report\.json of a load test"):
        read_baseline(tmp_path / "other.json", STEADY)
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}, "c": 2}) == ["c was null, is 2"]


def test_what_noise_leaves_open_fails_where_that_is_asked_for() -> None:
    noisy = counted(10.0)
    for second in range(6):
        for _ in range(90):
            noisy.moment("calls", second).latencies.add(0.02)
    baseline = result(counted(10.0)).figures
    open_ended = result(noisy, STEADY, "p50=+20%", baseline=baseline)
    assert [one.state for one in open_ended.verdicts if one.budget.relative] == [BudgetState.UNDECIDED]
    assert open_ended.exit is RunExit.HELD
    assert replace(open_ended, undecided_fails=True).exit is RunExit.BROKEN
    assert ElementTree.fromstring(junit_xml(open_ended)).find(".//skipped") is not None


def test_junit_has_a_case_for_each_budget() -> None:
    made = result(counted(failures=["INTERNAL: \x00<&>"]), STEADY, "p50=1ms")
    suite = ElementTree.fromstring(junit_xml(made)).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("4", "2")
    cases = {case.get("name"): case.find("failure") for case in suite.iter("testcase")}
    assert set(cases) == {"failures 0%", "throughput 95%", "p50 1ms", "run"}
    failure = cases["p50 1ms"]
    assert failure is not None
    assert failure.get("message") == "10 ms, allowed is at most 1ms"
    assert cases["run"] is None


def test_the_page_shows_what_the_server_said_as_text() -> None:
    log = ChangeLog(events=[ChangeEvent(1.0, "version 2 is in force"), ChangeEvent(1.001, "y")])
    made = result(counted(failures=["INTERNAL: <script>alert(1)</script>"]), CANARY, changes=log, notes=["a note"])
    page = render_result(made)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('class="warn-line"') == 1 + 1  # marks that lie on each other are one; in each of two pictures
    for words in ("a note", "version 2 is in force", "80", "10 ms", "Exit code"):
        assert words in page
    assert "Too short for a picture" in render_result(result(Tally()))


@pytest.mark.parametrize("capacity", [0.9, 10, 50, 333, 5000])
def test_the_search_finds_the_capacity(capacity: float) -> None:
    search = CapacitySearch(50.0)
    while (rate := search.following()) is not None:
        search.note(rate, rate <= capacity)
        assert len(search.tried) < 20
    assert search.held <= capacity
    assert search.held >= capacity / 1.1 or capacity < 1


def test_who_has_read_enough_does_not_change_the_exit_code() -> None:
    program = (
        "from argparse import Namespace; from loadtests.job.command import _show; from tests.loadtests.test_run_result "
        "import *; made = result(counted()); _show(made, Namespace(report=None, output='text')); sys.exit(made.exit)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
