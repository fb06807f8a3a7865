"""A model's route is as it was, however a load test ends: its end, Ctrl-C, an error, SIGKILL.

The guard is a process of its own, in a session of its own. It keeps the route that it sees first, and brings it back
when its standard input ends, by the load test's death as well as by its orderly end: there is one way, always used.
A server that is away then is waited for. Where the load test died, a change of its own may still be on its way: the
guard looks on for as long as one can take. Somebody else's change in the meantime stays: then nothing is brought back,
and that is said. Two load tests do not change one route: the documents of each have an owner of its own.
"""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

import grpc
import msgspec

from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub
from loadtests.job.target import LoadTarget, TargetFailed, call_text

_OWNERS: Final = "loadtests-"  # how the owner of the documents begins that load tests apply
CHANGE: Final = pb.Change(actor="loadtests", reason="load test", source="api")
WAIT: Final = pb.WaitFor(applied=True)
DEADLINE_S: Final = 15.0
_LATE_S: Final = DEADLINE_S + 1  # from then on no change of a load test that died is on its way
_AWAY_S: Final = 60.0  # a server that is started anew is back by then
_LOOK_S: Final = 1.0
_ORDERLY: Final = "end"
_ROOT: Final = Path(__file__).parents[2]
_COMMAND: Final = (
    sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
    "from loadtests.job.route_guard import main; sys.exit(main())",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GuardOrder:
    """Whose route is guarded, at which server, and the owner of the documents that are replaced. Units: seconds."""

    target: LoadTarget
    model: str
    owner: str
    late_s: float = _LATE_S
    away_s: float = _AWAY_S


class RouteGuard:
    """A running guard. As a context: the route is as it was behind it. `owner` is for the documents of this load test.

    Raises: TargetFailed where it could not be brought back.
    """

    def __init__(self, target: LoadTarget, model: str) -> None:
        """Raises: TargetFailed (no gateway's control service answers there; another load test changes the route)."""
        self.restored = ""
        self.owner = _OWNERS + uuid4().hex[:12]
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(GuardOrder(target, model, self.owner)) + b"\n")
        self._process.stdin.flush()
        said = self._said()
        if "failed" in said:
            self._process.stdin.close()
            self._ended()
            raise TargetFailed(said["failed"])

    def __enter__(self) -> "RouteGuard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(_ORDERLY.encode())
        self._process.stdin.close()
        said = self._said()
        self._ended()
        if "failed" in said:
            raise TargetFailed(said["failed"])
        self.restored = said["restored"]

    def _ended(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line else {"failed": "the guard of the route has ended"}
        return said


def former_route(control: ControlStub, model: str) -> pb.Route | None:
    """Returns the model's route, None where it has none. Raises: RpcError."""
    try:
        route: pb.Route = control.GetRoute(pb.GetRouteRequest(model=model), timeout=DEADLINE_S)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    return route


def restore(control: ControlStub, model: str, former: pb.Route | None, owner: str) -> str:
    """Brings the former route back, its table of keys too, and returns what was done. Raises: RpcError."""
    now = former_route(control, model)
    if now is None and former is None:
        return "no route, as before"
    if now is not None and former is not None and now.revision == former.revision:
        return f"revision {former.revision}, as before"
    if now is None or owner_of(now) != owner:
        return f"somebody else has changed the route of {model!r} in the meantime: it stays as it is"
    if former is None:
        request = pb.DeleteRouteRequest(model=model, change=CHANGE, wait=WAIT, override=True)
        control.DeleteRoute(request, timeout=DEADLINE_S)
        return "no route, as before"
    try:
        control.Rollback(
            pb.RollbackRequest(model=model, to_revision=former.revision, change=CHANGE, wait=WAIT), timeout=DEADLINE_S
        )
    except grpc.RpcError as error:  # the history keeps so many revisions only
        if not (isinstance(error, grpc.Call) and error.code() in _NOT_KEPT):
            raise
        request_ = pb.ApplyRequest(document_json=former.document_json, change=CHANGE, wait=WAIT, override=True)
        control.Apply(request_, timeout=DEADLINE_S)
        return f"the document of revision {former.revision} (its table is not in the history any more)"
    return f"the route of revision {former.revision}"


def owner_of(route: pb.Route) -> str:
    """Returns the owner that the document names, "" for none."""
    return str(json.loads(route.document_json).get("metadata", {}).get("owner", ""))


_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
_NOT_KEPT: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)


def main() -> int:
    """Guards one route until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        return 1
    order = msgspec.json.decode(line, type=GuardOrder)
    where = order.target.control or order.target.server
    try:
        with order.target.channel(where) as channel:
            former = former_route(ControlStub(channel), order.model)  # type: ignore[no-untyped-call]
    except grpc.RpcError as error:
        _say({"failed": f"changes of routes need a gateway's control service at {where}: {call_text(error)}"})
        return 1
    if former is not None and owner_of(former).startswith(_OWNERS):
        _say(
            {
                "failed": f"the route of {order.model!r} is that of another load test, which is running or was killed "
                f"with its guard: wait for it, or take it back with `gateway rollback {order.model}`"
            }
        )
        return 1
    _say({"kept": former.revision if former is not None else 0})
    orderly = sys.stdin.read() == _ORDERLY
    try:
        done = _restore(order, former)
        until_s = time.monotonic() + order.late_s
        while not orderly and time.monotonic() < until_s:
            time.sleep(_LOOK_S)  # nobody waits for this process
            with suppress(grpc.RpcError):  # a server that has gone by now is looked for again, not waited for
                _restore(replace(order, away_s=0.0), former)
    except grpc.RpcError as error:
        was = f"revision {former.revision}" if former is not None else "no route"
        _say({"failed": f"the route of {order.model!r} could not be brought back to {was}: {call_text(error)}"})
        return 1
    _say({"restored": done})
    return 0


def _restore(order: GuardOrder, former: pb.Route | None) -> str:
    """Returns what was done, once the server is there. Raises: RpcError (it is not, or refuses)."""
    where = order.target.control or order.target.server
    until_s = time.monotonic() + order.away_s
    while True:
        try:
            with order.target.channel(where) as channel:
                return restore(ControlStub(channel), order.model, former, order.owner)  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            away = isinstance(error, grpc.Call) and error.code() in _AWAY
            if not away or time.monotonic() >= until_s:
                raise
        time.sleep(_LOOK_S)


def _say(said: dict[str, Any]) -> None:
    try:
        print(json.dumps(said), flush=True)
    except BrokenPipeError:
        pass  # whoever started the guard is dead


if __name__ == "__main__":
    sys.exit(main())
