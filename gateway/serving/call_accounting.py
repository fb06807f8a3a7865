"""What is kept of a call that has ended: its counts, its record in the prediction log, and its copies on mirrors."""

from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Final

from gateway.errors import Code
from gateway.records.worker.record import Record
from gateway.routing.decision.decision import Decision
from gateway.serving.arm_tally import JudgedRoutes
from gateway.serving.call import CACHED, Call
from gateway.serving.call_record import record_of
from gateway.serving.deferral import Deferral
from gateway.serving.foresight import Routing
from gateway.serving.mirroring import Mirrors
from gateway.serving.served_arm import ServedArm
from gateway.serving.version import Version

_OK: Final = Code.OK


class CallAccounting:
    """Accounts for each call once, and for each arm that handed it on. `judged` are the routes that rollouts judge."""

    def __init__(self, routing: Routing, judged: JudgedRoutes, mirrors: Mirrors) -> None:
        self._routing = routing
        self._judged = judged
        self._mirrors = mirrors

    def account(
        self,
        call: Call,
        code: Code,
        version: Version,
        arm: ServedArm,
        decision: Decision,
        request_id: str,
        *,
        logged: bool,
    ) -> None:
        """Counts a call that was answered, offers it to mirrors, and records it where it is `logged`."""
        total_ns = self._count(call, code, version, arm, decision)
        mirrored = bool(decision.mirrors) and code is _OK
        if not logged:
            if mirrored:
                self._mirror(call, arm, decision, request_id, _not_recorded)
            return
        record = self._record(call, code, arm, decision, request_id, total_ns)
        if mirrored:
            self._mirror(call, arm, decision, request_id, partial(arm.stream.append, record))
        else:
            arm.stream.append(record)

    def count_failure(self, call: Call, code: Code, arm: ServedArm, decision: Decision, now_ns: int) -> None:
        """Counts a call that this arm failed and another one of its chain goes on with."""
        total_ns = now_ns - call.received_ns
        arm.series.observe(code, 0, 0, total_ns)
        if self._judged.by_revision:
            tally = self._judged.compared(decision)
            if tally is not None:
                tally.observe(code, total_ns, decision.bucket)

    def _count(self, call: Call, code: Code, version: Version, arm: ServedArm, decision: Decision) -> int:
        """Counts a call that has ended, and returns how long it took in nanoseconds."""
        total_ns = monotonic_ns() - call.received_ns
        if call.cache_key == CACHED and code is _OK:
            arm.series.observe_hit(total_ns)
        else:
            arm.series.observe(code, call.queue_ns, call.infer_ns, total_ns)
        if self._judged.by_revision:
            tally = self._judged.compared(decision)
            if tally is not None:
                tally.observe(code, total_ns, decision.bucket)
                if tally.reads and code is _OK:
                    tally.read(version, call.outputs, call.wanted, decision.bucket)
        return total_ns

    def _record(
        self, call: Call, code: Code, arm: ServedArm, decision: Decision, request_id: str, total_ns: int
    ) -> Record:
        return record_of(
            call,
            request_id,
            code,
            reason=decision.reason,
            revision=decision.revision,
            bucket=decision.bucket,
            shapes=None if arm.fixed else call.shapes,
            total_ns=total_ns,
        )

    def _mirror(
        self, call: Call, arm: ServedArm, decision: Decision, request_id: str, append: Callable[..., None]
    ) -> None:
        """Offers the call to mirrors. It is recorded now, or after them where their answers may keep it."""
        deferral = Deferral(append) if arm.stream.keeps_disagreement else None
        if deferral is None:
            append()
        compiled = self._routing.snapshot.routes.get(call.model)
        if compiled is not None:
            self._mirrors.offer(call, decision.mirrors, compiled, request_id=request_id, deferral=deferral)
        if deferral is not None:
            deferral.release()


def _not_recorded(keep: int = 0) -> None:
    """Is what appends the record of a call that has none."""
