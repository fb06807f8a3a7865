"""The call of a handler of grpcio's asyncio style, in all its forms."""

import inspect
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

import grpc

from gateway.rpc.handler import EOF
from gateway.rpc.method import Method
from gateway.rpc.status_codes import Status, status_of


class Channel(Protocol):
    """The two directions of one call as a handler sees them; both carry decoded messages."""

    async def read(self) -> object:
        """Returns the next message, or grpc.aio.EOF."""

    async def write(self, message: object) -> None: ...


class Coded(Protocol):
    """A context whose handler may have set a code and a text."""

    def code(self) -> Any: ...

    def details(self) -> Any: ...


async def requests(channel: Channel) -> AsyncIterator[object]:
    """Yields the messages of a client's stream until it half-closes."""
    while True:
        message = await channel.read()
        if message is EOF:
            return
        yield message


async def invoke(method: Method, request: object, channel: Channel) -> object:
    """Runs a handler to its end; returns the answer of a unary one, writes the answers of a streaming one.

    A handler may be a coroutine function, an async generator function, a plain function (which must not block: it runs
    on the event loop), or a plain generator function.
    """
    result = method.call(request, channel)
    if not method.response_streaming:
        return await result if inspect.isawaitable(result) else result
    if inspect.isasyncgen(result):
        async with aclosing(result):
            async for message in result:
                await channel.write(message)
    elif hasattr(result, "__aiter__"):
        async for message in result:
            await channel.write(message)
    elif inspect.isawaitable(result):
        await result
    elif result is not None:
        for message in result:
            await channel.write(message)
    return None


def failure(error: BaseException, method: Method, context: Coded) -> Status:
    """Returns the status of a call whose handler raised: the code that it had set, else that of the exception.

    Generated servicers set UNIMPLEMENTED and raise for each method that nobody wrote.
    """
    code = context.code()
    if isinstance(code, grpc.StatusCode) and code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN):
        details = context.details()
        return Status(code, details.decode() if isinstance(details, bytes) else str(details or ""))
    return status_of(error, method.path)
