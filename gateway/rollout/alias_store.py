"""What was made of aliases, in the store: for all hosts, since any of them may follow."""

import logging
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from gateway.errors import StoreDamaged
from gateway.rollout.alias_step import SeenAlias
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import many, text

_APART: Final = " "  # no name has one
_log = logging.getLogger(__name__)


class AliasStore:
    """Records by model and label. Raises: StoreUnavailable from every method while the store is away."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def seen(self) -> Mapping[tuple[str, str], SeenAlias]:
        """Returns every record. One that cannot be read is none: its label is as if it were new."""
        try:
            reply = many(await self._store.link.call("HGETALL", self._store.keys.aliases))
        except StoreDamaged as error:
            keys, now_us = self._store.keys, await self._store.now_us()
            _log.error("what was made of aliases is set aside, they are as if they were new: %s", error)
            await self._store.link.call("RENAME", keys.aliases, keys.alien(keys.aliases, now_us))
            return {}
        records: dict[tuple[str, str], SeenAlias] = {}
        for name, content in zip(reply[::2], reply[1::2], strict=True):
            model, _, label = text(name).partition(_APART)
            try:
                records[model, label] = msgspec.json.decode(
                    content if isinstance(content, bytes) else b"", type=SeenAlias
                )
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                _log.warning("what was made of the alias of %s %s cannot be read: %s", model, label, error)
        return records

    async def remember(self, model: str, label: str, record: SeenAlias) -> None:
        """Writes the record in the place of an earlier one."""
        name = f"{model}{_APART}{label}"
        await self._store.link.call("HSET", self._store.keys.aliases, name, msgspec.json.encode(record))

    async def forget(self, names: Iterable[tuple[str, str]]) -> None:
        """Takes the records of these models and labels away."""
        for model, label in names:
            await self._store.link.call("HDEL", self._store.keys.aliases, f"{model}{_APART}{label}")
