"""A store whose callers are overtaken by somebody else at a moment that a test chooses."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_link import Link, Word
from gateway.routing.store.store_reply import Reply

T = TypeVar("T")


class Overtaken(RedisStore):
    """A store where somebody does something right after the answer of this number."""

    def __init__(self, url: str, answer: int, deed: Callable[[], Awaitable[object]]) -> None:
        super().__init__(url)
        self._link = OvertakenLink(url, answer, deed)


class OvertakenLink(Link):
    def __init__(self, url: str, answer: int, deed: Callable[[], Awaitable[object]]) -> None:
        super().__init__(url, name="overtaken")
        self._left = answer
        self._deed = deed

    async def call(self, *words: Word) -> Reply:
        return await self._then(await super().call(*words))

    async def transaction(self, commands: Iterable[Sequence[Word]]) -> list[Reply]:
        return await self._then(await super().transaction(commands))

    async def _then(self, reply: T) -> T:
        self._left -= 1
        if self._left == 0:
            await self._deed()
        return reply
