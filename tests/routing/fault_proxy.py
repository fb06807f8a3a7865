"""A TCP proxy in front of a store that does what networks do: delay, stall, cut, close by halves, lose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from tests.accepted_connections import accepting

Fault = Literal["none", "delay", "stall", "cut", "half-close", "to-server", "to-client"]
FAULTS: tuple[Fault, ...] = ("delay", "stall", "cut", "half-close", "to-server", "to-client")


class FaultProxy:
    """Passes bytes on to a unix socket. A fault holds for all connections, those of before as well, until it is mended.

    delay: 50 ms each way; stall: nothing passes, and comes late; cut: connections are reset, new ones too; half-close:
    the server's side ends and takes nothing more; to-server, to-client: what goes there is lost.
    """

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._fault: Fault = "none"
        self._mended = asyncio.Event()
        self._mended.set()
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def put(self, fault: Fault) -> None:
        """The fault from now on; "none" mends, and resets connections that have lost bytes."""
        lossy, self._fault = self._fault in ("to-server", "to-client"), fault
        if fault == "stall":
            self._mended.clear()
        else:
            self._mended.set()
        for writer in list(self._open):
            if fault == "cut" or (fault == "none" and lossy):
                writer.transport.abort()
            elif fault == "half-close" and writer.can_write_eof():
                writer.write_eof()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        async with accepting(self._serve) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._fault == "cut":
            writer.transport.abort()
            return
        behind, ahead = await asyncio.open_unix_connection(self._upstream)
        self._open.add(writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, ahead, "to-server"))
                group.create_task(self._carry(behind, writer, "to-client"))
        finally:
            self._open.discard(writer)
            ahead.transport.abort()
            writer.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: Fault) -> None:
        try:
            while data := await source.read(65536):
                await self._mended.wait()
                if self._fault == "delay":
                    await asyncio.sleep(0.05)
                if self._fault != way and not (self._fault == "half-close" and way == "to-client"):
                    target.write(data)
                    await target.drain()
        except OSError:
            pass
        finally:
            target.transport.abort()
