"""The parts of a worker that must know of each change of the rules, behind the one object that the feed talks to."""

from typing import Final

from gateway.api.health import HealthService
from gateway.records.worker.prediction_log import PredictionLog
from gateway.routing.decision.route import Route
from gateway.routing.decision.snapshot import EMPTY, Snapshot
from gateway.routing.store.feed import Feed
from gateway.runtime.child import Settings
from gateway.runtime.cpu_quota import cpu_quota
from gateway.runtime.log_settings import samplings
from gateway.serving.arm_tally import JudgedRoutes
from gateway.serving.catalog import Catalog
from gateway.serving.route_versions import required_versions
from gateway.telemetry.counters import Counters

_SWAP_S: Final = 0.0008  # what following a change costs a worker, from waking to the swap
_LONGEST_DEFER_S: Final = 0.005


class FollowedRules:
    """The `RouteConsumer` of a worker: loads what routes name, and tells everybody else of each change."""

    def __init__(
        self,
        catalog: Catalog,
        log: PredictionLog,
        health: HealthService,
        counters: Counters,
        judged: JudgedRoutes,
        *,
        log_rate: float,
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._health = health
        self._counters = counters
        self._judged = judged
        self._log_rate = log_rate
        self._snapshot = EMPTY

    def in_force(self, model: str) -> frozenset[str]:
        """Returns the versions that the model's route names now."""
        compiled = self._snapshot.routes.get(model)
        return compiled.route.document.versions() if compiled is not None else frozenset()

    async def prepare(self, route: Route) -> None:
        await self._catalog.require(route.model, self._required(route))

    def prepare_at_once(self, route: Route) -> bool:
        return self._catalog.require_available(route.model, self._required(route))

    def swapped(self, snapshot: Snapshot) -> None:
        if self._snapshot.routes.keys() - snapshot.routes.keys():
            self._catalog.release_unrouted(snapshot.routes)
        self._snapshot = snapshot
        self._judged.follow(snapshot)
        self._log.follow(samplings(snapshot, self._log_rate))
        self._health.changed()

    def applied(self, seconds: float) -> None:
        self._counters.route_applied(int(seconds * 1e9))

    def _required(self, route: Route) -> frozenset[str]:
        return required_versions(self._catalog, route.document, self.in_force(route.model))


def make_feed(settings: Settings, worker: str, rules: FollowedRules) -> Feed:
    """Returns what has the worker follow the rules of the store, not running yet."""
    store, workers = settings.config.store, settings.config.process.workers
    return Feed(
        store.redis_url,
        store.environment,
        worker,
        rules,
        last_known_good_path=settings.config.rules_file.with_name(f"worker-{settings.slot}"),
        boot_id=settings.boot,
        defer_s=_defer_s(workers, cpu_quota()),
    )


def _defer_s(workers: int, cpus: float) -> float:
    """Returns how long a worker's acknowledgement of a change lets the other workers of the CPU go first."""
    return min(_LONGEST_DEFER_S, _SWAP_S * max(0.0, workers / cpus - 1))
