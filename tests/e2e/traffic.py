"""Light traffic in the background of a fault: every call's outcome, with its time."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from loadtests.samples import Sample
from loadtests.verdict import Violation
from tests.e2e.calls import infer

PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """`began_s` is monotonic; `failure` is "" or a status code's name or what was wrong with the answer."""

    began_s: float
    failure: str
    text: str = ""


@dataclass(slots=True)
class Traffic:
    """What came of the calls so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    _more: threading.Condition = field(default_factory=threading.Condition)

    def add(self, outcome: Outcome) -> None:
        with self._more:
            self.outcomes.append(outcome)
            self._more.notify_all()

    def wait_for(self, calls: int, seconds: float = 30.0) -> None:
        """So many more calls have ended."""
        with self._more:
            wanted = len(self.outcomes) + calls
            assert self._more.wait_for(lambda: len(self.outcomes) >= wanted, seconds), "the traffic stands still"

    def failures(self, since_s: float = 0.0) -> list[Outcome]:
        """Those of the calls that began then or later."""
        return [outcome for outcome in self.outcomes if outcome.failure and outcome.began_s >= since_s]


@contextmanager
def traffic(
    server: str,
    rows: Sequence[Sample],
    options: Sequence[tuple[str, object]],
    *,
    clients: int = 8,
    connect_per_call: bool = False,
) -> Iterator[Traffic]:
    """Calls of `digits` from so many clients while the context is open; each keeps its connection, or has many."""
    made, over = Traffic(), threading.Event()

    def run(mine: Sequence[Sample]) -> None:
        call = 0
        while not over.is_set():
            with grpc.insecure_channel(server, options=options) as channel:
                while not over.wait(PAUSE_S):
                    call += 1
                    made.add(_outcome(channel, mine[call % len(mine)], str(call)))
                    if connect_per_call:
                        break

    threads = [threading.Thread(target=run, args=(rows[number::clients],)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        made.wait_for(10 * clients)
        yield made
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def _outcome(channel: grpc.Channel, row: Sample, request_id: str) -> Outcome:
    failure, text, began_s = "", "", time.monotonic()
    try:
        infer(channel, "digits", row, request_id=request_id)
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)  # noqa: PT017
        failure, text = error.code().name, error.details() or ""
    except Violation as violation:
        failure = str(violation)
    return Outcome(began_s, failure, text)
