"""Light traffic in the background of a fault: every call's outcome, with its time."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from loadtests.samples import Sample
from loadtests.verdict import Violation
from tests.e2e.calls import infer
from tests.machine_load import as_loaded

PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """`began_s` is monotonic; `failure` is "" or a status code's name or what was wrong with the answer.

    `version` is who answered.
    """

    began_s: float
    failure: str
    text: str = ""
    version: str = ""


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
            came = self._more.wait_for(lambda: len(self.outcomes) >= wanted, as_loaded(seconds))
            assert came, "the traffic stands still"

    def failures(self, since_s: float = 0.0) -> list[Outcome]:
        """Those of the calls that began then or later."""
        return [outcome for outcome in self.outcomes if outcome.failure and outcome.began_s >= since_s]


def traffic(
    server: str,
    rows: Sequence[Sample],
    options: Sequence[tuple[str, object]],
    *,
    clients: int = 8,
    connect_per_call: bool = False,
    pause_s: float = PAUSE_S,
) -> AbstractContextManager[Traffic]:
    """Calls of `digits` from so many clients while the context is open; each keeps its connection, or has many.

    Without a pause each calls again as soon as it has its answer.
    """

    def run(mine: Sequence[Sample], made: Traffic, over: threading.Event) -> None:
        call = 0
        while not over.is_set():
            with grpc.insecure_channel(server, options=options) as channel:
                while not over.wait(pause_s):
                    call += 1
                    made.add(_outcome(channel, mine[call % len(mine)], str(call)))
                    if connect_per_call:
                        break

    return _running(run, rows, clients)


def rest_traffic(port: int, rows: Sequence[Sample], *, clients: int = 4) -> AbstractContextManager[Traffic]:
    """Requests of `digits` by REST while the context is open: half of the clients keep their connection, and leave it
    when an answer says so; half connect for each request. Nobody asks twice.
    """
    kept = iter([number % 2 == 0 for number in range(clients)])

    def run(mine: Sequence[Sample], made: Traffic, over: threading.Event) -> None:
        keeps, call = next(kept), 0
        while not over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                while not over.wait(PAUSE_S):
                    call += 1
                    outcome, goes_on = _rest_outcome(connection, mine[call % len(mine)])
                    made.add(outcome)
                    if outcome.failure or not (keeps and goes_on):
                        break
            finally:
                connection.close()

    return _running(run, rows, clients)


@contextmanager
def _running(
    run: Callable[[Sequence[Sample], Traffic, threading.Event], None], rows: Sequence[Sample], clients: int
) -> Iterator[Traffic]:
    """So many threads that make calls until the context ends."""
    made, over = Traffic(), threading.Event()
    threads = [threading.Thread(target=run, args=(rows[number::clients], made, over)) for number in range(clients)]
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
    failure, text, version, began_s = "", "", "", time.monotonic()
    try:
        version = infer(channel, "digits", row, request_id=request_id).version
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)  # noqa: PT017
        failure, text = error.code().name, error.details() or ""
    except Violation as violation:
        failure = str(violation)
    return Outcome(began_s, failure, text, version)


def _rest_outcome(connection: http.client.HTTPConnection, row: Sample) -> tuple[Outcome, bool]:
    """What came of a request, and whether its connection can be used again."""
    failure, text, goes_on, began_s = "", "", False, time.monotonic()
    [tensor], [raw] = row.tensors, row.raw
    data = np.frombuffer(raw, "<f4").tolist()
    asked = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": data}
    try:
        connection.request("POST", "/v2/models/digits/infer", json.dumps({"inputs": [asked]}))
        answer = connection.getresponse()
        text = answer.read().decode()
        goes_on = not answer.will_close
        if answer.status != 200:
            return Outcome(began_s, str(answer.status), text), goes_on
        told = json.loads(text)
        given = {output["name"]: output["data"] for output in told["outputs"]}
        if given["label"] != row.expected[told["model_version"]]["label"].reshape(-1).tolist():
            failure = "the outputs are not those of the version"
    except (OSError, http.client.HTTPException) as error:
        failure, text = type(error).__name__, str(error)
    return Outcome(began_s, failure, text), goes_on
