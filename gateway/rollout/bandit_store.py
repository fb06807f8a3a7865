"""What bandits keep in the store: the state of each, written only over the one that was seen."""

import logging
from typing import Final

import msgspec

from gateway.errors import StoreDamaged
from gateway.rollout.bandit_record import BanditRecord
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import many, text
from gateway.routing.store.store_script import ROLLOUT

_DAMAGED: Final = "bandit:"  # before a model among the states that could not be read
_log = logging.getLogger(__name__)


class BanditStore:
    """States of bandits. Raises: StoreUnavailable from every method while the store is away."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def records(self) -> dict[str, BanditRecord]:
        """Returns the state of every bandit by model. One that cannot be read is set aside, and said."""
        records: dict[str, BanditRecord] = {}
        try:
            reply = many(await self._store.link.call("HGETALL", self._store.keys.bandits))
        except StoreDamaged as error:
            keys, now_us = self._store.keys, await self._store.now_us()
            _log.error("the states of bandits in the store are set aside, they begin anew: %s", error)
            await self._store.link.call("RENAME", keys.bandits, keys.alien(keys.bandits, now_us))
            return records
        for model, content in zip(reply[::2], reply[1::2], strict=True):
            record = await self._read(text(model), content)
            if record is not None:
                records[record.model] = record
        return records

    async def record(self, model: str) -> BanditRecord | None:
        """Returns the state of the model's bandit; None where there is none that can be read."""
        return await self._read(model, await self._store.link.call("HGET", self._store.keys.bandits, model))

    async def is_lost(self, model: str) -> bool:
        """Returns whether a state of the model could not be read, so nobody knows who held it."""
        key = self._store.keys.damaged_rollouts
        return await self._store.link.call("HGET", key, _DAMAGED + model) is not None

    async def save(self, record: BanditRecord, seen: int) -> bool:
        """Writes the state, if that with the sequence `seen` (0: none) is still there; returns whether it was."""
        content = msgspec.json.encode(msgspec.structs.replace(record, sequence=seen + 1))
        answer = await self._store.link.script(ROLLOUT, [self._store.keys.bandits], [record.model, seen, content])
        return text(answer[0]) == "done"

    async def _read(self, model: str, content: object) -> BanditRecord | None:
        if not isinstance(content, bytes):
            return None
        try:
            record = msgspec.json.decode(content, type=BanditRecord)
            if record.model == model:
                return record
            _log.warning("the state of the bandit of model %s in the store is of another one; it is set aside", model)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _log.warning("the state of the bandit of model %s cannot be read, it is set aside: %s", model, error)
        keys = self._store.keys
        await self._store.link.transaction(
            [("HSET", keys.damaged_rollouts, _DAMAGED + model, content), ("HDEL", keys.bandits, model)]
        )
        return None
