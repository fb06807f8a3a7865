"""The engine: one inference request from admission to record, whatever edge it came in by.

An edge calls `begin` (permit, decision, lease), decodes its message against the version it got, calls `submit`, and
when `call.done` has run and the answer is sent, `finish`. None of them waits: no task, no store, no disk.
"""

import asyncio
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic_ns, time_ns
from typing import Protocol

from gateway.errors import Cancelled, Code, GatewayError, Internal, NotFound, Unavailable, VersionNotReady
from gateway.records.log import PredictionLog, RecordStream
from gateway.routing.decide import decide
from gateway.routing.decision import Attributes, Decision
from gateway.routing.snapshot import Snapshot
from gateway.serving.admission import Admission
from gateway.serving.batch import Batcher
from gateway.serving.call import Call
from gateway.serving.catalog import Catalog
from gateway.serving.version import Version
from gateway.telemetry.counters import Counters, Series


class Arm:
    """What one arm of one version counts and logs with."""

    __slots__ = ("series", "stream")

    def __init__(self, series: Series, stream: RecordStream) -> None:
        self.series = series
        self.stream = stream


class Routing(Protocol):
    """Where the engine reads the rules of the moment."""

    @property
    def snapshot(self) -> Snapshot: ...


class Engine:
    """Serves calls. Everything but the runs of long models happens on the loop it was made on."""

    def __init__(
        self,
        catalog: Catalog,
        routing: Routing,
        counters: Counters,
        log: PredictionLog,
        admission: Admission,
        *,
        threads: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._catalog = catalog
        self._routing = routing
        self._counters = counters
        self._log = log
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._parallel = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="run")
        self._draw = draw
        self._arms: dict[tuple[str, str, str], Arm] = {}
        # Requests without an id get one that no other worker or run of this worker gives.
        self._id_prefix = os.urandom(6).hex()
        self._unnamed = 0

    def attach(self, version: Version) -> None:
        """The version, which has just become able to run, has its queue."""
        version.batcher = Batcher(version, loop=self._loop, threads=self._threads, parallel=self._parallel)

    def detach(self, version: Version) -> None:
        """Nothing of a version that has ended is kept."""
        for key in [key for key in self._arms if key[0] == version.model and key[1] == version.name]:
            del self._arms[key]

    def begin(self, call: Call, attributes: Attributes) -> Version:
        """The version that serves the call, leased to it; `call.decision` says why.

        Raises: GatewayError (admission, routing, no such version); then nothing is held.
        """
        try:
            self._admission.take(call.size_bytes)
            try:
                decision = decide(self._routing.snapshot, call.model, attributes, self._draw(), now_s=time_ns() / 1e9)
                version = self._resolve(call, decision)
            except BaseException:
                self._admission.give(call.size_bytes)
                raise
        except GatewayError as error:
            self._counters.refused(error.code)
            raise
        arm = (call.decision or decision).arm
        call.version = version
        call.arm = self._arms.get((version.model, version.name, arm)) or self._arm(version, arm)
        version.lease()
        return version

    def submit(self, call: Call) -> None:
        """The call is answered exactly once by `call.done`, at once if its queue is full."""
        version = call.version
        if version is None or version.batcher is None:
            call.fail(Internal(call.request_id))
            return
        try:
            version.batcher.put(call)
        except GatewayError as error:
            call.fail(error)

    def cancel(self, call: Call, error: GatewayError | None = None) -> None:
        """The call is answered with `error` (Cancelled if none) now; its run is stopped if nobody else waits for it."""
        if call.answered:
            return
        batch = call.batch
        call.fail(error or Cancelled("the request was cancelled"))
        if batch is not None:
            batch.abandon()
        elif call.queued_ns and call.version is not None and call.version.batcher is not None:
            call.version.batcher.forget(call)
        call.inputs = ()

    def finish(self, call: Call, code: Code) -> None:
        """The lease and the permit of a begun call have ended; it is counted and recorded.

        Order: exactly once for each successful `begin`, after the answer was given to the transport.
        """
        version, arm, decision = call.version, call.arm, call.decision
        if version is None or arm is None or decision is None:
            raise ValueError("finish of a call that was not begun")
        total_ns = monotonic_ns() - call.received_ns
        arm.series.observe(code, call.queue_ns, call.infer_ns, total_ns)
        request_id = call.request_id
        if not request_id:
            self._unnamed += 1
            request_id = f"{self._id_prefix}-{self._unnamed:x}"
        arm.stream.append(
            time_ns() // 1000 - total_ns // 1000,
            request_id,
            code.value,
            decision.reason,
            decision.revision,
            decision.bucket,
            call.rows,
            call.queue_ns // 1000,
            call.infer_ns // 1000,
            total_ns // 1000,
            call.shapes,
            call.inputs,
            call.outputs,
        )
        self._admission.give(call.size_bytes)
        version.release()

    def drain(self) -> None:
        """No new call begins; those begun are answered."""
        self._admission.drain()

    @property
    def in_flight(self) -> int:
        """Calls begun and not finished."""
        return self._admission.requests

    def close(self) -> None:
        """The threads have ended.

        Order: after the last call was finished.
        """
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, call: Call, decision: Decision) -> Version:
        try:
            version = (
                self._catalog.version(call.model, decision.version)
                if decision.version
                else self._catalog.newest(call.model)
            )
        except (NotFound, Unavailable, VersionNotReady):
            if "NOT_LOADED" not in decision.fallback_on:
                raise
            for arm, name in decision.fallbacks:
                try:
                    version = self._catalog.version(call.model, name)
                except GatewayError:
                    continue
                call.decision = Decision(
                    arm, name, decision.revision, "FALLBACK:NOT_LOADED", decision.bucket, mirrors=decision.mirrors
                )
                return version
            raise
        call.decision = decision
        return version

    def _arm(self, version: Version, arm: str) -> Arm:
        made = Arm(
            self._counters.series(version.model, version.name, arm),
            self._log.stream(version.model, version.name, arm, version.inputs, version.outputs, version.digest),
        )
        self._arms[version.model, version.name, arm] = made
        return made
