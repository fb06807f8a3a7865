"""Mirrors: answered calls run once more on another version, and nobody waits for the answer.

1. A call is offered after its answer was given. A mirrored call takes references, no data; what does not fit into the
   bounds of its mirror, or comes while the worker has no resources to spare, is dropped and counted.
2. Mirrored calls wait a moment for company and then run in a queue of their own, on a thread of lower priority where
   their runs are long: they never stand in a batch, a queue or a thread that a caller's call could need. They wait on
   while calls wait for the same version.
3. The outputs are compared with those that were served; what the mirror asks for goes to the prediction log.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic_ns
from typing import cast

from gateway.errors import Cancelled, Code, DeadlineExceeded, GatewayError
from gateway.records.worker.sampling import CHOSEN_COPY, Kept
from gateway.routing.decision.compiled import CompiledRoute
from gateway.routing.decision.decision import Decision
from gateway.routing.document.mirror import Mirror, Tolerance
from gateway.serving.admission import Admission
from gateway.serving.batcher import Batcher
from gateway.serving.call import UNCACHED, Call, arrays_of, size_of
from gateway.serving.call_record import record_of
from gateway.serving.deferral import Deferral
from gateway.serving.mirror_comparison import Comparison, compare
from gateway.serving.mirror_resources import BUSY, MAX_BYTES, MirrorHost, MirrorResources
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.substitute import same_contract, takes
from gateway.serving.version import Version, VersionState
from gateway.serving.version_queue import VersionQueue
from gateway.tensor import Buffer

# Mirrored calls that arrive within this time run together, after the calls that came with them.
PAUSE_S = 0.002
REASON = "SHADOW"
LAST_CLASS = 3  # behind every class that a client's call may have (access/priority)


class MirroredCall(Call):
    """An answered call that runs once more. It keeps what the call was given and what it was answered."""

    __slots__ = ("batcher", "bucket", "deferral", "held_bytes", "primary", "revision", "served")

    def __init__(
        self,
        queue: "MirrorQueue",
        call: Call,
        primary: Version,
        decision: Decision,
        *,
        request_id: str,
        deferral: Deferral | None,
    ) -> None:
        deadline_ns = monotonic_ns() + queue.settings.deadline_ms * 1_000_000
        super().__init__(call.model, "", request_id, queue, deadline_ns=deadline_ns)
        self.inputs, self.shapes, self.rows, self.wanted = call.inputs, call.shapes, call.rows, call.wanted
        self.batcher: VersionQueue | None = None
        self.deferral = deferral
        if deferral is not None:
            deferral.hold()
        self.primary = primary
        self.served: Sequence[Buffer] = call.outputs
        self.bucket, self.revision = decision.bucket, decision.revision
        self.held_bytes = call.size_bytes + sum(size_of(output) for output in call.outputs)


class MirrorQueue:
    """One mirror of one route: its calls that wait and run, and what became of the others."""

    __slots__ = (
        "_batcher",
        "_expiry",
        "_pump",
        "arm",
        "compiled",
        "largest",
        "outcomes",
        "resources",
        "rows",
        "running",
        "same_rows",
        "settings",
        "tolerances",
        "version",
        "waiting",
    )

    def __init__(self, arm: str, settings: Mirror, compiled: CompiledRoute, resources: MirrorResources) -> None:
        self.arm = arm
        self.resources = resources
        self.waiting: deque[MirroredCall] = deque()
        self.running: dict[MirroredCall, None] = {}  # oldest first
        self.outcomes: dict[str, int] = {}
        self.rows = self.same_rows = 0
        self.largest = 0.0
        self.version: Version | None = None  # the one that `_batcher` runs
        self._batcher: VersionQueue | None = None
        self._pump: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.follow(settings, compiled)

    def follow(self, settings: Mirror, compiled: CompiledRoute) -> None:
        """Takes the mirror's settings from this route."""
        self.settings = settings
        self.compiled = compiled
        self.tolerances: Mapping[str, Tolerance] = {tolerance.output: tolerance for tolerance in settings.compare}

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def offer(self, call: Call, target: str, *, request_id: str, deferral: Deferral | None) -> None:
        """Queues the call, or counts the reason why not. Nothing of it runs before this returns."""
        primary, decision = call.version, call.decision
        if primary is None or decision is None or primary.name == target:
            return
        refusal = self._refusal(call, primary, target)
        if refusal:
            self.count(refusal)
            return
        mirrored = MirroredCall(self, call, primary, decision, request_id=request_id, deferral=deferral)
        self.resources.held_bytes += mirrored.held_bytes
        self.waiting.append(mirrored)
        self._schedule()

    def _refusal(self, call: Call, primary: Version, target: str) -> str:
        settings, resources = self.settings, self.resources
        if len(self.waiting) + len(self.running) >= settings.max_inflight + settings.queue:
            return "dropped_full"
        if resources.admission.load > BUSY:
            return "dropped_busy"
        if settings.shed_above_cpu < 1 and resources.cpu_share() > settings.shed_above_cpu:
            return "dropped_cpu"
        if resources.held_bytes + call.size_bytes > MAX_BYTES:
            return "dropped_bytes"
        try:
            version = resources.host.find(call.model, target)
        except GatewayError:
            return "dropped_not_loaded"
        if version.is_cold:
            return "dropped_not_loaded"
        if version is not self.version:
            self._equip(version)
        return "" if self._fits(call, primary, version) else "dropped_contract"

    def _equip(self, version: Version) -> None:
        """Runs mirrored calls on this version from now on; the differences of the one before it are dropped."""
        self.version = version
        self.largest = 0.0
        resources = self.resources
        self._batcher = resources.host.own_queue(version) or Batcher(
            version, loop=resources.loop, threads=resources.threads, parallel=1, shared=resources.shared
        )

    def _fits(self, call: Call, primary: Version, version: Version) -> bool:
        return same_contract(primary, version) and takes(version, call.rows)

    # ---- running ----

    def _schedule(self) -> None:
        if self._pump is None:
            self._pump = self.resources.loop.call_later(PAUSE_S, self._run)

    def _run(self) -> None:
        """Starts those that wait, as many as may run together."""
        self._pump = None
        now_ns = monotonic_ns()
        while self.waiting and now_ns >= self.waiting[0].deadline_ns:
            self._drop(self.waiting.popleft(), "dropped_deadline")
        version, batcher = self.version, self._batcher
        if version is None or batcher is None or version.state is not VersionState.AVAILABLE:
            self._drop_waiting("dropped_not_loaded")
            return
        if self.resources.host.queued(version):
            self._schedule()
            return
        while self.waiting and len(self.running) < self.settings.max_inflight:
            mirrored = self.waiting.popleft()
            if self._fits(mirrored, mirrored.primary, version):
                self._start(mirrored, version, batcher)
            else:
                self._drop(mirrored, "dropped_contract")

    def _start(self, mirrored: MirroredCall, version: Version, batcher: VersionQueue) -> None:
        mirrored.version, mirrored.batcher = version, batcher
        if version.session is None:  # what it calls on runs beside the calls of clients
            mirrored.level, mirrored.cache_key = LAST_CLASS, UNCACHED
        self.resources.host.mirror_batch(version, self.arm, mirrored)
        version.lease()
        self.running[mirrored] = None
        try:
            batcher.put(mirrored)
        except GatewayError as error:
            mirrored.fail(error)
            return
        if self._expiry is None:
            delay_s = max(0.0, (mirrored.deadline_ns - monotonic_ns()) / 1e9)
            self._expiry = self.resources.loop.call_later(delay_s, self._expire)

    def _expire(self) -> None:
        """Ends the mirrored calls whose time is over, and stops the runs that nobody else waits for."""
        self._expiry = None
        now_ns = monotonic_ns()
        for mirrored in list(self.running):
            if mirrored.deadline_ns > now_ns:
                delay_s = (mirrored.deadline_ns - now_ns) / 1e9
                self._expiry = self.resources.loop.call_later(delay_s, self._expire)
                return
            self._stop(mirrored, DeadlineExceeded("the deadline of the mirror passed"))

    def _stop(self, mirrored: MirroredCall, error: GatewayError) -> None:
        batch = mirrored.batch
        mirrored.fail(error)
        if batch is not None:
            batch.abandon()
        elif mirrored.batcher is not None:
            mirrored.batcher.forget(mirrored)

    def submitted(self, call: Call) -> None:
        pass

    def withdrawn(self, call: Call) -> None:
        pass

    def answered(self, call: Call) -> None:
        """Compares, counts and logs a mirrored call that has its outcome."""
        mirrored, version = cast(MirroredCall, call), cast(Version, call.version)
        del self.running[mirrored]
        self.resources.held_bytes -= mirrored.held_bytes
        error = mirrored.error
        if error is None:
            outcome = self._compared(mirrored, version)
        elif isinstance(error, DeadlineExceeded):
            outcome = "dropped_deadline"
        else:
            outcome = "error"
        self.count(outcome)
        judged = self.resources.shared.judged
        if judged.by_revision and outcome != "dropped_deadline":
            self._judge(mirrored, version, Code.OK if error is None else error.code)
        differs = outcome == "differ"
        if self.settings.logged == "all" or (self.settings.logged == "diffs" and (differs or outcome == "error")):
            self._log(mirrored, version, Code.OK if error is None else error.code, differs=differs)
        if mirrored.deferral is not None:
            mirrored.deferral.release(differs=differs)
        version.release()
        if self.waiting:
            self._schedule()

    def _judge(self, mirrored: MirroredCall, version: Version, code: Code) -> None:
        tally = self.resources.shared.judged.shadowed(mirrored.revision, self.arm)
        if tally is not None:
            tally.shadow(code)
            if tally.reads and code is Code.OK:
                tally.read(version, mirrored.outputs, mirrored.wanted, mirrored.bucket)

    def _compared(self, mirrored: MirroredCall, version: Version) -> str:
        specs, wanted = version.outputs, mirrored.wanted
        served_specs = mirrored.primary.outputs
        if wanted is not None:
            specs = tuple(specs[index] for index in wanted)
            served_specs = tuple(served_specs[index] for index in wanted)
        served = arrays_of(mirrored.served, served_specs, mirrored.rows)
        comparison: Comparison = compare(
            specs, served, arrays_of(mirrored.outputs, specs, mirrored.rows), self.tolerances
        )
        self.rows += comparison.rows
        self.same_rows += comparison.same_rows
        self.largest = max(self.largest, comparison.max_difference)
        judged = self.resources.shared.judged
        if judged.by_revision:
            rows, differing = comparison.judged_rows
            judged.mirror(mirrored.revision, self.arm, rows, differing)
        return "agree" if comparison.agrees else "differ"

    def _log(self, mirrored: MirroredCall, version: Version, code: Code, *, differs: bool) -> None:
        total_ns = monotonic_ns() - mirrored.received_ns
        stream = self.resources.host.mirror_stream(version, self.arm, mirrored.primary.name)
        record = record_of(
            mirrored,
            mirrored.request_id,
            code,
            reason=REASON if self.settings.logged == "all" else CHOSEN_COPY,
            revision=mirrored.revision,
            bucket=mirrored.bucket,
            shapes=mirrored.shapes,
            total_ns=total_ns,
        )
        stream.append(record, Kept.DISAGREEMENT if differs and stream.keeps_disagreement else 0)

    # ---- its end ----

    def forget(self, version: Version) -> None:
        """Keeps nothing of a version that has ended; the calls that waited for it are dropped."""
        if self.version is version:
            self.version = self._batcher = None

    def close(self) -> None:
        """Ends every mirrored call that waits or runs."""
        self._drop_waiting("dropped_closed")
        for mirrored in list(self.running):
            self._stop(mirrored, Cancelled("the worker ends"))
        for timer in (self._pump, self._expiry):
            if timer is not None:
                timer.cancel()
        self._pump = self._expiry = None

    def _drop_waiting(self, outcome: str) -> None:
        while self.waiting:
            self._drop(self.waiting.popleft(), outcome)

    def _drop(self, mirrored: MirroredCall, outcome: str) -> None:
        self.resources.held_bytes -= mirrored.held_bytes
        self.count(outcome)
        if mirrored.deferral is not None:
            mirrored.deferral.release()


class Mirrors:
    """The mirrors of a worker, by model and arm."""

    __slots__ = ("_queues", "_resources")

    def __init__(
        self,
        host: MirrorHost,
        admission: Admission,
        loop: asyncio.AbstractEventLoop,
        shared: SharedRunState,
        *,
        cpus: float,
    ) -> None:
        self._resources = MirrorResources(host, admission, loop, shared, cpus=cpus)
        self._queues: dict[tuple[str, str], MirrorQueue] = {}

    def offer(
        self,
        call: Call,
        mirrors: Sequence[tuple[str, str]],
        compiled: CompiledRoute,
        *,
        request_id: str,
        deferral: Deferral | None = None,
    ) -> None:
        """Offers the call to these mirrors, as far as resources allow; each that takes it holds `deferral`.

        Order: after the call was answered.
        """
        for arm, version in mirrors:
            queue = self._queue_of(call.model, arm, compiled)
            if queue is not None:
                queue.offer(call, version, request_id=request_id, deferral=deferral)

    def _queue_of(self, model: str, arm: str, compiled: CompiledRoute) -> MirrorQueue | None:
        """Returns the mirror's queue; None if the route has lost the mirror since the call was decided."""
        queue = self._queues.get((model, arm))
        if queue is not None and queue.compiled is compiled:
            return queue
        settings = next((mirror for mirror in compiled.route.document.effective_mirrors() if mirror.arm == arm), None)
        if settings is None:
            return None
        if queue is None:
            queue = self._queues[model, arm] = MirrorQueue(arm, settings, compiled, self._resources)
        else:
            queue.follow(settings, compiled)
        return queue

    def forget(self, version: Version) -> None:
        for queue in self._queues.values():
            queue.forget(version)

    def close(self) -> None:
        for queue in self._queues.values():
            queue.close()
        self._resources.close()

    def counts(self) -> dict[str, object]:
        """Returns what became of mirrored calls, and the rows whose highest scores were compared, by model and arm."""
        tree: dict[str, dict[str, object]] = {}
        for (model, arm), queue in self._queues.items():
            counted = {"outcomes": dict(queue.outcomes), "rows": queue.rows, "same_rows": queue.same_rows}
            tree.setdefault(model, {})[arm] = counted
        return dict(tree)

    def differences(self) -> list[dict[str, object]]:
        """Returns the largest absolute difference of each mirror's present version."""
        return [{"model": model, "arm": arm, "value": queue.largest} for (model, arm), queue in self._queues.items()]
