"""Streams that would go on for ever, ended when their worker leaves."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from gateway.errors import Unavailable

Item = TypeVar("Item")


class Drain:
    """Ends the streams that are read through it when the worker leaves."""

    def __init__(self) -> None:
        self._leaving = asyncio.Event()

    def begin(self) -> None:
        """Ends every stream with an error that is safe to retry: another worker has the rest."""
        self._leaving.set()

    async def through(self, source: AsyncGenerator[Item, None]) -> AsyncIterator[Item]:
        """Yields the items of the source. Raises: Unavailable once the worker leaves."""
        leaving = asyncio.ensure_future(self._leaving.wait())
        following: asyncio.Future[Item] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(source))
                await asyncio.wait((following, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    raise Unavailable("this worker is leaving: ask again, another one answers")
                try:
                    item = following.result()
                except StopAsyncIteration:
                    return
                yield item
        finally:
            leaving.cancel()
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await source.aclose()
