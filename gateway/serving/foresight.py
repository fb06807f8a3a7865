"""What is known of a call that is still to come, by its size and its model."""

from collections.abc import Sequence
from time import monotonic_ns
from typing import Protocol

from gateway.errors import GatewayError, NotFound
from gateway.routing.decision.snapshot import Snapshot
from gateway.serving.admission import Admission
from gateway.serving.arrivals import Arrival
from gateway.serving.catalog import Catalog
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue
from gateway.serving.wait_check import PATIENCE, WaitCheck
from gateway.telemetry.counters import Counters


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
        wait_check: WaitCheck,
    ) -> None:
        self._catalog = catalog
        self._routing = routing
        self._counters = counters
        self._admission = admission
        self._queues = queues
        self._wait_check = wait_check

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
                queue = self._queues.get(nearest)
                refusal = self._wait_check.refusal(queue, nearest, deadline_ns, 0, PATIENCE, coming)
                if refusal is not None:
                    raise refusal
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


def _backlog(version: Version) -> int:
    return version.backlog
