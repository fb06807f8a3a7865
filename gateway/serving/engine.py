"""The engine: one inference request from admission to record, whatever edge it came in by.

An edge calls `enter` (permit, decision, lease), decodes its message against the version it got, calls `submit`, and
when `call.done` has run and the answer is sent, `finish`. None of them waits: no task, no store, no disk.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from time import monotonic_ns, time_ns
from typing import Final, cast

from gateway.errors import Cancelled, Code, GatewayError, Internal, InvalidArgument, NotFound, Overloaded, Unavailable
from gateway.records.worker.back_pressure import BackPressure
from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.record_stream import RecordStream
from gateway.routing.decision.decide import decide
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.attributes import Attributes
from gateway.serving.admission import Admission
from gateway.serving.call import Call
from gateway.serving.call_accounting import CallAccounting
from gateway.serving.catalog import Catalog
from gateway.serving.cold_queue import ColdQueue
from gateway.serving.ensemble_loads import EnsembleLoads
from gateway.serving.ensemble_queue import EnsembleQueue
from gateway.serving.ensemble_warm_up import warm_ensemble
from gateway.serving.fallback import ChainReceiver, Fallbacks
from gateway.serving.foresight import Foresight, Routing
from gateway.serving.mirroring import LAST_CLASS, REASON, Mirrors
from gateway.serving.model_kind import ModelKind
from gateway.serving.queue_maker import QueueMaker
from gateway.serving.run_page import VersionKey
from gateway.serving.served_arms import ServedArms
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.tracer import Tracer
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue
from gateway.serving.wait_check import WaitCheck, share_of
from gateway.telemetry.counters import Counters
from gateway.telemetry.keys import Gauge, Sum
from gateway.threads import started_threads

# How the reason begins of a version that does not run.
QUARANTINED: Final = "quarantined: "
_EXHAUSTED: Final = Code.RESOURCE_EXHAUSTED
_PIN: Final = "PIN"
_UNJUDGED: Final = -2  # as the revision of a decision: that of no route, and not the -1 of none that was looked up


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
        shared: SharedRunState | None = None,
        tracer: Tracer | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.tracer = tracer
        self._catalog = catalog
        self._routing = routing
        self._counters = counters
        self._log = log
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._threads = started_threads(threads, "run")
        self._draw = draw
        self._queues: dict[Version, VersionQueue] = {}
        self._arms = ServedArms(counters, log)
        self._shared = shared or SharedRunState()
        self._shared.traced = tracer is not None
        self._queue_maker = QueueMaker(catalog, self._loop, self._threads, threads, self._shared, draw)
        self._wait_check = WaitCheck(draw)
        self.foresight = Foresight(catalog, routing, counters, admission, self._queues, self._wait_check)
        self._refusals = self._shared.refusals
        self._fallbacks = Fallbacks(self.find)
        catalog.describe_by(ModelKind.ENSEMBLE, EnsembleLoads(catalog, partial(warm_ensemble, self)).describe)
        self.queue_by(ModelKind.ENSEMBLE, self._ensemble_queue)
        self._mirrors = Mirrors(self, admission, self._loop, self._shared, cpus=threads)
        self._accounting = CallAccounting(routing, self._shared.judged, self._mirrors)
        catalog.attach_failed(self.not_loaded)
        counters.add_sums(Sum.FALLBACKS, self._fallbacks.counts)
        counters.add_sums(Sum.SHADOWS, self._mirrors.counts)
        counters.add_gauge(Gauge.BREAKERS, lambda: self._fallbacks.states(routing.snapshot, monotonic_ns()))
        counters.add_gauge(Gauge.SHADOW_DIFFERENCES, self._mirrors.differences)

    def queue_by(self, kind: ModelKind, queue_of: Callable[[Version], VersionQueue]) -> None:
        """Has `queue_of` make the queue of each version of that kind, which has no session.

        Order: before the first load.
        """
        self._queue_maker.kinds[kind] = queue_of

    def attach(self, version: Version) -> None:
        """Gives a version that has just become able to run its queue, or another one where it came into memory or left
        it; calls that wait for it to come are handed over.
        """
        before = self._queues.get(version)
        queue = self._queues[version] = self._queue_maker.queue_of(version)
        if isinstance(before, ColdQueue):
            before.hand_over(queue)
        elif before is not None:
            before.end()
            self._mirrors.forget(version)

    def not_loaded(self, version: Version, error: GatewayError) -> None:
        """Answers the calls that wait for a version to be loaded, which has failed."""
        queue = self._queues.get(version)
        if isinstance(queue, ColdQueue):
            queue.fail(error)

    def _ensemble_queue(self, version: Version) -> VersionQueue:
        return EnsembleQueue(version, self)

    def detach(self, version: Version) -> None:
        """Keeps nothing of a version that has ended."""
        self._arms.forget(version)
        queue = self._queues.pop(version, None)
        if queue is not None:
            queue.end()
        self._mirrors.forget(version)
        if self.tracer is not None:
            self.tracer.forget(version.model, version.name)
        if not any(_key(other) == _key(version) for other in self._queues):
            self._shared.page.forget(_key(version))
            self._log.forget(version.model, version.name, version.digest)

    def enter(self, call: Call, attributes: Attributes) -> Overloaded | None:
        """Leases the version that serves the call, as `call.version`; `call.decision` says why.

        Returns the refusal where its queue is too long: an exception costs more than all else of a call that ends so,
        and under overload most do.

        Raises: GatewayError (admission, routing, no such version). Then, and with a refusal, nothing is held.
        """
        try:
            self._admission.take(call.size_bytes, call.level)
            try:
                snapshot = self._routing.snapshot
                decision = decide(snapshot, call.model, attributes, self._draw(), now_s=time_ns() / 1e9)
                refusal = self._decided(call, decision, snapshot)
            except BaseException:
                self._admission.give(call.size_bytes)
                raise
        except GatewayError as error:
            self._counters.refused(error.code)
            raise
        if refusal is not None:
            self._admission.give(call.size_bytes)
            self._counters.refused(_EXHAUSTED)
        return refusal

    def _decided(self, call: Call, decision: Decision, snapshot: Snapshot) -> Overloaded | None:
        """Leases the version that was decided, or the first of its chain that can serve; returns the refusal, with
        nothing held, where its queue is too long.

        Raises: GatewayError; then nothing is held.
        """
        if decision.fallback_on:
            version = self._fallbacks.begin(call, decision, snapshot, self._hand_on)
            decision = call.decision or decision
        elif decision.version:
            version = self.find(call.model, decision.version)
        else:
            version = self._permitted(self._catalog.newest(call.model))
        if version.backlog and not decision.fallback_on:
            queue, share = self._queues.get(version), share_of(call.size_bytes)
            refusal = self._wait_check.refusal(queue, version, call.deadline_ns, call.level, share)
            if refusal is not None:
                return refusal
        call.decision = decision
        call.version = version
        call.arm = self._arms.of(version, decision.arm)
        version.lease()
        return None

    def submit(self, call: Call) -> None:
        """Queues the call, whose receiver is given the outcome exactly once, at once if the queue is full.

        A call of a route with a chain is answered by the first arm that can; `call.version` and `call.decision` say
        which when the receiver has the outcome.
        """
        call.receiver.submitted(call)
        self._put(call)

    def cancel(self, call: Call, error: GatewayError | None = None) -> None:
        """Answers the call with `error` (Cancelled if none) now; stops its run if no other call waits for it."""
        if call.answered:
            return
        call.receiver.withdrawn(call)
        batch = call.batch
        call.fail(error or Cancelled("the request was cancelled"))
        if batch is not None:
            batch.abandon()
        elif call.queued_ns and call.version is not None:
            queue = self._queues.get(call.version)
            if queue is not None:
                queue.forget(call)
        call.inputs = ()

    def finish(self, call: Call, code: Code) -> None:
        """Counts and records a begun call, and ends its lease and its permit.

        Order: exactly once for each call that `enter` has taken, after the answer was given to the transport.
        """
        version, arm, decision = call.version, call.arm, call.decision
        if version is None or arm is None or decision is None:
            raise ValueError("finish of a call that was not begun")
        self._accounting.account(call, code, version, arm, decision, self.name(call), logged=True)
        self._admission.give(call.size_bytes)
        version.release()

    def name(self, call: Call) -> str:
        """Returns the id under which the call is recorded: its own, or one made for it."""
        return self._shared.ids.of(call)

    def show_quarantine(self) -> None:
        """Gives the versions that must not run a reason that operators see, and takes it from those that may again."""
        self._refusals.follow()
        for version in self._queues:
            charge = self._refusals.charge(_key(version))
            if charge:
                version.reason = f"{QUARANTINED}{charge}"
            elif version.reason.startswith(QUARANTINED):
                version.reason = ""

    def drain(self) -> None:
        """Lets no new call begin; those begun are answered."""
        self._admission.drain()

    @property
    def back_pressure(self) -> BackPressure | None:
        """Returns what holds answers back while the log is full; None where no answer ever waits."""
        return self._log.back_pressure

    @property
    def in_flight(self) -> int:
        """Returns how many calls are begun and not finished."""
        return self._admission.requests

    def close(self) -> None:
        """Ends the threads and the mirrored calls that wait.

        Order: after the last call was finished.
        """
        self._mirrors.close()
        self._shared.watch.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ---- what steps of ensembles need ----

    def begin_step(self, call: Call, attributes: Attributes) -> Version:
        """As `enter`, for a call within another one, which holds the permit; `call.requested_version` is obeyed
        whatever clients may choose, but for a kill switch.

        Nobody waits for a step of a mirrored ensemble, or of a warm-up: it is not judged, mirrored or recorded, and has
        no chain, so that the rollouts and breakers of its model see what callers see. It has no attributes either: a
        route that refuses calls without a key sends it where it sends what no rule and no split decides.

        Raises: GatewayError; Unavailable where there is no such version now.
        """
        snapshot, wanted = self._routing.snapshot, call.requested_version
        if wanted:
            compiled = snapshot.routes.get(call.model)
            kill = compiled.kill if compiled is not None else None
            decision = kill or Decision("", wanted, snapshot.revision, _PIN)
        else:
            try:
                decision = decide(snapshot, call.model, attributes, self._draw(), now_s=time_ns() / 1e9)
            except InvalidArgument:
                if call.level != LAST_CLASS:
                    raise
                decision = snapshot.routes[call.model].default
        if call.level == LAST_CLASS:
            decision = Decision(decision.arm, decision.version, _UNJUDGED, REASON)
        try:
            refusal = self._decided(call, decision, snapshot)
        except NotFound as gone:
            raise Unavailable(str(gone)) from None
        if refusal is not None:
            raise refusal
        return cast(Version, call.version)

    def finish_step(self, call: Call, code: Code, *, logged: bool) -> None:
        """As `finish`, for a call begun by `begin_step`; it is recorded where it is `logged`."""
        version, arm, decision = call.version, call.arm, call.decision
        if version is None or arm is None or decision is None:
            raise ValueError("finish of a step that was not begun")
        if call.level == LAST_CLASS:
            version.release()
            return
        self._accounting.account(call, code, version, arm, decision, call.request_id, logged=logged)
        version.release()

    # ---- what fallbacks and mirrors need ----

    def own_queue(self, version: Version) -> VersionQueue | None:
        """Returns a new queue for a version that has no session; None for one that has."""
        return self._queue_maker.own_queue(version)

    def find(self, model: str, name: str) -> Version:
        """Returns the version, which is AVAILABLE and not quarantined. Raises: GatewayError."""
        return self._permitted(self._catalog.version(model, name))

    def _permitted(self, version: Version) -> Version:
        refusals = self._refusals
        if refusals.active:  # a run follows them while nothing is refused
            refusals.follow()
            refusal = refusals.of_version(_key(version))
            if refusal is not None:
                raise refusal
        return version

    def queued(self, version: Version) -> int:
        """Returns how many calls wait for a run of the version."""
        queue = self._queues.get(version)
        return queue.queued if queue is not None else 0

    def queues(self) -> list[dict[str, object]]:
        """Returns how many calls wait for each version that can run."""
        return [
            {"model": version.model, "version": version.name, "calls": queue.queued}
            for version, queue in self._queues.items()
        ]

    def mirror_batch(self, version: Version, arm: str, call: Call) -> None:
        """Counts the runs of the call with this arm."""
        call.arm = self._arms.of(version, arm)

    def mirror_stream(self, version: Version, arm: str, primary: str) -> RecordStream:
        """Returns the log of calls that the arm mirrored and `primary` answered."""
        return self._arms.mirror_stream(version, arm, primary)

    def _put(self, call: Call) -> None:
        version = call.version
        queue = self._queues.get(version) if version is not None else None
        if queue is None:
            call.fail(Internal(self._shared.ids.of(call)))
            return
        try:
            # Where there is a chain, the next arm may have a shorter queue.
            if version is not None and version.backlog and call.decision is not None and call.decision.fallback_on:
                share = share_of(call.size_bytes)
                refusal = self._wait_check.refusal(queue, version, call.deadline_ns, call.level, share)
                if refusal is not None:
                    call.fail(refusal)
                    return
            queue.put(call)
        except GatewayError as error:
            call.fail(error)

    def _hand_on(self, receiver: ChainReceiver, call: Call, cause: str) -> bool:
        """Queues a call that its arm failed with the next arm of its chain; returns whether there was one.

        Order: the failure counts with the arm that failed; the next version is leased before the lease on the one
        before it ends.
        """
        decision, failed, arm, error = call.decision, call.version, call.arm, call.error
        if decision is None or failed is None or arm is None or error is None:
            return False
        now_ns = monotonic_ns()
        retry = self._fallbacks.next(receiver, call, decision.fallbacks, now_ns)
        if retry is None:
            return False
        self._accounting.count_failure(call, error.code, arm, decision, now_ns)
        self._fallbacks.left(call, retry, cause)
        version = retry.version
        version.lease()
        call.version = version
        call.arm = self._arms.of(version, retry.arm)
        call.renew()
        failed.release()
        self._put(call)
        return True


def _key(version: Version) -> VersionKey:
    return VersionKey(version.model, version.name, version.digest)
