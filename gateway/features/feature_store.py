"""A feature store in Redis as a worker asks it: what is wanted in one turn of the loop is asked for together.

1. What waits is sent as one pipeline, an HMGET for each row, at the end of the loop's turn; while every connection is
   busy it waits, and goes with the next one. A task for each pipeline, none for a request.
2. A store that fails is away: nobody waits for it any more, and only a PING goes there, again and again, until it is
   answered; ever later, where it answers PINGs and no look-up. One that says nothing for as long as a look-up may take
   is not asked more until it does.
3. What waits is bounded, and what nobody waits for any more is not asked for. Whoever asked is told once, whatever
   happens.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import Final

from gateway.backoff import Backoff
from gateway.errors import StoreUnavailable
from gateway.routing.store.store_link import CommandRefusal, Link

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 65_536
_BATCH_ROWS: Final = 512
_BATCH_VALUES: Final = 8192  # the loop reads the values of a pipeline in one turn
_CONNECTIONS: Final = 4
_LIMIT_S: Final = 1.5  # of a pipeline, and of connecting; a look-up has the shorter one of its view
_SLOWEST_S: Final = 6.0
_LOOK: Final = Backoff(0.05, 2.0)
_STOPS: Final = "the worker stops"

# Is told the reply to the HMGET (None where the key holds no hash) and "", or None and why there is none.
Told = Callable[[bytes, "Sequence[object] | None", str], None]


class RowRequest:
    """One row that a worker waits for: its key, the fields that are wanted, and who is told.

    `wanted` says whether somebody still waits for the row of that key; it counts for so many `values`.
    """

    __slots__ = ("fields", "key", "told", "values", "wanted")

    def __init__(
        self, key: bytes, fields: tuple[bytes, ...], told: Told, wanted: Callable[[bytes], bool], values: int = 1
    ) -> None:
        self.key = key
        self.fields = fields
        self.told = told
        self.wanted = wanted
        self.values = values


class FeatureStore:
    """One feature store of a worker; everything happens on the loop it was made on.

    `trouble` says why it is away, "" while it is not. Raises: InvalidArgument, for a URL that is none.
    """

    def __init__(self, name: str, url: str, *, draw: Callable[[], float] = random.random) -> None:
        self.name = name
        self.trouble = ""
        self._link = Link(
            url,
            name="gateway-features",
            timeout_s=_LIMIT_S,
            slowest_s=_SLOWEST_S,
            connections=_CONNECTIONS,
            twice=True,
            store=f"the feature store {name!r}",
        )
        self._draw = draw
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[RowRequest] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._flush: asyncio.Handle | None = None
        self._batches: dict[int, list[RowRequest]] = {}  # that are under way, by their identity
        self._heard_ns = 0  # when it was heard last, or was asked after having nothing to do
        self._watchers: list[Callable[[], None]] = []
        self._pipelines = 0
        self._pipelines_ns = 0
        self._failures = 0
        self._refused = 0  # pipelines since the last one that was answered

    def counts(self) -> Mapping[str, int]:
        """Returns the pipelines that were answered, their time together, and those that were not."""
        return {"pipelines": self._pipelines, "ns": self._pipelines_ns, "failures": self._failures}

    def refusal(self, rows: int, patience_ns: int) -> str:
        """Returns why so many rows had better not be asked for now; "" if nothing speaks against it."""
        if self.trouble:
            return self.trouble
        if self._batches and monotonic_ns() - self._heard_ns > patience_ns:
            return f"the feature store {self.name!r} has not answered for {patience_ns // 1_000_000} ms"
        if len(self._waiting) + rows > MAX_WAITING:
            return f"{len(self._waiting)} rows wait for the feature store {self.name!r} already"
        return ""

    def ask(self, request: RowRequest) -> None:
        """Has the row read, and its requester told once, later."""
        self._waiting.append(request)
        if self._flush is None:
            self._flush = self._loop.call_soon(self._send)

    def look(self) -> None:
        """Finds out whether the store answers, and goes on until it does."""
        if self._looking is None:
            self._looking = self._begin(self._look(self._refused - 1), "look")

    async def looked(self) -> None:
        """Returns once it is known whether the store answers."""
        self.look()
        await self._looked.wait()

    def watch(self, changed: Callable[[], None]) -> None:
        """Calls `changed` whenever `trouble` has, and each time that it was found again."""
        self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        self._watchers.remove(changed)

    async def aclose(self) -> None:
        """Ends what is under way; whoever still waits is told that the worker stops."""
        self.trouble = _STOPS
        if self._flush is not None:
            self._flush.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for batch in [
            *self._batches.values(),
            list(self._waiting),
        ]:  # a task that was ended before it began has told nobody
            self._tell(batch, _STOPS)
        self._waiting.clear()
        await self._link.aclose()

    def _send(self) -> None:
        self._flush = None
        while self._waiting and len(self._batches) < _CONNECTIONS:
            batch = self._next()
            if not batch:
                return
            if not self._batches:
                self._heard_ns = monotonic_ns()
            self._batches[id(batch)] = batch
            self._begin(self._fetch(batch), "fetch")

    def _next(self) -> list[RowRequest]:
        """Returns the rows of the next pipeline; what nobody waits for any more, under load, is not asked for."""
        batch: list[RowRequest] = []
        values = 0
        while self._waiting and len(batch) < _BATCH_ROWS and values < _BATCH_VALUES:
            request = self._waiting.popleft()
            if request.wanted(request.key):
                batch.append(request)
                values += request.values
            else:
                self._tell_one(request, None, "nobody waits for it")
        return batch

    def _begin(self, work: "asyncio._CoroutineLike[None]", what: str) -> "asyncio.Task[None]":
        task = self._loop.create_task(work, name=f"features {self.name} {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _fetch(self, batch: list[RowRequest]) -> None:
        began_ns = monotonic_ns()
        why = _STOPS
        try:
            replies = await self._link.pipelined([("HMGET", request.key, *request.fields) for request in batch])
            self._heard_ns = monotonic_ns()
            self._pipelines += 1
            self._refused = 0
            self._pipelines_ns += self._heard_ns - began_ns
            answered, batch[:] = list(batch), []
            for request, reply in zip(answered, replies, strict=True):
                if isinstance(reply, CommandRefusal) and not reply.wrong_type:
                    self._tell_one(request, None, reply.why)
                else:
                    self._tell_one(request, reply if isinstance(reply, list) else None, "")
        except StoreUnavailable as error:
            why = str(error)
            self._failures += 1
            self._refused += 1
            self._set_trouble(why)
            batch.extend(self._waiting)
            self._waiting.clear()
            self.look()
        finally:
            del self._batches[id(batch)]
            self._tell(batch, why)
            if self._waiting and self.trouble != _STOPS and self._flush is None:
                self._flush = self._loop.call_soon(self._send)

    async def _look(self, before: int) -> None:
        """Sends PINGs until one is answered; `before` pipelines had failed before the one that was the reason."""
        failures = 0
        try:
            if before > 0:  # it answers PINGs and no look-up, as a cluster that is down: it is not asked at once again
                await asyncio.sleep(_LOOK.delay_s(before, self._draw()))
            while True:
                try:
                    await self._link.call("PING")
                    break
                except StoreUnavailable as error:
                    failures += 1
                    self._set_trouble(str(error))
                self._looked.set()
                await asyncio.sleep(_LOOK.delay_s(failures, self._draw()))
        finally:
            self._looking = None
            self._looked.set()
        self._heard_ns = monotonic_ns()
        self._set_trouble("")

    def _set_trouble(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            logger.warning("%s", trouble or f"the feature store {self.name!r} answers again")
        self.trouble = trouble
        for changed in self._watchers:
            changed()

    def _tell(self, batch: list[RowRequest], why: str) -> None:
        for request in batch:
            self._tell_one(request, None, why)

    def _tell_one(self, request: RowRequest, reply: Sequence[object] | None, why: str) -> None:
        try:
            request.told(request.key, reply, why)
        except Exception:  # the boundary of one row: those that came with it are answered all the same
            logger.exception("a row of the feature store %s could not be handed on", self.name)
