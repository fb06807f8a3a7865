"""Traces of calls: which calls are sampled, and what is kept of those until the control process fetches it.

1. Who samples a trace is its caller: a call with a parent is sampled as the parent is. Of calls without one a share is.
2. A call that is not sampled costs the look for its parent; without a tracer not even that.
3. What a trace tells is put together when the call has ended, from what the call holds anyway. It waits in a bounded
   queue for the control process, which makes spans of it; what finds the queue full is dropped and counted.
"""

from collections import deque
from math import log, log1p
from random import Random
from time import monotonic_ns, time_ns
from typing import Final

from gateway.errors import Code
from gateway.serving.call import Call
from gateway.serving.call_trace import CallTrace, parent_of
from gateway.telemetry.finished_trace import MOST_WAITING, FinishedTrace
from gateway.telemetry.histogram import latency_place

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_LONGEST_STATE: Final = 512
_MOST_EXEMPLARS: Final = 10_000
_LONGEST_GAP: Final = 1 << 62


class Tracer:
    """The sampled calls of one worker. Units: `ratio` is the share of calls without a parent that are sampled."""

    def __init__(self, ratio: float, random: Random) -> None:
        self._ratio = ratio
        self._random = random
        self._finished: deque[FinishedTrace] = deque()
        self._exemplars: dict[tuple[str, str, str, int], tuple[str, float, float]] = {}
        self._sampled = 0
        self._dropped = 0
        self._passing = self._gap()

    def begin(self, parent: str | None) -> CallTrace | None:
        """Returns the trace of a call with that traceparent; None if it is not sampled."""
        context = parent_of(parent) if parent else None
        if context is not None:
            trace_id, parent_id, sampled = context
            return CallTrace(trace_id, parent_id, self._id(64)) if sampled else None
        if self._passing:
            self._passing -= 1
            return None
        self._passing = self._gap()
        return CallTrace(self._id(128), "", self._id(64))

    def child(self, parent: CallTrace, method: str) -> CallTrace:
        """Returns the trace of a call that is part of a sampled one."""
        trace = CallTrace(parent.trace_id, parent.span_id, self._id(64))
        trace.method, trace.state = method, parent.state
        return trace

    def finish(self, call: Call, code: Code, request_id: str) -> None:
        """Keeps what the trace of the call tells, now that it has ended."""
        trace = call.trace
        if trace is None:
            return
        call.trace = None
        self._sampled += 1
        total_ns = monotonic_ns() - call.received_ns
        ended_ns = time_ns()
        version, decision = call.version, call.decision
        name = version.name if version is not None else ""
        arm = decision.arm if decision is not None else ""
        if version is not None:
            self._keep_exemplar(call.model, name, arm, trace.trace_id, total_ns, ended_ns)
        if len(self._finished) >= MOST_WAITING:
            self._dropped += 1
            return
        received_ns = ended_ns - total_ns
        finished = FinishedTrace(
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            parent_id=trace.parent_id,
            state=_state_within(trace.state),
            received_ns=received_ns,
            queued_ns=received_ns + call.queued_ns - call.received_ns if call.queued_ns else 0,
            queue_ns=call.queue_ns,
            input_ns=trace.input_ns,
            infer_ns=call.infer_ns if trace.batch_calls else 0,  # the run of an ensemble is its steps
            total_ns=total_ns,
            method=trace.method,
            model=call.model,
            version=name,
            arm=arm,
            revision=decision.revision if decision is not None else 0,
            reason=decision.reason if decision is not None else "",
            request_id=request_id,
            code=code.value,
            rows=call.rows,
            batch_calls=trace.batch_calls,
            batch_rows=trace.batch_rows,
            links=trace.links,
        )
        self._finished.append(finished)

    def take(self) -> list[FinishedTrace]:
        """Returns the traces that wait, which then wait no more."""
        taken = list(self._finished)
        self._finished.clear()
        return taken

    def counts(self) -> dict[str, object]:
        """Returns how many calls were sampled, and of how many of them the trace was dropped."""
        return {"sampled": self._sampled, "dropped": self._dropped}

    def exemplars(self) -> list[dict[str, object]]:
        """Returns the newest trace of each series and place of the latency histogram."""
        return [
            {
                "model": model,
                "version": version,
                "arm": arm,
                "place": place,
                "trace_id": trace_id,
                "seconds": seconds,
                "at_s": at_s,
            }
            for (model, version, arm, place), (trace_id, seconds, at_s) in self._exemplars.items()
        ]

    def forget(self, model: str, version: str) -> None:
        """Drops the exemplars of a version that has ended."""
        for key in [key for key in self._exemplars if key[0] == model and key[1] == version]:
            del self._exemplars[key]

    def _keep_exemplar(self, model: str, version: str, arm: str, trace_id: str, total_ns: int, ended_ns: int) -> None:
        key = (model, version, arm, latency_place(total_ns))
        if key in self._exemplars or len(self._exemplars) < _MOST_EXEMPLARS:
            self._exemplars[key] = (trace_id, total_ns / 1e9, ended_ns / 1e9)

    def _gap(self) -> int:
        """Returns how many calls pass before the next that is sampled, as if each had drawn; negative: all do."""
        if not 0.0 < self._ratio < 1.0:
            return 0 if self._ratio else -1
        return int(min(log(1.0 - self._random.random()) / log1p(-self._ratio), _LONGEST_GAP))

    def _id(self, bits: int) -> str:
        """Returns a new id that is not zero, which would be no id."""
        number = 0
        while not number:
            number = self._random.getrandbits(bits)
        return f"{number:0{bits // 4}x}"


def _state_within(state: str) -> str:
    """Returns the tracestate as far as it is kept, without a member that would be cut."""
    return state if len(state) <= _LONGEST_STATE else state[: _LONGEST_STATE + 1].rpartition(",")[0]
