"""Makes events of the log of changes and of the states that the control process polls.

The newest are kept, and all are sent to the webhook.
"""

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from gateway.routing.store.change import ChangeEntry
from gateway.routing.store.change_log import ChangeLog
from gateway.runtime.config import Config
from gateway.runtime.event_page import EventPage
from gateway.telemetry.drift_states import States, observe_drift
from gateway.telemetry.event_types import EventType
from gateway.telemetry.events import Event, EventLog, Observed, observe
from gateway.telemetry.sums import Tree
from gateway.telemetry.webhooks import OUTCOMES, DeliveryPolicy, Webhook, secret_bytes

_KEPT_FILE: Final = "events.json"
# What a change of rules is called; every other operation is an application of another document.
_TYPES: Final[Mapping[str, EventType]] = {
    "rollback": EventType.ROUTE_ROLLED_BACK,
    "abort": EventType.ROUTE_ROLLED_BACK,
    "delete": EventType.ROUTE_DELETED,
    "restore": EventType.RULES_HEALED,
    "accept": EventType.RULES_HEALED,
}
_log = logging.getLogger(__name__)


class _Told(msgspec.Struct):
    """What a publisher leaves to its successor: whose states it has told, and its place in the log of changes."""

    instance: str
    store: str
    cursor: str
    observed: Observed
    drift: dict[str, str]


class EventPublisher:
    """The events of one host, and the changes of its environment's rules.

    Changes are told from where the last publisher of this data directory stopped; states from what it had told, if the
    gateway is still the same run.
    """

    def __init__(
        self,
        config: Config,
        instance: str,
        *,
        wall_s: Callable[[], float],
        draw: Callable[[], float],
        policy: DeliveryPolicy | None = None,
    ) -> None:
        store, events = config.store, config.events
        self._kept = config.run_dir / _KEPT_FILE
        self._instance = instance
        self._wall_s = wall_s
        self._store = sha256(f"{store.redis_url} {store.environment}".encode()).hexdigest()[:16]
        self._environment = f"/gateway/{store.environment}"
        self._host = f"{self._environment}/{socket.gethostname()}"
        self.events = EventLog()
        self.page = EventPage(self.events)
        if config.process.log_format == "json":  # as text the processes tell the same in their own words
            self.events.listen(_log_event)
        self._observed, self._drift, cursor = _restored(self._kept, instance, self._store)
        self._changes = ChangeLog(store.redis_url, store.environment, cursor=cursor)
        self._told = b""
        self.webhook: Webhook | None = None
        if events.webhook_url:
            key = secret_bytes(events.webhook_secret)
            self.webhook = Webhook(events.webhook_url, key, wall_s=wall_s, draw=draw, policy=policy)
            self.events.listen(self.webhook.take)

    async def run(self) -> None:
        """Follows the log of changes and delivers, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._changes.follow(self._tell_change))
                if self.webhook is not None:
                    group.create_task(self.webhook.run())
        finally:
            await self._changes.aclose()

    def observe(
        self, gauges: Mapping[int, Tree], children: Iterable[Tree], drift: Tree | None = None, own: Tree | None = None
    ) -> None:
        """Tells what is different from the last time; what was told is kept on disk for a successor.

        `own` is what this process says of the callers at its own port.
        """
        self._observed, happenings = observe(self._observed, gauges, children, own or {})
        self._drift, drifted = observe_drift(self._drift, drift or {})
        for one in (*happenings, *drifted):
            at_us = int(self._wall_s() * 1e6)
            self.events.add(Event(one.type, self._host, uuid.uuid4().hex, at_us, one.subject, one.data))
        self._keep()

    def counts(self) -> Tree:
        """Events by type; with a webhook what became of them, and how many wait."""
        counts: dict[str, object] = {"types": dict(self.events.counts)}
        if self.webhook is not None:
            counts["webhook"] = {outcome: self.webhook.counts[outcome] for outcome in OUTCOMES}
            counts["waiting"] = self.webhook.waiting
        return counts

    def tell(self, kind: EventType, event_id: str, at_us: int, subject: str, data: dict[str, object]) -> None:
        """Tells of something in the environment, by an id that every host gives it."""
        self.events.add(Event(kind, self._environment, event_id, at_us, subject, data))

    def _tell_change(self, entry: ChangeEntry) -> None:
        data = {
            "model": entry.model,
            "operation": entry.operation,
            "revision": entry.revision,
            "previous_revision": entry.previous_revision,
            "restored_revision": entry.restored_revision,
            "actor": entry.actor,
            "reason": entry.reason,
            "origin": entry.source,
        }
        # The same in every host that reads the log: a receiver that several hosts tell knows it by source and id.
        event_id = f"{entry.revision}-{entry.committed_at_us}"
        kind = _TYPES.get(entry.operation, EventType.ROUTE_APPLIED)
        self.events.add(Event(kind, self._environment, event_id, entry.committed_at_us, entry.model, data))

    def _keep(self) -> None:
        told = msgspec.json.encode(
            _Told(self._instance, self._store, self._changes.cursor, self._observed, dict(self._drift))
        )
        if told == self._told:
            return
        staged = self._kept.with_name(_KEPT_FILE + ".next")
        try:
            staged.write_bytes(told)
            staged.replace(self._kept)
            self._told = told
        except OSError as error:
            _log.warning("%s was not written: %s", _KEPT_FILE, error.strerror)


def _log_event(event: Event) -> None:
    """Logs the event under its own name."""
    said = {"event": event.type, "event_id": event.id, "subject": event.subject, "data": dict(event.data)}
    _log.info("%s %s", event.type, event.subject, extra={"said": said})


def _restored(path: Path, instance: str, store: str) -> tuple[Observed, States, str]:
    """Returns what an earlier publisher told: states of this run, drift of any run, its place in this store's log."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=_Told)
        observed = told.observed if told.instance == instance else Observed()
        return observed, told.drift, told.cursor if told.store == store else ""
    except FileNotFoundError:
        return Observed(), {}, ""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.warning("%s cannot be read, events begin now: %s", _KEPT_FILE, error)
        return Observed(), {}, ""
