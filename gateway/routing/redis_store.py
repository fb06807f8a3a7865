"""The routing store: what Redis holds, read and written by the side that operators ask.

This is the one module that imports redis. `Link` is the way to the server for both sides: replies as the protocol has
them, no retry of its own, and every failure a StoreUnavailable with a short reason.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from time import monotonic
from typing import TypeAlias, cast

import redis.asyncio as aioredis
from redis import exceptions as failures
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import InvalidArgument, StaleRevision, StoreUnavailable
from gateway.routing.change import (
    Change,
    Committed,
    Entry,
    Proposal,
    Settlement,
    StoreReplaced,
    operation,
    parse_entry,
)
from gateway.routing.snapshot import Snapshot
from gateway.routing.store_keys import StoreKeys
from gateway.routing.store_reply import (
    Applied,
    Current,
    Reply,
    StoreState,
    committed_text,
    many,
    number,
    read_entries,
    revision_in,
    route_body,
    store_identity,
    store_state,
    stream_entries,
    text,
)
from gateway.routing.worker_status import WorkerStatus, parse_status

Word: TypeAlias = "str | bytes | int"

VALUE_LIMIT_BYTES = 4 * 1024 * 1024
LOG_LENGTH = 10_000
HISTORY_LENGTH = 200
IDEMPOTENCY_S = 86_400
ONCE_S = 60  # of a commit whose caller gave no key: long enough for the second try of `Link`
BLOCK_MS = 500
WORKER_EXPIRE_MS = 15_000


class Script:
    """A Lua script that is sent by its hash, and whole where the server does not know it (a restart, a failover)."""

    def __init__(self, name: str, *, reads_only: bool = False) -> None:
        self.text = files("gateway.routing").joinpath(name).read_text("utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.suffix = "_RO" if reads_only else ""


COMMIT = Script("commit.lua")
SNAPSHOT = Script("snapshot.lua", reads_only=True)
HEAL = Script("heal.lua")


class Link:
    """Connections to one server under one name, at most `connections` of them.

    With `twice` a command whose connection turns out to be closed is sent once more on a new one: what the control side
    sends may be repeated. A feed does not, because a new connection may lead to another server.
    Raises: StoreUnavailable from every call that is not answered; InvalidArgument for a URL that is none.
    """

    def __init__(
        self, url: str, *, name: str, timeout_s: float = 1.5, connections: int = 16, twice: bool = False
    ) -> None:
        try:
            pool = aioredis.BlockingConnectionPool.from_url(
                url,
                max_connections=connections,
                timeout=timeout_s,
                client_name=name,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                # The client's own read timeout goes through asyncio.wait_for, which before Python 3.12 loses a
                # cancellation that meets the answer, and then a loop never ends. `_answered` sets the limit instead.
                socket_timeout=None,
                socket_connect_timeout=None,
            )
        except ValueError as error:
            raise InvalidArgument(f"redis url: {error}") from None
        self._client = aioredis.Redis.from_pool(pool)
        self._client.response_callbacks.clear()
        self._execute: Callable[..., Awaitable[object]] = self._client.execute_command
        self._timeout_s = timeout_s
        self._twice = twice

    async def call(self, *words: Word) -> Reply:
        keys = [word for word in words if isinstance(word, str) and word.startswith("{gw:")]
        return await self._answered(lambda: self._execute(*words), " ".join([str(words[0]), *keys[:1]]))

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> list[Reply]:
        """The script's answer. Raises: StoreUnavailable naming the key if one holds what the gateway never wrote."""
        tail = (len(keys), *keys, *arguments)
        reply = await self._answered(lambda: self._evaluate(script, tail), "script")
        answer = many(reply)
        if answer and answer[0] == b"damaged":
            key, held = text(answer[1]), text(answer[2])
            raise StoreUnavailable(f"the routing store is damaged: key {key!r} holds {held}")
        return answer

    async def transaction(self, commands: Iterable[Sequence[Word]]) -> list[Reply]:
        """All replies of commands that take effect together."""
        wanted = list(commands)

        async def ask() -> object:
            pipeline = self._client.pipeline(transaction=True)
            queue: Callable[..., object] = pipeline.execute_command
            for command in wanted:
                queue(*command)
            return await pipeline.execute()

        return many(await self._answered(ask, "transaction"))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _evaluate(self, script: Script, tail: Sequence[Word]) -> object:
        try:
            return await self._execute(f"EVALSHA{script.suffix}", script.sha, *tail)
        except failures.NoScriptError:
            return await self._execute(f"EVAL{script.suffix}", script.text, *tail)

    async def _answered(self, ask: Callable[[], Awaitable[object]], what: str) -> Reply:
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return cast(Reply, await ask())
                except failures.ConnectionError as error:
                    if not self._twice or type(error) is not failures.ConnectionError:
                        raise
                return cast(Reply, await ask())
        except (failures.RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"the routing store {_reason(error, self._timeout_s)} ({what})") from error


_REASONS: Mapping[type[BaseException], str] = {
    failures.TimeoutError: "did not answer within {timeout_s:g} s",
    TimeoutError: "did not answer within {timeout_s:g} s",
    failures.BusyLoadingError: "is loading its data",
    failures.AuthenticationError: "refused the credentials",
    failures.NoPermissionError: "refused permission to this user",
    failures.ReadOnlyError: "is a read-only replica",
    failures.OutOfMemoryError: "is out of memory",
    failures.ConnectionError: "is not reachable",
    OSError: "is not reachable",
}
_REASONS_BY_WORD = {
    "NOAUTH": "asks for credentials",
    "MISCONF": "cannot write its data to disk",
    "MASTERDOWN": "is a replica without its master",
    "NOREPLICAS": "has too few replicas",
    "WRONGTYPE": "is damaged: the key holds another type",
    "UNBLOCKED": "changed its role",
}


def _reason(error: Exception, timeout_s: float) -> str:
    """What is wrong with the server, in words that hold neither its address nor its password."""
    causes: list[BaseException] = [error]
    if isinstance(error.__context__, failures.RedisError):
        causes.insert(0, error.__context__)  # a greeting that was refused arrives as a lost connection
    for cause in causes:
        for kind, reason in _REASONS.items():
            if isinstance(cause, kind):
                return reason.format(timeout_s=timeout_s)
    words = str(error).split(" ", 1)
    return _REASONS_BY_WORD.get(words[0], f"answered with an error: {str(error)[:120]}")


async def read_state(link: Link, keys: StoreKeys, *, routes: bool = True) -> StoreState:
    """The store's state, read atomically; without the routes' texts unless `routes`."""
    names = [keys.epoch, keys.revision, keys.routes, keys.accepted]
    return store_state(await link.script(SNAPSHOT, names, [VALUE_LIMIT_BYTES, "all" if routes else "digest"]))


class RedisStore:
    """The control side of the routing store of one environment.

    Raises: StoreUnavailable from every method while Redis is away, slow, full, read-only or damaged.
    """

    def __init__(self, url: str, environment: str = "default", *, timeout_s: float = 1.5) -> None:
        self.keys = StoreKeys(environment)
        self._link = Link(url, name="gateway-control", timeout_s=timeout_s, twice=True)

    async def aclose(self) -> None:
        await self._link.aclose()

    async def commit(self, proposal: Proposal) -> Committed:
        """The committed change: all of it, or none. The same idempotency key again answers the first commit.

        Raises: StaleRevision (the route is not at `expected_revision`); StoreReplaced (another epoch);
                StoreUnavailable (no answer: the change may have been made, and asking again with the same key is safe).
        """
        model, change = proposal.model, proposal.change
        keys = [self.keys.epoch, self.keys.revision, self.keys.routes, self.keys.log, self.keys.history(model)]
        keys.append(self.keys.idempotency(change.idempotency_key or f"once:{uuid.uuid4().hex}"))
        arguments: list[Word] = [proposal.epoch, uuid.uuid4().hex, model]
        arguments.append("*" if proposal.expected_revision is None else proposal.expected_revision)
        arguments += [proposal.operation, route_body(proposal.route)]
        arguments += [change.actor, change.reason, change.source, proposal.restored_revision]
        remembered_s = IDEMPOTENCY_S if change.idempotency_key else ONCE_S
        answer = await self._link.script(COMMIT, keys, [*arguments, LOG_LENGTH, HISTORY_LENGTH, remembered_s])
        match text(answer[0]):
            case "conflict":
                raise StaleRevision(model, proposal.expected_revision or 0, number(answer[1]))
            case "epoch":
                raise StoreReplaced(text(answer[1]))
            case outcome:
                return _committed(answer, repeated=outcome == "again" and bool(change.idempotency_key))

    async def state(self) -> StoreState:
        """Everything, of one moment."""
        return await read_state(self._link, self.keys)

    async def current(self, model: str) -> Current:
        """The store's identity and the model's route; a commit compares both with what it finds then."""
        names = (self.keys.epoch, self.keys.revision, self.keys.accepted)
        held, size = await self._link.transaction([("MGET", *names), ("HSTRLEN", self.keys.routes, model)])
        if number(size) > VALUE_LIMIT_BYTES:
            raise StoreUnavailable(f"the route of {model!r} in {self.keys.routes!r} is too large: {number(size)} bytes")
        value = await self._link.call("HGET", self.keys.routes, model) if number(size) else None
        route_text = value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
        return Current(store_identity(held), revision_in(route_text), route_text)

    async def remembered(self, idempotency_key: str) -> Committed | None:
        """What the first commit with this key answered, for a day."""
        words = text(await self._link.call("GET", self.keys.idempotency(idempotency_key))).split(" ")
        return _committed([b"again", *(word.encode() for word in words)], repeated=True) if len(words) == 7 else None

    async def history(self, model: str, limit: int = 20) -> list[Entry]:
        """The model's newest changes, newest first. What a commit did not write is left out."""
        reply = await self._link.call("XREVRANGE", self.keys.history(model), "+", "-", "COUNT", limit)
        return _readable(stream_entries(reply))

    async def entry(self, model: str, revision: int) -> Entry | None:
        """The change that made this revision, if it was one of this model and is still kept."""
        name = f"{revision}-0"
        entries = _readable(stream_entries(await self._link.call("XRANGE", self.keys.history(model), name, name)))
        return entries[0] if entries else None

    async def workers(self) -> list[WorkerStatus]:
        """Every live worker, by id: one that has acknowledged within the last 15 s and has not left."""
        names = [text(name) for name in many(await self._link.call("ZRANGE", self.keys.workers, 0, -1))]
        if not names:
            return []
        commands: list[Sequence[Word]] = []
        for name in names:
            commands += [("HGETALL", self.keys.worker(name)), ("PTTL", self.keys.worker(name))]
        replies = await self._link.transaction(commands)
        workers = []
        for fields, left_ms in zip(replies[::2], replies[1::2], strict=True):
            words = [word for word in many(fields) if isinstance(word, bytes)]
            if words and isinstance(left_ms, int):
                status = _status(words)
                if status is not None:
                    workers.append(status.seen(max(0, WORKER_EXPIRE_MS - left_ms)))
        return sorted(workers, key=lambda worker: worker.id)

    async def wait_applied(self, revision: int, timeout_s: float, *, epoch: str) -> Applied:
        """Who follows the revision, as soon as every live worker does or has said why it cannot, or at the timeout.

        Order: a worker that starts later reads the revision at its start, so it is not waited for; one that dies is
               waited for until its acknowledgement expires.
        """
        deadline = monotonic() + timeout_s
        last = await self._last_acknowledgement()
        statuses = {status.id: status for status in await self.workers()}
        while True:
            applied = _judge(statuses, revision, epoch)
            left_ms = int((deadline - monotonic()) * 1000)
            if left_ms <= 0 or all(statuses[name].refusal_of(revision, epoch) for name in applied.laggards):
                return applied
            block = ("XREAD", "BLOCK", min(BLOCK_MS, left_ms), "STREAMS", self.keys.acknowledgements, last)
            entries = read_entries(await self._link.call(*block))
            if not entries:
                live = {status.id: status for status in await self.workers()}
                statuses = {name: live[name] for name in statuses if name in live}
            for entry_id, fields in entries:
                last = entry_id
                status = _status(fields)
                if status is not None and status.id in statuses:
                    statuses[status.id] = status

    async def heal(
        self, seen: StoreState, local: Snapshot | None, change: Change, *, beyond: int = 0
    ) -> tuple[str, int]:
        """Epoch and revision after a store that lost writes was settled: with `local` these routes are written back
        under their old epoch and a revision `beyond` all that workers have seen, without it the store's own state is
        declared right and workers drop theirs.

        Raises: StoreReplaced if the store is no longer as it was `seen`.
        """
        mode: Settlement = "accept" if local is None else "restore"
        epoch = uuid.uuid4().hex if local is None else local.epoch
        revision = 1 + max(seen.revision, beyond, 0 if local is None else local.revision)
        keys = [self.keys.epoch, self.keys.revision, self.keys.routes, self.keys.log, self.keys.accepted]
        arguments: list[Word] = [mode, seen.epoch, seen.revision, epoch, revision]
        arguments += [change.actor, change.reason, change.source, self.keys.history("")]
        for model, compiled in local.routes.items() if local else ():
            arguments += [model, committed_text(compiled.route), compiled.route.revision]
        answer = await self._link.script(HEAL, keys, arguments)
        if text(answer[0]) != "done":
            raise StoreReplaced(text(answer[1]))
        return text(answer[2]), number(answer[1])

    async def _last_acknowledgement(self) -> str:
        entries = await self._link.call("XREVRANGE", self.keys.acknowledgements, "+", "-", "COUNT", 1)
        return stream_entries(entries)[0][0] if entries else "0-0"


def _committed(answer: Sequence[Reply], *, repeated: bool) -> Committed:
    revision, previous, epoch, at_us, restored, model, word = answer[1:]
    try:
        made = operation(text(word))
    except ValueError as error:
        raise StoreUnavailable(f"the routing store is damaged: a commit's answer names {error}") from None
    return Committed(
        model=text(model),
        operation=made,
        revision=number(revision),
        previous_revision=number(previous),
        epoch=text(epoch),
        committed_at_us=int(text(at_us)),
        restored_revision=number(restored),
        repeated=repeated,
    )


def _readable(entries: Iterable[tuple[str, list[bytes]]]) -> list[Entry]:
    readable = []
    for entry_id, fields in entries:
        try:
            readable.append(parse_entry(entry_id, fields))
        except InvalidArgument:
            continue
    return readable


def _status(fields: Sequence[bytes]) -> WorkerStatus | None:
    try:
        return parse_status(fields)
    except InvalidArgument:
        return None


def _judge(statuses: Mapping[str, WorkerStatus], revision: int, epoch: str) -> Applied:
    behind = {name: status for name, status in statuses.items() if not status.applied(revision, epoch)}
    errors = {name: status.error_of(revision, epoch) for name, status in behind.items()}
    return Applied(
        workers=tuple(sorted(statuses.keys() - behind.keys())),
        laggards=tuple(sorted(behind)),
        errors={name: error for name, error in errors.items() if error},
    )
