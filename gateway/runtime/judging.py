"""The judge of rollouts in the control process: it is loaded when a route needs it, because it brings numpy with it."""

import asyncio
import logging
from socket import gethostname
from time import time
from typing import TYPE_CHECKING, Final

from gateway.errors import StoreUnavailable
from gateway.routing.document.strategy import Ab, ramp_of
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_reader import RouteReader
from gateway.runtime.config import Config
from gateway.runtime.event_publisher import EventPublisher
from gateway.runtime.rollout_hand import PeerRolloutHand
from gateway.telemetry.event_types import EventType
from gateway.telemetry.webhooks import secret_bytes

if TYPE_CHECKING:
    from gateway.rollout.bandit_record import BanditRecord
    from gateway.rollout.rollout_record import RolloutRecord
    from gateway.rollout.split_watch import SplitMismatch

LOOK_S: Final = 1.0
_log = logging.getLogger(__name__)


class Judging:
    """Waits until a canary moves by itself, and judges from then on; `holder` names this process to other judges."""

    def __init__(self, config: Config, hand: PeerRolloutHand, holder: str, publisher: EventPublisher) -> None:
        self._config = config
        self._store = RedisStore(config.store.redis_url, config.store.environment)
        self._hand = hand
        self._holder = holder
        self._publisher = publisher

    async def run(self) -> None:
        """Judges for ever."""
        try:
            reader = RouteReader(self._store)
            while True:
                if await self._is_wanted(reader):
                    await self._judge(reader)
                await asyncio.sleep(LOOK_S)
        finally:
            await self._store.aclose()

    async def _is_wanted(self, reader: RouteReader) -> bool:
        try:
            routes = await reader.routes()
        except StoreUnavailable as error:
            _log.debug("rollouts cannot be looked for: %s", error)
            return False
        strategies = [route.document.strategy for route in routes.values()]
        moves = any(ramp_of(strategy) is not None for strategy in strategies)
        return moves or any(isinstance(strategy, Ab) and strategy.is_judged for strategy in strategies)

    async def _judge(self, reader: RouteReader) -> None:
        from gateway.rollout.controller import RolloutController
        from gateway.rollout.rollout_store import RolloutStore
        from gateway.rollout.step_gates import StepGates
        from gateway.runtime.offline_replay import OfflineReplays

        store = RolloutStore(self._store, reader)
        secret = self._config.events.webhook_secret
        gates = StepGates(secret_bytes(secret) if secret else None, wall_s=time)
        offline = OfflineReplays(self._config, gethostname())
        controller = RolloutController(
            store,
            self._hand,
            self._holder,
            tell=self._tell,
            tell_split=self._tell_split,
            tell_bandit=self._tell_bandit,
            offline=offline,
            gates=gates,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(gates.run(), name="webhooks of steps")
                group.create_task(controller.run(), name="judge")
        finally:
            await offline.aclose()

    def _tell_split(self, found: "SplitMismatch") -> None:
        at_us = int(time() * 1e6)
        self._publisher.tell(EventType.SPLIT_MISMATCH, found.id, at_us, found.model, found.told())

    def _tell_bandit(self, before: "BanditRecord | None", after: "BanditRecord") -> None:
        from gateway.rollout.bandit_story import bandit_event, told_bandit

        kind = bandit_event(before, after)
        if kind is not None:
            event_id, at_us = f"{after.id}-{after.sequence}", after.tick_ms * 1000
            self._publisher.tell(kind, event_id, at_us, after.model, told_bandit(after))

    def _tell(self, before: "RolloutRecord | None", after: "RolloutRecord") -> None:
        """Tells what is new in a rollout: its beginning, a step, its end, and that it holds for another reason."""
        from gateway.rollout.rollout_story import rollout_event, told_rollout

        kind = rollout_event(before, after)
        if kind is not None:
            # The same from every host: whoever judges tells of the same state by the same id.
            event_id, at_us = f"{after.id}-{after.sequence}", after.tick_ms * 1000
            self._publisher.tell(kind, event_id, at_us, after.model, told_rollout(after))
