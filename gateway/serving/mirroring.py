"""Shadows: copies of answered calls that run on another version, and whose answers nobody waits for.

1. A call is offered after its answer was given. A copy takes references, no data; what does not fit into the bounds of
   its mirror, or comes while the worker has no room to spare, is dropped and counted.
2. Copies wait a moment for company and then run in a queue of their own, on a thread of lower priority where their runs
   are long: no copy is in a batch, a queue or a thread that an answered call could need. They wait on while calls wait
   for the same version.
3. The outputs are compared with those that were served; what the mirror asks for goes to the prediction log.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic_ns, time_ns
from typing import cast

from gateway.errors import Cancelled, Code, DeadlineExceeded, GatewayError
from gateway.records.worker.sampling import Kept
from gateway.routing.decision.compiled import CompiledRoute
from gateway.routing.decision.decision import Decision
from gateway.routing.document.mirror import Mirror, Tolerance
from gateway.serving.admission import Admission
from gateway.serving.batch import Batcher
from gateway.serving.call import Call, arrays_of, size_of
from gateway.serving.deferral import Deferral
from gateway.serving.mirror_comparison import Comparison, compare
from gateway.serving.mirror_limits import BUSY, MAX_BYTES, Room, Shop
from gateway.serving.substitute import same_contract, takes
from gateway.serving.version import Version, VersionState
from gateway.tensor import Buffer

# Copies that arrive within this time run together, after the calls that came with them.
PAUSE_S = 0.002
REASON = "SHADOW"


class Shadow(Call):
    """The copy of an answered call. It keeps what the call was given and what it was answered."""

    __slots__ = ("batcher", "bucket", "deferral", "held_bytes", "primary", "revision", "served")

    def __init__(
        self,
        line: "Line",
        call: Call,
        primary: Version,
        decision: Decision,
        *,
        request_id: str,
        deferral: Deferral | None,
    ) -> None:
        deadline_ns = monotonic_ns() + line.settings.deadline_ms * 1_000_000
        super().__init__(call.model, "", request_id, line.ended, deadline_ns=deadline_ns)
        self.inputs, self.shapes, self.rows, self.wanted = call.inputs, call.shapes, call.rows, call.wanted
        self.batcher: Batcher | None = None
        self.deferral = deferral
        if deferral is not None:
            deferral.hold()
        self.primary = primary
        self.served: Sequence[Buffer] = call.outputs
        self.bucket, self.revision = decision.bucket, decision.revision
        self.held_bytes = call.size_bytes + sum(size_of(output) for output in call.outputs)


class Line:
    """One mirror of one route: its copies that wait and run, and what became of the others."""

    __slots__ = (
        "_batcher",
        "_expiry",
        "_pump",
        "arm",
        "compiled",
        "largest",
        "outcomes",
        "room",
        "rows",
        "running",
        "same_rows",
        "settings",
        "tolerances",
        "version",
        "waiting",
    )

    def __init__(self, arm: str, settings: Mirror, compiled: CompiledRoute, room: Room) -> None:
        self.arm = arm
        self.room = room
        self.waiting: deque[Shadow] = deque()
        self.running: dict[Shadow, None] = {}  # oldest first
        self.outcomes: dict[str, int] = {}
        self.rows = self.same_rows = 0
        self.largest = 0.0
        self.version: Version | None = None  # the one that `_batcher` runs
        self._batcher: Batcher | None = None
        self._pump: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.follow(settings, compiled)

    def follow(self, settings: Mirror, compiled: CompiledRoute) -> None:
        """From now on the mirror is as this route has it."""
        self.settings = settings
        self.compiled = compiled
        self.tolerances: Mapping[str, Tolerance] = {tolerance.output: tolerance for tolerance in settings.compare}

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def offer(self, call: Call, target: str, *, request_id: str, deferral: Deferral | None) -> None:
        """The call is copied, or the reason why not is counted. Nothing of it runs before this returns."""
        primary, decision = call.version, call.decision
        if primary is None or decision is None or primary.name == target:
            return
        refusal = self._refusal(call, primary, target)
        if refusal:
            self.count(refusal)
            return
        shadow = Shadow(self, call, primary, decision, request_id=request_id, deferral=deferral)
        self.room.held_bytes += shadow.held_bytes
        self.waiting.append(shadow)
        self._schedule()

    def _refusal(self, call: Call, primary: Version, target: str) -> str:
        settings, room = self.settings, self.room
        if len(self.waiting) + len(self.running) >= settings.max_inflight + settings.queue:
            return "dropped_full"
        if room.admission.load > BUSY:
            return "dropped_busy"
        if settings.shed_above_cpu < 1 and room.cpu_share() > settings.shed_above_cpu:
            return "dropped_cpu"
        if room.held_bytes + call.size_bytes > MAX_BYTES:
            return "dropped_bytes"
        try:
            version = room.shop.find(call.model, target)
        except GatewayError:
            return "dropped_not_loaded"
        if version is not self.version:
            self._equip(version)
        return "" if self._fits(call, primary, version) else "dropped_contract"

    def _equip(self, version: Version) -> None:
        """Copies run on this version from now on; differences to the one before it say nothing any more."""
        self.version = version
        self.largest = 0.0
        self._batcher = Batcher(version, loop=self.room.loop, threads=self.room.threads, parallel=1)

    def _fits(self, call: Call, primary: Version, version: Version) -> bool:
        return same_contract(primary, version) and takes(version, call.rows)

    # ---- running ----

    def _schedule(self) -> None:
        if self._pump is None:
            self._pump = self.room.loop.call_later(PAUSE_S, self._run)

    def _run(self) -> None:
        """Those that wait run, as many as may run together."""
        self._pump = None
        now_ns = monotonic_ns()
        while self.waiting and now_ns >= self.waiting[0].deadline_ns:
            self._drop(self.waiting.popleft(), "dropped_deadline")
        version, batcher = self.version, self._batcher
        if version is None or batcher is None or version.state is not VersionState.AVAILABLE:
            self._drop_waiting("dropped_not_loaded")
            return
        if version.batcher is not None and version.batcher.queued:
            self._schedule()
            return
        while self.waiting and len(self.running) < self.settings.max_inflight:
            shadow = self.waiting.popleft()
            if self._fits(shadow, shadow.primary, version):
                self._start(shadow, version, batcher)
            else:
                self._drop(shadow, "dropped_contract")

    def _start(self, shadow: Shadow, version: Version, batcher: Batcher) -> None:
        shadow.version, shadow.batcher = version, batcher
        self.room.shop.shadow_batch(version, self.arm, shadow)
        version.lease()
        self.running[shadow] = None
        try:
            batcher.put(shadow)
        except GatewayError as error:
            shadow.fail(error)
            return
        if self._expiry is None:
            delay_s = max(0.0, (shadow.deadline_ns - monotonic_ns()) / 1e9)
            self._expiry = self.room.loop.call_later(delay_s, self._expire)

    def _expire(self) -> None:
        """Copies whose time is over have ended; the runs that nobody else waits for are stopped."""
        self._expiry = None
        now_ns = monotonic_ns()
        for shadow in list(self.running):
            if shadow.deadline_ns > now_ns:
                delay_s = (shadow.deadline_ns - now_ns) / 1e9
                self._expiry = self.room.loop.call_later(delay_s, self._expire)
                return
            self._stop(shadow, DeadlineExceeded("the deadline of the mirror passed"))

    def _stop(self, shadow: Shadow, error: GatewayError) -> None:
        batch = shadow.batch
        shadow.fail(error)
        if batch is not None:
            batch.abandon()
        elif shadow.batcher is not None:
            shadow.batcher.forget(shadow)

    def ended(self, call: Call) -> None:
        """The copy was compared, counted and logged; it is `done` of every copy."""
        shadow, version = cast(Shadow, call), cast(Version, call.version)
        del self.running[shadow]
        self.room.held_bytes -= shadow.held_bytes
        error = shadow.error
        if error is None:
            outcome = self._compared(shadow, version)
        elif isinstance(error, DeadlineExceeded):
            outcome = "dropped_deadline"
        else:
            outcome = "error"
        self.count(outcome)
        differs = outcome == "differ"
        if self.settings.logged == "all" or (self.settings.logged == "diffs" and (differs or outcome == "error")):
            self._log(shadow, version, Code.OK if error is None else error.code, differs=differs)
        if shadow.deferral is not None:
            shadow.deferral.release(differs=differs)
        version.release()
        if self.waiting:
            self._schedule()

    def _compared(self, shadow: Shadow, version: Version) -> str:
        specs, wanted = version.outputs, shadow.wanted
        served_specs = shadow.primary.outputs
        if wanted is not None:
            specs = tuple(specs[index] for index in wanted)
            served_specs = tuple(served_specs[index] for index in wanted)
        served = arrays_of(shadow.served, served_specs, shadow.rows)
        found: Comparison = compare(specs, served, arrays_of(shadow.outputs, specs, shadow.rows), self.tolerances)
        self.rows += found.rows
        self.same_rows += found.same_rows
        self.largest = max(self.largest, found.max_difference)
        return "agree" if found.agrees else "differ"

    def _log(self, shadow: Shadow, version: Version, code: Code, *, differs: bool) -> None:
        total_ns = monotonic_ns() - shadow.received_ns
        stream = self.room.shop.shadow_stream(version, self.arm, shadow.primary.name)
        stream.append(
            time_ns() // 1000 - total_ns // 1000,
            shadow.request_id,
            code.value,
            REASON,
            shadow.revision,
            shadow.bucket,
            shadow.rows,
            shadow.queue_ns // 1000,
            shadow.infer_ns // 1000,
            total_ns // 1000,
            shadow.shapes,
            shadow.inputs,
            shadow.outputs,
            shadow.wanted,
            Kept.DISAGREEMENT if differs and stream.keeps_disagreement else 0,
        )

    # ---- its end ----

    def forget(self, version: Version) -> None:
        """Nothing of a version that has ended is kept; the copies that waited for it are dropped."""
        if self.version is version:
            self.version = self._batcher = None

    def close(self) -> None:
        """No copy waits or runs any more."""
        self._drop_waiting("dropped_closed")
        for shadow in list(self.running):
            self._stop(shadow, Cancelled("the worker ends"))
        for timer in (self._pump, self._expiry):
            if timer is not None:
                timer.cancel()
        self._pump = self._expiry = None

    def _drop_waiting(self, outcome: str) -> None:
        while self.waiting:
            self._drop(self.waiting.popleft(), outcome)

    def _drop(self, shadow: Shadow, outcome: str) -> None:
        self.room.held_bytes -= shadow.held_bytes
        self.count(outcome)
        if shadow.deferral is not None:
            shadow.deferral.release()


class Shadows:
    """The mirrors of a worker, by model and arm."""

    __slots__ = ("_lines", "_room")

    def __init__(self, shop: Shop, admission: Admission, loop: asyncio.AbstractEventLoop, *, cpus: float) -> None:
        self._room = Room(shop, admission, loop, cpus=cpus)
        self._lines: dict[tuple[str, str], Line] = {}

    def offer(
        self,
        call: Call,
        mirrors: Sequence[tuple[str, str]],
        compiled: CompiledRoute,
        *,
        request_id: str,
        deferral: Deferral | None = None,
    ) -> None:
        """Copies of the call go to these mirrors, as far as there is room; each holds `deferral` until it has ended.

        Order: after the call was answered.
        """
        for arm, version in mirrors:
            line = self._line(call.model, arm, compiled)
            if line is not None:
                line.offer(call, version, request_id=request_id, deferral=deferral)

    def _line(self, model: str, arm: str, compiled: CompiledRoute) -> Line | None:
        """The mirror's line; None if the route has lost the mirror since the call was decided."""
        line = self._lines.get((model, arm))
        if line is not None and line.compiled is compiled:
            return line
        settings = next((mirror for mirror in compiled.route.document.mirrors if mirror.arm == arm), None)
        if settings is None:
            return None
        if line is None:
            line = self._lines[model, arm] = Line(arm, settings, compiled, self._room)
        else:
            line.follow(settings, compiled)
        return line

    def forget(self, version: Version) -> None:
        for line in self._lines.values():
            line.forget(version)

    def close(self) -> None:
        for line in self._lines.values():
            line.close()
        self._room.close()

    def counts(self) -> dict[str, object]:
        """What became of copies, and rows whose highest scores were compared, by model and arm."""
        tree: dict[str, dict[str, object]] = {}
        for (model, arm), line in self._lines.items():
            counted = {"outcomes": dict(line.outcomes), "rows": line.rows, "same_rows": line.same_rows}
            tree.setdefault(model, {})[arm] = counted
        return dict(tree)

    def differences(self) -> list[dict[str, object]]:
        """The largest absolute difference of each mirror's present version."""
        return [{"model": model, "arm": arm, "value": line.largest} for (model, arm), line in self._lines.items()]
