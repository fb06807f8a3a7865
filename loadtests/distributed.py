"""A load job on several hosts: locust's master gives the order and judges, each of its workers sends its share.

    locust -f loadtests/distributed.py --headless --master --expect-workers 2 -u 2 --run "steady --model digits"
    locust -f loadtests/distributed.py --worker --master-host HOST        (on each host)

`--run` holds what `python -m loadtests run` is given. The calls are open-loop as there: each worker starts a sender,
passes on what it counts, and shows it to locust's own statistics too, whose web page so shows the run while it lasts.
Locust encrypts nothing, so no token goes this way: each worker has its own, by GATEWAY_TOKEN or GATEWAY_TOKEN_FILE.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import gevent
import grpc.experimental.gevent as grpc_gevent  # type: ignore[import-not-found]
import msgspec
from locust import User, events, task
from locust.runners import MasterRunner, WorkerRunner

from gateway.cli.credential import read_credential
from gateway.cli.exits import Failure
from gateway.errors import InvalidArgument
from loadtests.job.baseline import read_baseline
from loadtests.job.command import parser as command_parser
from loadtests.job.command import text_of, write_report
from loadtests.job.job_options import scenario_from, target_from
from loadtests.job.job_run import changes_of
from loadtests.job.route_changes import RouteChanges
from loadtests.job.route_guard import RouteGuard
from loadtests.job.run_result import RunExit, conclude
from loadtests.job.scenario_file import load_scenario
from loadtests.job.sender import SenderOrder
from loadtests.job.sender_fleet import COMMAND
from loadtests.job.tally import Tally
from loadtests.job.target import TargetFailed

grpc_gevent.init_gevent()
_ORDER: Final = "loadtests_order"
_GO: Final = "loadtests_go"
_SAID: Final = "loadtests_said"
_START_S: Final = 1.0
_CLOCKS_S: Final = 0.05  # by how much the clocks of the hosts may differ, where answers are judged by their time


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any) -> None:
    parser.add_argument("--run", default="", help="A scenario and options, as `python -m loadtests run` takes them.")


class Sender(User):
    """Locust runs nothing without users; what is sent is in the worker's own process of a sender."""

    @task
    def wait(self) -> None:
        gevent.sleep(1)


class _Master:
    """The run as its master knows it: who is ready, what was counted, what was done to the route."""

    def __init__(self, environment: Any) -> None:
        """Raises: InvalidArgument, TargetFailed."""
        words = environment.parsed_options.run
        self.options = command_parser().parse_args(["run", *words.split()])
        self.scenario = scenario_from(load_scenario(self.options.scenario), self.options)
        self.target = target_from(self.options)
        baseline = self.options.baseline
        self.baseline = read_baseline(baseline, self.scenario) if baseline is not None else None
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.tally = Tally()
        self.said: Counter[str] = Counter()
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.exit: RunExit | None = None
        self.changes: RouteChanges | None = None
        self.guard: RouteGuard | None = None
        self._stack = ExitStack()
        self._runner = environment.runner
        self.workers = 0

    def begin(self) -> None:
        """Every worker has its order. Raises: TargetFailed."""
        if self.scenario.change is not None:
            self.guard = self._stack.enter_context(RouteGuard(self.target, self.scenario.changed_model))
            self.changes = changes_of(self.scenario, self.target, self.guard.owner)
            self._stack.callback(self.changes.end)
        clients = sorted(self._runner.clients.ready + self._runner.clients.running, key=lambda client: client.id)
        self.workers = len(clients)
        order = SenderOrder(
            replace(self.target, token=""),
            self.scenario.traffic,
            self.scenario.seconds,
            self.scenario.warm_up_s,
            count=self.workers,
            seed=self.options.seed,
            watching=self.scenario.change is not None,
        )
        for index, client in enumerate(clients):
            text = msgspec.json.encode(replace(order, index=index)).decode()
            self._runner.send_message(_ORDER, {"order": text}, client.id)

    def hear(self, said: dict[str, Any]) -> None:
        """A worker's sender has said something."""
        if "tally" in said:
            self.tally.merge(Tally.from_json(said["tally"]))
            return
        if "failed" in said:
            self.problems.append(said["failed"])
            self.exit = RunExit.USAGE if said["usage"] else RunExit.UNREACHABLE
            self._runner.quit()
            return
        [kind] = said
        self.said[kind] += 1
        if kind == "ready":
            self.notes += said["ready"]
        if self.said["ready"] == self.workers and kind == "ready":
            start_s = time.time() + _START_S + self.scenario.warm_up_s
            self._runner.send_message(_GO, {"start": start_s})
            if self.changes is not None:
                self.changes.begin(start_s)
        if self.said["done"] == self.workers and kind == "done":
            self._runner.quit()

    def end(self) -> int:
        """Routes are as they were, the report is written. Returns the exit code."""
        try:
            self._stack.close()
        except TargetFailed as error:
            self.problems.append(str(error))
        if self.exit is not None:
            sys.stderr.write("".join(f"error: {text}\n" for text in self.problems))
            return self.exit
        wrong = self.changes.judge(self.tally.sightings, _CLOCKS_S) if self.changes is not None else []
        result = conclude(
            self.scenario,
            self.tally,
            server=self.target.server,
            started=self.started,
            baseline=self.baseline,
            wrong=[*wrong, *self.problems],
            changes=self.changes.log if self.changes is not None else None,
            restored=self.guard.restored if self.guard is not None else "",
            notes=self.notes,
            interrupted=self.said["done"] < self.workers,
            undecided_fails=self.options.undecided == "fail",
            processes=self.workers,
        )
        if self.options.report is not None:
            write_report(result, self.options.report)
        sys.stdout.write(text_of(result) + "\n")
        return result.exit


class _State:
    """Where locust's events find the run: it gives them nothing of ours."""

    master: _Master | None = None
    sender: "subprocess.Popen[str] | None" = None


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: object) -> None:
    gevent.get_hub().loop.update_now()  # it has the time of before the imports, and timers would go off at once
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        runner.register_message(_SAID, lambda environment, msg, **_: _heard(msg.data))
    elif isinstance(runner, WorkerRunner):
        runner.register_message(_ORDER, lambda environment, msg, **_: _obey(environment, msg.data["order"]))
        runner.register_message(_GO, lambda environment, msg, **_: _tell_sender(f"go {msg.data['start']:f}\n"))
    else:
        raise SystemExit("--master or --worker; on one host alone: python -m loadtests run")


def _heard(said: dict[str, Any]) -> None:
    if _State.master is not None:
        _State.master.hear(said)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Any, **_: object) -> None:
    if not isinstance(environment.runner, MasterRunner):
        return
    try:
        _State.master = _Master(environment)
        _State.master.begin()
    except (InvalidArgument, TargetFailed) as error:
        sys.stderr.write(f"error: {error}\n")
        usage = isinstance(error, InvalidArgument)
        environment.process_exit_code = RunExit.USAGE if usage else RunExit.UNREACHABLE
        if _State.master is not None:
            _State.master.exit = environment.process_exit_code
        gevent.spawn(environment.runner.quit)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def conclude_run(environment: Any, **_: object) -> None:
    if _State.master is not None:
        environment.process_exit_code = int(_State.master.end())
    if _State.sender is not None and _State.sender.stdin is not None:
        _State.sender.stdin.close()


# ---- a worker ----


def _obey(environment: Any, order: str) -> None:
    """Starts the sender, in the name of this host's token, and passes on what it says."""
    named = os.environ.get("GATEWAY_TOKEN_FILE")
    try:
        token = read_credential(Path(named) if named else None, insecure=True).token
    except Failure as error:
        environment.runner.send_message(_SAID, {"failed": str(error), "usage": True})
        return
    made = msgspec.json.decode(order, type=SenderOrder)
    order = msgspec.json.encode(replace(made, target=replace(made.target, token=token))).decode()
    _State.sender = process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _tell_sender(order + "\n")
    gevent.spawn(_pass_on, environment, process)


def _tell_sender(text: str) -> None:
    process = _State.sender
    if process is not None and process.stdin is not None:
        process.stdin.write(text)
        process.stdin.flush()


def _pass_on(environment: Any, process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    said: dict[str, Any] = {}
    for line in process.stdout:
        said = json.loads(line)
        environment.runner.send_message(_SAID, said)
        if "tally" in said:
            _show(environment, Tally.from_json(said["tally"]))
    if "done" not in said and "failed" not in said:
        environment.runner.send_message(_SAID, {"failed": "a sender has ended before its time", "usage": False})


def _show(environment: Any, tally: Tally) -> None:
    """What was counted is in locust's statistics as well."""
    for traffic, moments in tally.moments.items():
        for moment in moments.values():
            for seconds, count in moment.latencies.values():
                for _ in range(count):
                    environment.stats.log_request("load", traffic, seconds * 1000, 0)
            for text, count in moment.failures.items():
                for _ in range(count):
                    environment.stats.log_error("load", traffic, text)
