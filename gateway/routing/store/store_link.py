"""The way to the server of the routing store, or of another one: replies as the protocol has them, no retry of its own,
and every failure a StoreUnavailable with a short reason. This is the one module that imports redis.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeAlias, cast

import redis.asyncio as aioredis
from redis import exceptions as failures
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import StoreDamaged, StoreForbidden, StoreUnavailable
from gateway.routing.store.change import Replicas
from gateway.routing.store.store_address import Node, StoreAddress, parse_address
from gateway.routing.store.store_failure import reason
from gateway.routing.store.store_reply import Reply, many, text
from gateway.routing.store.store_script import Script
from gateway.routing.store.store_sentinel import RENEW_S, Sentinels

Word: TypeAlias = "str | bytes | int"

REPLICATION_MS = 100
# The client would tell its own name and version: two more answers to wait for, by a command that Redis 7.0 has not got.
_UNNAMED: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)
_ROUTING = "the routing store"
_WHO_MAY = {_ROUTING: ": ask at a host whose user may, or renew this one's rights: `gateway redis-acl` prints them"}
MOVES = 4  # of the keys to another node of a cluster, before one command is answered


@dataclass(frozen=True, slots=True)
class CommandRefusal:
    """Holds why the server refused one command of several: its key holds another type, or the user may not read it."""

    why: str
    wrong_type: bool


class Link:
    """Connections to the store's server under one name, at most `connections` of them, wherever that server is.

    With `twice` a command whose connection turns out to be closed is sent once more on a new one: what the control side
    sends may be repeated. A feed does not, because a new connection may lead to another server.
    All keys lie in one slot, so one node of a cluster is all that is talked to; where it says MOVED, the next one is.
    A server that is slower than `timeout_s` (a connection takes four answers of it) is given twice the time at the next
    call, up to `slowest_s`, and less again when it is faster. `store` is what failures call it.
    Raises: StoreUnavailable from every call that is not answered; InvalidArgument for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        timeout_s: float = 1.5,
        slowest_s: float = 0.0,
        connections: int = 16,
        twice: bool = False,
        store: str = _ROUTING,
    ) -> None:
        self._address = parse_address(url)
        self._name = name
        self._store = store
        self._connections = connections
        self._least_s = self._timeout_s = timeout_s
        self._slowest_s = max(timeout_s, slowest_s)
        self._twice = twice
        self._functions = False
        nodes = self._address.nodes
        named = self._address.kind == "sentinel"
        self._seeds = deque(nodes[:1] if named else nodes)
        self._sentinels = Sentinels(nodes, self._address.service, self._once) if named else None
        self._lost = self._sentinels is not None
        self._find_at = 0.0
        self._open(nodes[0])

    async def call(self, *words: Word) -> Reply:
        keys = [word for word in words if isinstance(word, str) and word.startswith("{gw:")]
        return await self._answered(lambda: self._execute(*words), " ".join([str(words[0]), *keys[:1]]))

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> list[Reply]:
        """The script's answer. Raises: StoreDamaged naming the key if one holds what the gateway never wrote."""
        tail = (len(keys), *keys, *arguments)
        return _undamaged(await self._answered(lambda: self._evaluate(script, tail, self._execute), "script"))

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

    async def pipelined(self, commands: Sequence[Sequence[Word]]) -> "list[Reply | CommandRefusal]":
        """All replies of commands that were sent together; a CommandRefusal to each that was refused by itself."""

        async def ask() -> object:
            pipeline = self._client.pipeline(transaction=False)
            queue: Callable[..., object] = pipeline.execute_command
            for command in commands:
                queue(*command)
            replies = await pipeline.execute(raise_on_error=False)
            return [self._own_refusal(reply) if isinstance(reply, Exception) else reply for reply in replies]

        return cast("list[Reply | CommandRefusal]", many(await self._answered(ask, "pipeline")))

    def _own_refusal(self, error: Exception) -> CommandRefusal:
        """Returns what one command of several was refused for. Raises: `error`, if it is not about that one alone."""
        wrong_type = str(error).startswith("WRONGTYPE")
        if not wrong_type and not isinstance(error, failures.NoPermissionError):
            raise error
        return CommandRefusal(f"{self._store} {reason(error, self._timeout_s)}", wrong_type=wrong_type)

    async def written(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Word]
    ) -> tuple[list[Reply], Replicas]:
        """The answer of a script that writes, and how many of the server's replicas have what it wrote."""
        replicas = Replicas()

        async def ask() -> object:
            nonlocal replicas
            pipeline = self._client.pipeline(transaction=False)  # holds one connection, which is what WAIT is about
            execute: Callable[..., Awaitable[object]] = pipeline.immediate_execute_command
            try:
                reply = await self._evaluate(script, (len(keys), *keys, *arguments), execute)
                replicas = await _replicas(execute)
                return reply
            finally:
                await pipeline.reset()  # type: ignore[no-untyped-call]

        return _undamaged(await self._answered(ask, "script")), replicas

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _evaluate(
        self, script: Script, tail: Sequence[Word], execute: Callable[..., Awaitable[object]]
    ) -> object:
        """Order: a user that may send no scripts may still call the functions that an administrator loaded."""
        if not self._functions:
            try:
                try:
                    return await execute(f"EVALSHA{script.suffix}", script.sha, *tail)
                except failures.NoScriptError:
                    return await execute(f"EVAL{script.suffix}", script.text, *tail)
            except failures.NoPermissionError:
                pass
        reply = await execute(f"FCALL{script.suffix}", script.function, *tail)
        self._functions = True
        return reply

    async def _answered(self, ask: Callable[[], Awaitable[object]], what: str) -> Reply:
        tries, moves = 1 + self._twice * len(self._seeds), MOVES
        asked_at = monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        await self._locate()
                        answer = cast(Reply, await ask())
                        if monotonic() - asked_at < self._timeout_s / 4:
                            self._timeout_s = max(self._least_s, self._timeout_s / 2)
                        return answer
                    except failures.MovedError as moved:
                        moves -= 1
                        if not moves:
                            raise
                        await self._turn_to(Node(moved.host or self._node.host, moved.port))
                    except failures.ConnectionError as error:
                        self._lost = True
                        tries -= 1
                        if not tries or type(error) is not failures.ConnectionError:
                            raise
        except ValueError as error:  # of the client, which takes a redirection apart that is none
            self._lost = True
            raise StoreUnavailable(f"{self._store} is none: what answers there speaks no RESP ({what})") from error
        except (failures.RedisError, OSError, TimeoutError) as error:
            self._lost, limit_s = True, self._timeout_s
            if isinstance(error, TimeoutError):
                self._timeout_s = min(self._slowest_s, limit_s * 2)
            why = reason(error, limit_s)
            over = ", over TLS" if self._address.tls else ""
            text = f"{self._store} {why} ({what}{over})"
            if isinstance(error, failures.NoPermissionError):
                raise StoreForbidden(f"{text}{_WHO_MAY.get(self._store, '')}") from error
            raise (StoreDamaged if why.startswith("is damaged") else StoreUnavailable)(text) from error

    async def _locate(self) -> None:
        """The connections lead to the server that is to be asked now.

        A server that was cut off goes on answering those that it can still reach, so the sentinels are asked now and
        then even while all is well.
        """
        if self._sentinels is None:
            if self._lost:
                self._lost = False
                self._seeds.rotate(-1)
                await self._turn_to(self._seeds[0])
        elif self._lost or monotonic() >= self._find_at:
            self._find_at = monotonic() + RENEW_S
            try:
                await self._turn_to(await self._sentinels.master())
                await self._check_role()
                self._lost = False
            except StoreUnavailable:
                if self._lost:
                    raise

    async def _check_role(self) -> None:
        try:
            role = await self._execute("ROLE")
        except failures.NoPermissionError:
            return
        if isinstance(role, list) and role[0] != b"master":
            raise failures.ReadOnlyError("the sentinels named a replica")

    async def _turn_to(self, node: Node) -> None:
        if node != self._node:
            left = self._pool
            self._open(node)
            await left.disconnect()

    def _open(self, node: Node) -> None:
        self._node = node
        kind, options = _connecting(self._address, node)
        self._pool = aioredis.BlockingConnectionPool(
            connection_class=kind,
            max_connections=self._connections,
            timeout=self._timeout_s,
            client_name=self._name,
            **{**options, **self._address.options},
        )
        self._client = aioredis.Redis.from_pool(self._pool)
        self._client.response_callbacks.clear()
        self._execute: Callable[..., Awaitable[object]] = self._client.execute_command

    async def _once(self, node: Node, words: Sequence[str]) -> Reply:
        """The answer of a server that is asked this one thing, on a connection of its own."""
        kind, options = _connecting(self._address, node)
        connection = kind(**{**options, **self._address.sentinel_options})
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*words)
            return cast(Reply, await connection.read_response())
        except (failures.RedisError, OSError) as error:
            raise StoreUnavailable(f"a sentinel {reason(error, self._timeout_s)}") from error
        finally:
            await connection.disconnect(nowait=True)


def _connecting(address: StoreAddress, node: Node) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """The kind of connection that leads to a node, and how it behaves."""
    options: dict[str, Any] = {
        "protocol": 2,
        **_UNNAMED,
        "retry": Retry(NoBackoff(), 0),
        # The client's own read timeout goes through asyncio.wait_for, which before Python 3.12 loses a
        # cancellation that meets the answer, and then a loop never ends. `_answered` sets the limit instead.
        "socket_timeout": None,
        "socket_connect_timeout": None,
    }
    if address.unix:
        return aioredis.UnixDomainSocketConnection, {**options, "path": node.host}
    kind = aioredis.SSLConnection if address.tls else aioredis.Connection
    return kind, {**options, "host": node.host, "port": node.port}


async def _replicas(execute: Callable[..., Awaitable[object]]) -> Replicas:
    """Returns how far this connection's last write came; nothing where there is no replica or the user may not ask."""
    try:
        role = await execute("ROLE")
        known = len(role[2]) if isinstance(role, list) and role[0] == b"master" else 0
        reached = await execute("WAIT", known, REPLICATION_MS) if known else 0
    except (failures.RedisError, OSError):
        return Replicas()  # the change is committed all the same
    return Replicas(known, reached if isinstance(reached, int) else 0)


def _undamaged(reply: Reply) -> list[Reply]:
    """A script's answer. Raises: StoreDamaged naming the key if one holds what the gateway never wrote."""
    answer = many(reply)
    if answer and answer[0] == b"damaged":
        key, held = text(answer[1]), text(answer[2])
        raise StoreDamaged(f"the routing store is damaged: key {key!r} holds {held}; `gateway heal` mends it")
    return answer
