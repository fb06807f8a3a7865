"""Following aliases, in the control process of every host: when one moves, the label that follows it is led there.

Each host does so by itself. That a move is made one change, whoever sees it, is by the commit: it has the revision that
was seen and the name of the move (`SeenAlias.once`).
"""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from hashlib import sha256
from time import monotonic, time
from typing import Final

from gateway.errors import GatewayError, StoreUnavailable, Unavailable
from gateway.rollout.alias_step import Held, Lead, Remember, SeenAlias, SourceLook, alias_step
from gateway.rollout.alias_store import AliasStore
from gateway.routing.decision.route import Route
from gateway.routing.document.version_label import Following
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_reader import RouteReader
from gateway.runtime.alias_hand import ALIASES, LEAD
from gateway.runtime.peers import Aborted, Payload, PeerGone, Peers
from gateway.runtime.route_files import Tell
from gateway.telemetry.event_types import EventType

LOOK_S: Final = 1.0
_LEAD_S: Final = 120.0  # the version may have to be loaded
_AGAIN_S: Final = 5.0  # until what was refused is tried once more
_log = logging.getLogger(__name__)


class AliasWatch:
    """Follows the aliases of one environment. `tell` is given each reason why a label is not led, once."""

    def __init__(self, url: str, environment: str, peers: Peers, workers: int, tell: Tell) -> None:
        self._store = RedisStore(url, environment)
        self._reader = RouteReader(self._store)
        self._aliases = AliasStore(self._store)
        self._peers = peers
        self._workers = workers
        self._tell = tell
        self._told: dict[tuple[str, str], str] = {}
        self._later_s: dict[tuple[str, str], float] = {}
        self._remembers = True  # whether the store may have records: looked at once where nothing follows

    async def run(self) -> None:
        """Looks for ever."""
        try:
            while True:
                try:
                    await self.step()
                except StoreUnavailable as error:
                    _log.debug("aliases are not followed: %s", error)
                await asyncio.sleep(LOOK_S)
        finally:
            await self._store.aclose()

    async def step(self) -> None:
        """Looks once. Raises: StoreUnavailable."""
        routes = await self._reader.routes()
        followed = {
            (model, one.label): (route, one) for model, route in routes.items() for one in route.document.following
        }
        self._told = {name: reason for name, reason in self._told.items() if name in followed}
        self._later_s = {name: later_s for name, later_s in self._later_s.items() if name in followed}
        if not followed and not self._remembers:
            return
        seen = await self._aliases.seen()
        await self._aliases.forget(seen.keys() - followed.keys())
        self._remembers = bool(followed)
        looks = await self._looks(sorted({model for model, _ in followed})) if followed else {}
        if looks is None:
            return
        led: set[str] = set()
        for (model, name), (route, following) in followed.items():
            if model in led or self._later_s.get((model, name), 0.0) > monotonic():
                continue  # the route is another one by now; or it was refused a moment ago
            try:
                if await self._follow(route, following, looks.get(model), seen.get((model, name))):
                    led.add(model)
            except StoreUnavailable:
                raise
            except Exception as error:
                # The boundary of a label: one that cannot be followed costs itself, the others are led all the same.
                _log.exception("following an alias failed", extra={"model": model, "label": name})
                self._hold(route, following, f"{type(error).__name__}, see the log of the control process")

    async def _follow(
        self, route: Route, following: Following, look: SourceLook | None, record: SeenAlias | None
    ) -> bool:
        """Does what follows for one label; whether the route may be another one now."""
        step = alias_step(route, following, look, record)
        if isinstance(step, Remember):
            await self._remember(route, following, step.version, step.at_us, record.draft if record else "")
        elif isinstance(step, Held):
            self._hold(route, following, step.reason)
        elif isinstance(step, Lead) and record is not None and look is not None:
            await self._lead(route, following, record, step.version, look.at_us)
            return True
        return False

    async def _looks(self, models: list[str]) -> Mapping[str, SourceLook] | None:
        """Returns what the newest look of a worker of this host says of each model; None where no worker answers."""
        looks: dict[str, SourceLook] = {}
        asked_us = await self._store.now_us()
        answers = (await self._peers.ask_all(ALIASES, {"models": models})).values()
        told = [answer.get("models") for answer in answers if not isinstance(answer, GatewayError)]
        for one in told:
            for model, entry in one.items() if isinstance(one, dict) else ():
                look = SourceLook(entry["aliases"], asked_us - int(entry["age_us"]))
                if model not in looks or look.at_us > looks[model].at_us:
                    looks[model] = look
        return looks if told else None

    async def _lead(self, route: Route, following: Following, record: SeenAlias, version: str, at_us: int) -> None:
        payload: Payload = {
            "model": route.model,
            "revision": route.revision,
            "label": following.label,
            "version": version,
            "alias": following.alias,
            "once": record.once(version),
            "draft": record.draft,
        }
        try:
            answer = await self._ask(payload)
        except Aborted:
            return  # another change came first: the next look sees it
        except StoreUnavailable:
            raise
        except GatewayError as error:
            self._later_s[route.model, following.label] = monotonic() + _AGAIN_S
            self._hold(route, following, f"alias {following.alias!r} has moved to version {version!r}: {error}")
            return
        self._told.pop((route.model, following.label), None)
        draft = str(answer.get("draft") or "")
        await self._remember(route, following, version, at_us, draft)
        words = f"draft {draft} waits for approval" if draft else f"label {following.label!r} is led there"
        _log.info("model %s: alias %s has moved to version %s: %s", route.model, following.alias, version, words)

    async def _ask(self, payload: Payload) -> Payload:
        for slot in range(self._workers):
            try:
                return await self._peers.ask_one(slot, LEAD, payload, timeout_s=_LEAD_S)
            except PeerGone:
                continue
        raise Unavailable("no worker of this host answers")

    async def _remember(self, route: Route, following: Following, version: str, at_us: int, draft: str) -> None:
        begins = dict(route.spec.labels)[following.label]
        record = SeenAlias(following.alias, begins, version, at_us, uuid.uuid4().hex, draft)
        await self._aliases.remember(route.model, following.label, record)

    def _hold(self, route: Route, following: Following, reason: str) -> None:
        name = (route.model, following.label)
        if self._told.get(name) == reason:
            return
        self._told[name] = reason
        _log.warning("model %s: label %s is not led: %s", route.model, following.label, reason)
        event_id = sha256(f"{name} {route.revision} {reason}".encode()).hexdigest()[:32]
        data: dict[str, object] = {"label": following.label, "alias": following.alias, "reason": reason}
        self._tell(EventType.ROUTE_UNLED, event_id, int(time() * 1e6), route.model, data)
