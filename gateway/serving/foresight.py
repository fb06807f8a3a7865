"""What a queue may take of a call's time: asked when the call comes, and before, when only its size is known."""

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Final, Protocol

from gateway.backoff import retry_after_ms
from gateway.errors import GatewayError, NotFound, ResourceExhausted
from gateway.routing.decision.snapshot import Snapshot
from gateway.serving.admission import Admission
from gateway.serving.arrivals import Arrival
from gateway.serving.catalog import Catalog
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue
from gateway.telemetry.counters import Counters

# What a queue may take of the time that a call has left; the rest is for its run, for the way back, and for what cannot
# be foreseen. A long message was measured when it began, and has cost its transfer since.
PATIENCE: Final = 0.5
LAST_PATIENCE: Final = 0.875
ANNOUNCED_BYTES: Final = 1 << 16


class Routing(Protocol):
    """The source of the rules in force."""

    @property
    def snapshot(self) -> Snapshot: ...


class Foresight:
    """Refuses a call that is still to come, as it would be if it came now. `queues` are those of the versions."""

    def __init__(
        self,
        catalog: Catalog,
        routing: Routing,
        counters: Counters,
        admission: Admission,
        queues: dict[Version, VersionQueue],
        draw: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._routing = routing
        self._counters = counters
        self._admission = admission
        self._queues = queues
        self._draw = draw

    def foresee(self, model: str, version: str, size_bytes: int, deadline_ns: int) -> Arrival | None:
        """Returns the call on its way; None where only the whole request tells who serves it.

        Order: nothing is held either way; the call is begun when it is there.
        Raises: ResourceExhausted, Unavailable.
        """
        try:
            self._admission.check(size_bytes)
            versions = self._possible(model, version)
            if not versions:
                return None
            nearest = min(versions, key=_backlog)
            coming = nearest.arrivals.count(monotonic_ns())
            if nearest.backlog and not version:
                check_wait(self._queues.get(nearest), nearest, deadline_ns, 0, PATIENCE, self._draw, coming)
            return nearest.arrivals.begin(waits=nearest.backlog > 0 or coming > 0)
        except NotFound:
            return None  # said when the whole request is known
        except GatewayError as error:
            self._counters.refused(error.code)
            raise

    def _possible(self, model: str, version: str) -> Sequence[Version]:
        """Returns the versions that may serve a call, whichever is drawn; none where only the whole request tells.

        Raises: NotFound.
        """
        if version:
            try:
                return (self._catalog.version(model, version),)
            except GatewayError:  # said when the whole request is known
                return ()
        compiled = self._routing.snapshot.routes.get(model)
        if compiled is None:
            return (self._catalog.newest(model),)
        if compiled.rules is not None or compiled.default.fallback_on:
            return ()
        names = {outcome.version for outcome in compiled.outcomes} if compiled.splits else set()
        return [self._catalog.version(model, name) for name in names or {compiled.default.version} if name]


def check_wait(
    queue: VersionQueue | None,
    version: Version,
    deadline_ns: int,
    level: int,
    share: float,
    draw: Callable[[], float],
    coming: int = 0,
) -> None:
    """Refuses a call that would spend more than this share of the time that it has left in the queue: it would be
    answered too late, or take the place of one that is not. `coming` calls will be in the queue before it.

    Raises: ResourceExhausted.
    """
    if queue is None or not deadline_ns:
        return
    now_ns = monotonic_ns()
    left_ns = deadline_ns - now_ns
    allowed_ns = int(left_ns * share)
    wait_ns = queue.wait_ns(level, now_ns)
    if coming and wait_ns:
        wait_ns += coming * (version.backlog // max(1, queue.queued))
    if wait_ns > allowed_ns:
        after_ms = max(retry_after_ms(draw()), (wait_ns - allowed_ns) // 1_000_000)
        raise ResourceExhausted(
            f"model {version.model!r} version {version.name!r} has a queue of {wait_ns // 1_000_000} ms, too long "
            f"for a request whose deadline is in {left_ns // 1_000_000} ms; retry in {after_ms} ms",
            retry_after_ms=after_ms,
        )


def share_of(size_bytes: int) -> float:
    """Returns which share of its time a call of that size may wait."""
    return PATIENCE if size_bytes < ANNOUNCED_BYTES else LAST_PATIENCE


def _backlog(version: Version) -> int:
    return version.backlog
