"""Flips of one model between two versions, through the control service, and what they make legal."""

from time import perf_counter

from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub
from loadtests import documents
from loadtests.budgets import FLIP_DEADLINE_S
from loadtests.legality import LegalVersions
from loadtests.verdict import Violation

_OTHER = {"a": "b", "b": "a"}
_WAIT = pb.WaitFor(applied=True, timeout_ms=int(FLIP_DEADLINE_S * 1000))
_CHANGE = pb.Change(actor="loadtests", reason="flip", source="api")


class Flips:
    """A blue-green route that goes from arm to arm: three times by a new document, then by a rollback.

    `legal` says which versions may answer at any moment; `applied_us` how long each flip took until the last worker
    had acknowledged, as the gateway says.
    """

    def __init__(self, model: str, control: ControlStub) -> None:
        """Puts the first document in force. Raises: RpcError, Violation."""
        self._model = model
        self._control = control
        self._arm = "a"
        self.done = 0
        self.applied_us: list[int] = []
        self._revision = self._apply("a").revision
        self._previous_revision = 0
        self.legal = LegalVersions([documents.ARMS["a"]], perf_counter())

    def flip(self, control: ControlStub) -> int:
        """The other arm is active in every live worker; the size of the answer. Raises: RpcError, Violation."""
        self._control = control
        before, after = self._arm, _OTHER[self._arm]
        self.legal.allow([documents.ARMS[before], documents.ARMS[after]], perf_counter())
        change = self._rollback() if self.done % 4 == 3 else self._apply(after)
        self.legal.allow([documents.ARMS[after]], perf_counter())
        self._arm = after
        self._previous_revision, self._revision = self._revision, change.revision
        self.done += 1
        self.applied_us.append(change.applied_us)
        return change.ByteSize()

    def _apply(self, arm: str) -> pb.ChangeResponse:
        answer: pb.ApplyResponse = self._control.Apply(
            pb.ApplyRequest(document_json=documents.blue_green(self._model, arm), change=_CHANGE, wait=_WAIT),
            timeout=FLIP_DEADLINE_S + 5,
        )
        _check_applied(answer.change)
        return answer.change

    def _rollback(self) -> pb.ChangeResponse:
        change: pb.ChangeResponse = self._control.Rollback(
            pb.RollbackRequest(model=self._model, change=_CHANGE, wait=_WAIT), timeout=FLIP_DEADLINE_S + 5
        )
        _check_applied(change)
        if change.restored_revision != self._previous_revision:
            raise Violation(
                f"a rollback of revision {self._revision} restored {change.restored_revision}, "
                f"the one before was {self._previous_revision}"
            )
        return change


def _check_applied(change: pb.ChangeResponse) -> None:
    if change.laggards:
        raise Violation(f"workers that did not follow in time: {', '.join(change.laggards)}")
