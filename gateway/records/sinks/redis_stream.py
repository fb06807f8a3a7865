"""Rows as entries of a Redis stream. Never on the server that holds the routing rules.

An entry has the fields `id` (the same whenever the row is sent), `kind`, `model` and `row` (JSON). The stream is kept
near `maxlen` entries; what that evicts is counted, whether somebody has read it or not.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.records.lake.outbox import Item
from gateway.records.lake.stored_rows import StoredRow, stored_rows
from gateway.records.sinks.sink import SinkError
from gateway.records.sinks.target import Target

MAXLEN = 1_000_000
_TIMEOUT_S = 10.0


class RedisSink:
    """Appends to the stream `target.place`. `forbidden` is a key that only the routing store has."""

    def __init__(self, target: Target, *, forbidden: str) -> None:
        self.counts: Counter[str] = Counter(evicted=0)
        self._stream = target.place
        self._maxlen = int(target.options.get("maxlen", MAXLEN))
        self._forbidden = forbidden
        self._checked = False
        self._evicted = -1  # when this process began; what went before is not its to count
        self._client = redis.Redis.from_url(
            target.address,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=5.0,
            retry=Retry(NoBackoff(), 0),  # whoever calls backs off by itself
        )

    def deliver(self, item: Item, path: Path, start: int) -> Iterator[int]:
        done = start
        for rows in stored_rows(path, start=start):
            try:
                self._check()
                self._add(rows)
            except redis.RedisError as error:
                self._checked = False
                raise SinkError(str(error)) from error
            done += len(rows)
            yield done

    def close(self) -> None:
        self._client.close()

    def _check(self) -> None:
        """Raises: SinkError (under another name this is the server with the routing rules)."""
        if self._checked:
            return
        if self._sees_rules():
            raise SinkError("this Redis holds the routing rules: a log there could evict them, give the sink its own")
        if self._evicted < 0:
            self._evicted = (
                _evicted(self._client.xinfo_stream(self._stream)) if self._client.exists(self._stream) else 0
            )
        self._checked = True

    def _sees_rules(self) -> bool:
        try:
            return bool(self._client.exists(self._forbidden))
        except redis.exceptions.NoPermissionError:  # a user who may not even ask cannot evict them by name either
            return False

    def _add(self, rows: list[StoredRow]) -> None:
        """All rows in one write; redis-py's own pipeline takes four times as long to write them down."""
        before = ("XADD", self._stream, "MAXLEN", "~", self._maxlen, "*", "id")
        commands = [(*before, row.id, "kind", row.kind, "model", row.model, "row", row.value) for row in rows]
        packed = b"".join(map(pack_command, commands))  # type: ignore[arg-type]  # its types know one field only
        connection, unread = self._client.connection_pool.get_connection(), len(rows)
        try:
            connection.send_packed_command([packed])  # type: ignore[no-untyped-call]
            while unread:
                connection.read_response()
                unread -= 1
        finally:
            if unread:  # an answer would be taken for that of the next command
                connection.disconnect()  # type: ignore[no-untyped-call]
            self._client.connection_pool.release(connection)
        evicted = _evicted(self._client.xinfo_stream(self._stream))
        self.counts["evicted"] += max(0, evicted - self._evicted)
        self._evicted = evicted


def _evicted(told: Any) -> int:
    """Entries that the stream had and has no longer; Redis 7 and later say so."""
    return int(told.get("entries-added", told["length"])) - int(told["length"])
