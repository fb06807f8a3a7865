"""What rollouts keep in the store: their states, who judges, and the counts of all workers of all hosts."""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.rollout.arm_counts import LOAD, ArmCounts, WorkerLoad, total
from gateway.rollout.bandit_store import BanditStore
from gateway.rollout.offline_verdict import OfflineVerdict
from gateway.rollout.rollout_record import RolloutRecord
from gateway.routing.decision.snapshot import Route
from gateway.routing.store.audit_trail import append
from gateway.routing.store.change import JUDGE, JUDGE_SOURCE, Change, ChangeEntry
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_reader import RouteReader
from gateway.routing.store.store_keys import StoreKeys
from gateway.routing.store.store_link import Link, Word
from gateway.routing.store.store_reply import committed_digest, many, number, text
from gateway.routing.store.store_script import ROLLOUT

LEASE_MS: Final = 5_000
COUNTS_KEPT_MS: Final = 7 * 86_400_000
_REASON_BYTES: Final = 1000
_EVERY: Final = "*"  # no model has this name: when all states were set aside
_log = logging.getLogger(__name__)


class _ArmKeys(msgspec.Struct, frozen=True):
    """The keys of one arm, as `serving.key_sample` writes them; other counts are passed over."""

    keys: str = ""


class CountsWriter:
    """Writes what one worker counted, as totals: to write the same twice changes nothing, and a lost write nothing."""

    def __init__(self, url: str, environment: str, worker_id: str) -> None:
        self._keys = StoreKeys(environment)
        self._worker = worker_id
        self._link = Link(url, name=f"gateway-counts:{worker_id}", connections=1)

    async def write(self, counts: Mapping[int, Mapping[str, object]]) -> None:
        """Raises: StoreUnavailable."""
        commands: list[Sequence[Word]] = []
        for revision, arms in counts.items():
            key = self._keys.counts(revision)
            commands += [("HSET", key, self._worker, msgspec.json.encode(arms)), ("PEXPIRE", key, COUNTS_KEPT_MS)]
        if commands:
            await self._link.transaction(commands)

    async def aclose(self) -> None:
        await self._link.aclose()


class RolloutStore:
    """The judge's side. Raises: StoreUnavailable from every method while the store is away."""

    def __init__(self, store: RedisStore, reader: RouteReader) -> None:
        self._store = store
        self._reader = reader
        self.bandits = BanditStore(store)

    async def is_led(self) -> bool:
        """Returns whether anybody judges now."""
        return await self._store.link.call("GET", self._store.keys.judge) is not None

    async def lead(self, holder: str) -> bool:
        """Returns whether `holder` is the one that judges for the next seconds.

        Two that believe it do no harm: every change compares what it saw.
        Raises: StoreForbidden where the store lets this host's user judge nothing.
        """
        key, link = self._store.keys.judge, self._store.link
        if await link.call("SET", key, holder, "NX", "PX", LEASE_MS) is not None:
            return True
        if await link.call("PTTL", key) == -1:  # no judge writes a lease without an end: it would hold for ever
            _log.warning("the lease of the judge in the store had no end, it is taken away")
            await link.call("DEL", key)
            return False
        if text(await link.call("GET", key)) != holder:
            return False
        await link.call("PEXPIRE", key, LEASE_MS)
        return True

    async def now_ms(self) -> int:
        """Returns the store's time, in milliseconds since the Unix epoch."""
        return await self._store.now_us() // 1000

    async def routes(self) -> Mapping[str, Route]:
        """Returns every active route that can be read."""
        return await self._reader.routes()

    async def entry(self, model: str, revision: int) -> ChangeEntry | None:
        """Returns the change that made the revision; None where it is not kept."""
        return await self._store.entry(model, revision)

    async def records(self) -> dict[str, RolloutRecord]:
        """Returns the state of every rollout by model. One that cannot be read is left out, and said."""
        await self._set_aside_other()
        reply = many(await self._store.link.call("HGETALL", self._store.keys.rollouts))
        records = {}
        for model, content in zip(reply[::2], reply[1::2], strict=True):
            record = await self._read(model if isinstance(model, bytes) else b"", content)
            if record is not None:
                records[record.model] = record
        return records

    async def record(self, model: str) -> RolloutRecord | None:
        """Returns the state of the model's rollout; None where there is none that can be read."""
        await self._set_aside_other()
        return await self._read(model.encode(), await self._store.link.call("HGET", self._store.keys.rollouts, model))

    async def _set_aside_other(self) -> None:
        """Renames a key of another type that stands where the states should be: nobody could write them."""
        keys, link = self._store.keys, self._store.link
        if await link.call("TYPE", keys.rollouts) not in (b"none", b"hash", "none", "hash"):
            _log.error("the states of rollouts in the store are no hash: they are set aside, rollouts begin anew, held")
            now_us = await self._store.now_us()
            aside = keys.alien(keys.rollouts, now_us)
            await link.transaction(
                [("HSET", keys.damaged_rollouts, _EVERY, now_us // 1000), ("RENAME", keys.rollouts, aside)]
            )

    async def is_lost(self, route: Route) -> bool:
        """Returns whether a rollout of this route had a state that could not be read, so nobody knows who held it."""
        names = (route.model, _EVERY)
        one, every = many(await self._store.link.call("HMGET", self._store.keys.damaged_rollouts, *names))
        return one is not None or (every is not None and route.committed_at_us < number(every) * 1000)

    async def _read(self, model: bytes, content: object) -> RolloutRecord | None:
        """Returns the state; one that cannot be read is set aside, so that the rollout can begin anew."""
        name = model.decode(errors="replace")
        record = _record(name, content)
        if record is None and isinstance(content, bytes):
            keys, link = self._store.keys, self._store.link
            await link.transaction([("HSET", keys.damaged_rollouts, model, content), ("HDEL", keys.rollouts, model)])
        return record

    async def save(self, record: RolloutRecord, seen: int) -> bool:
        """Writes the state, if that with the sequence `seen` (0: none) is still there; returns whether it was."""
        content = msgspec.json.encode(msgspec.structs.replace(record, sequence=seen + 1))
        answer = await self._store.link.script(ROLLOUT, [self._store.keys.rollouts], [record.model, seen, content])
        return text(answer[0]) == "done"

    async def document(self, model: str) -> str:
        """Returns the SHA-256 by which the audit trail knows the model's route."""
        return committed_digest(text(await self._store.link.call("HGET", self._store.keys.routes, model)))

    async def record_offline(self, record: RolloutRecord, verdict: OfflineVerdict) -> None:
        """Records what a replay has said of the rollout in the audit trail, once, whoever judges."""
        numbers = msgspec.json.encode(msgspec.structs.replace(verdict, reason="")).decode()
        reason = verdict.reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        change = Change(actor=JUDGE, reason=reason, source=JUDGE_SOURCE)
        once = f"{record.id}:offline"
        await append(self._store, "rollout.offline", model=record.model, detail=numbers, change=change, once=once)

    async def laggards(self, revision: int) -> list[str]:
        """Returns the live workers, of all hosts, that have not loaded and taken the revision; nobody is one too."""
        epoch = text(await self._store.link.call("GET", self._store.keys.epoch))
        workers = await self._store.workers()
        return [one.id for one in workers if not one.applied(revision, epoch)] if workers else ["no worker is known"]

    async def key_samples(self, revision: int) -> dict[str, list[str]]:
        """Returns the samples of keys that workers have counted at the revision, by arm."""
        reply = many(await self._store.link.call("HGETALL", self._store.keys.counts(revision)))
        told: dict[str, list[str]] = {}
        for content in reply[1::2]:
            try:
                arms = msgspec.json.decode(content if isinstance(content, bytes) else b"", type=dict[str, _ArmKeys])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                _log.warning("keys of revision %d in the store cannot be read; they are left out", revision)
                continue
            for arm, own in arms.items():
                told.setdefault(arm, []).append(own.keys)
        return told

    async def counts(self, revision: int) -> dict[str, ArmCounts]:
        """Returns what the arms did at the revision, by arm: the sums over all workers that ever told."""
        return (await self.told(revision))[0]

    async def told(self, revision: int) -> tuple[dict[str, ArmCounts], dict[str, WorkerLoad]]:
        """Returns what the arms did at the revision, and the load of each worker that told it."""
        reply = many(await self._store.link.call("HGETALL", self._store.keys.counts(revision)))
        told: dict[str, list[ArmCounts]] = {}
        loads: dict[str, WorkerLoad] = {}
        for worker, content in zip(reply[::2], reply[1::2], strict=True):
            try:
                parts = msgspec.json.decode(content if isinstance(content, bytes) else b"", type=dict[str, msgspec.Raw])
                load = msgspec.json.decode(parts.pop(LOAD, b"{}"), type=WorkerLoad)
                arms = {arm: msgspec.json.decode(part, type=ArmCounts) for arm, part in parts.items()}
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                _log.warning("counts of revision %d in the store cannot be read; they are left out", revision)
                continue
            if load.cores > 0:
                loads[text(worker)] = load
            for arm, counts in arms.items():
                told.setdefault(arm, []).append(counts)
        return {arm: total(parts) for arm, parts in told.items()}, loads


def _record(model: str, content: object) -> RolloutRecord | None:
    if not isinstance(content, bytes):
        return None
    try:
        record = msgspec.json.decode(content, type=RolloutRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("the state of the rollout of model %s in the store cannot be read: %s", model, error)
        return None
    return record if record.model == model else None
