"""What a sender knows of its calls: those under way, and the tally of those that ended."""

import re
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from gateway.pb import inference_pb2 as pb
from loadtests.job.request_body import RestBody
from loadtests.job.scenario_plan import TrafficPlan
from loadtests.job.tally import Tally

LATE_S: Final = 0.25  # how long after its deadline an answer is waited for: the server is to say that it is over
_NUMBER: Final = re.compile(r"(?<!['\w.:])(?<!HTTP )\d+")
NO_ANSWER: Final = "DEADLINE_EXCEEDED: no answer in time"


@dataclass(frozen=True, slots=True)
class Message:
    """A request without its id: a gRPC message, or the body of a REST request."""

    grpc: bytes = b""
    rest: RestBody | None = None


class Call:
    """One call. Units: monotonic seconds."""

    __slots__ = ("due_s", "message", "metadata", "over", "plan", "request_id", "second", "sent_s")

    def __init__(
        self, plan: TrafficPlan, message: Message, request_id: bytes, metadata: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self.plan = plan
        self.message = message
        self.request_id = request_id
        self.metadata = metadata
        self.second = 0
        self.due_s = 0.0
        self.sent_s = 0.0
        self.over = False

    def is_late(self, now_s: float) -> bool:
        """Returns whether nobody waits for its answer any more."""
        return now_s > max(self.due_s, self.sent_s) + self.plan.deadline_s + LATE_S


class CallBook:
    """Counts what became of calls. `watching`: it also keeps which version answered when, for who changes routes.

    Units: `epoch_s` is what a monotonic time lacks to be one since the epoch.
    """

    def __init__(self, *, epoch_s: float, watching: bool) -> None:
        self.tally = Tally()
        self.under_way = 0
        self._epoch_s = epoch_s
        self._watching = watching

    def begin(self, call: Call, now_s: float) -> None:
        """The call is to begin: it counts from now on, whether it can be sent or not."""
        self.under_way += 1
        self.tally.moment(call.plan.name, call.second).offered += 1
        if call.second >= 0:
            self.tally.lags.add(now_s - call.due_s)

    def fail(self, call: Call, text: str, now_s: float) -> None:
        """The call has no right answer. Without any answer it took at least as long as it did."""
        if call.over:
            return
        call.over = True
        self.under_way -= 1
        moment = self.tally.moment(call.plan.name, call.second)
        moment.failures[_NUMBER.sub("N", text[:200])] += 1  # what differs by a number alone is one kind of failure
        if text.startswith("DEADLINE_EXCEEDED"):
            moment.latencies.add(now_s - call.due_s)

    def answer(self, call: Call, body: bytes | pb.ModelInferResponse, now_s: float) -> None:
        """An answer has come over gRPC; it is right if it is one, and the one to this call."""
        if call.over:
            return
        size_bytes = 0
        if isinstance(body, bytes):
            size_bytes = len(body)
            try:
                body = pb.ModelInferResponse.FromString(body)
            except DecodeError:
                self.fail(call, "WRONG: the answer is no ModelInferResponse", now_s)
                return
        else:
            size_bytes = body.ByteSize()
        if body.id.encode() != call.request_id:
            self.fail(call, "WRONG: the answer has the id of another request", now_s)
        elif call.plan.version and body.model_version and body.model_version != call.plan.version:
            self.fail(
                call, f"WRONG: version {body.model_version!r} answered, {call.plan.version!r} was asked for", now_s
            )
        elif not body.outputs:
            self.fail(call, "WRONG: the answer has no outputs", now_s)
        else:
            self.right(call, body.model_version, size_bytes, now_s)

    def right(self, call: Call, version: str, size_bytes: int, now_s: float) -> None:
        """The call has a right answer by that version, "" where the server names none."""
        if call.over:
            return
        call.over = True
        self.under_way -= 1
        moment = self.tally.moment(call.plan.name, call.second)
        moment.right += 1
        moment.latencies.add(now_s - call.due_s)
        moment.received_bytes += size_bytes
        if version:
            moment.versions[version] += 1
        if self._watching:
            self.tally.sightings.append((call.plan.model, version, call.sent_s + self._epoch_s, now_s + self._epoch_s))

    def taken(self) -> Tally:
        """Returns what was counted since the last time."""
        tally, self.tally = self.tally, Tally()
        return tally
