"""Locust users over gRPC. Name the ones to run:

    locust -f loadtests/locustfile.py --headless --host 127.0.0.1:8001 -u 17 -r 17 -t 30s FlipCaller Flipper
    locust -f loadtests/locustfile.py --headless --host 127.0.0.1:8001 -u 16 -r 16 -t 10s StickyCaller
    locust -f loadtests/locustfile.py --headless --host 127.0.0.1:8001 -u 16 -r 16 -t 10s CanaryCaller

`python -m loadtests flips` does the same with the numbers of budgets.py. FlipCaller, StickyCaller and CanaryCaller run
one at a time: each puts a route of its own in force for the model, and the former route when it ends.
"""

import random
from collections.abc import Sequence
from itertools import count
from time import perf_counter
from typing import Any, ClassVar

import gevent
import grpc.experimental.gevent as grpc_gevent  # type: ignore[import-not-found]
from locust import User, events, task

from loadtests import budgets, documents, gate, samples, scenario, verdict
from loadtests.client import Client
from loadtests.options import add_options
from loadtests.samples import Sample
from loadtests.verdict import Answer

grpc_gevent.init_gevent()
events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]
_ids = count(1)


class Caller(User):
    """Sends held-out rows one after the other and checks every answer."""

    abstract = True
    rows: ClassVar[Sequence[Sample]] = ()

    def on_start(self) -> None:
        self.client = Client(self.environment, self.host or "")
        self.model: str = self.environment.parsed_options.model
        self.random = random.Random(next(_ids))
        if not Caller.rows:
            Caller.rows = samples.load(self.environment.parsed_options.samples, self.model)

    def on_stop(self) -> None:
        self.client.close()

    def wait_time(self) -> float:
        per_second: float = self.environment.parsed_options.calls_per_second
        return self.random.uniform(0, 2 / per_second) if per_second else 0.0

    @task
    def call(self) -> None:
        self.client.report(f"ModelInfer {self.model}", self.exchange)

    def exchange(self) -> int:
        """One call and its verdict; the size of the answer. Raises: RpcError, Violation."""
        sample = self.random.choice(self.rows)
        request_id = f"load-{next(_ids)}"
        metadata = self.metadata()
        sent_s = perf_counter()
        message, call = self.client.inference.ModelInfer.with_call(
            samples.request(self.model, sample, request_id), timeout=budgets.DEADLINE_S, metadata=metadata
        )
        received_s = perf_counter()
        answer = verdict.answer_of(message, call.trailing_metadata())
        verdict.check_answer(answer, sample, request_id)
        self.judge(answer, sent_s, received_s)
        return int(message.ByteSize())

    def metadata(self) -> list[tuple[str, str]]:
        return []

    def judge(self, answer: Answer, sent_s: float, received_s: float) -> None:
        """Raises: Violation where this answer does not fit the route in force."""
        raise NotImplementedError


class FlipCaller(Caller):
    """Answers come from the versions that the flips make legal, and from no other."""

    def judge(self, answer: Answer, sent_s: float, received_s: float) -> None:
        verdict.check_version(answer, scenario.running().flipping.legal.between(sent_s, received_s))


class Flipper(User):
    """Goes from version to version while the others call."""

    fixed_count = 1

    def on_start(self) -> None:
        self.client = Client(self.environment, self.host or "")

    def on_stop(self) -> None:
        self.client.close()

    def wait_time(self) -> float:
        # From start to start; the flip that was just done is part of it.
        every_s: float = self.environment.parsed_options.flip_every
        return max(0.0, every_s - self.took_s)

    @task
    def flip(self) -> None:
        started_s = perf_counter()
        flips = scenario.running().flipping
        self.client.report("flip", lambda: flips.flip(self.client.control))
        self.took_s = perf_counter() - started_s


class StickyCaller(Caller):
    """The same key goes to the same arm, whichever worker and connection it meets."""

    def metadata(self) -> list[tuple[str, str]]:
        self.key = f"user-{self.random.randrange(budgets.STICKY_KEYS)}"
        return [(documents.KEY, self.key)]

    def judge(self, answer: Answer, sent_s: float, received_s: float) -> None:
        scenario.running().arms.meet(self.key, answer.arm)


class CanaryCaller(Caller):
    """Requests without a key are drawn anew each time."""

    def judge(self, answer: Answer, sent_s: float, received_s: float) -> None:
        scenario.running().arms.draw(answer.arm)


@events.init.add_listener  # type: ignore[untyped-decorator]
def set_clock(**_: object) -> None:
    """The time of the run begins now: gevent's loop has the time of before the imports, which may have taken longer."""
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Any, **_: object) -> None:
    scenario.begin(environment, {user.__name__ for user in environment.user_classes})


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def end(environment: Any, **_: object) -> None:
    if scenario.started():
        scenario.running().end()


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def conclude(environment: Any, **_: object) -> None:
    gate.conclude(environment)
