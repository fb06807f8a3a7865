"""What the processes of one host say to each other: JSON frames over unix sockets, one question at a time.

A frame is four bytes of length, big-endian, and that many bytes of JSON: a question `{"operation", "payload"}`, an
answer `{"payload"}` or `{"error": {"code", "text"}}`. A question that is followed has many answers, then `{"end"}`
or an error. Both sides refuse a frame over the limit before they read it.
"""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from gateway.errors import (
    Cancelled,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    GatewayError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

Payload = dict[str, object]
Operation = Callable[[Payload], Awaitable[Payload]]
Followed = Callable[[Payload], AsyncGenerator[Payload, None]]

TRACES: Final = "traces"  # the operation by which a worker hands over what it has sampled
FRAME_LIMIT_BYTES: Final = 16 << 20
IDLE_LIMIT_S: Final = 30.0
CONTROL_SOCKET: Final = "control.sock"

_LENGTH: Final = Struct(">I")
_log = logging.getLogger(__name__)


class Aborted(GatewayError):
    """A peer's StaleRevision; its text names the revisions."""

    code = Code.ABORTED


class PeerGone(Unavailable):
    """Nobody answered on the socket: the process is being started, has ended, or went away meanwhile."""


_BY_CODE: Final[Mapping[Code, type[GatewayError]]] = {
    error.code: error
    for error in (
        Aborted,
        Cancelled,
        DeadlineExceeded,
        FailedPrecondition,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )
}


def worker_socket(socket_dir: Path, slot: int) -> Path:
    """Returns where the worker of that slot answers."""
    return socket_dir / f"worker-{slot}.sock"


class PeerServer:
    """Answers questions on a unix socket that only this user can reach; those to `followed` piece by piece.

    Order: after `start` the path answers; it replaces what another process may have bound there (the worker that this
           one relieves), and `close` removes it only if it is still ours.
    """

    def __init__(
        self, path: Path, operations: Mapping[str, Operation], followed: Mapping[str, Followed] | None = None
    ) -> None:
        self._path = path
        self._operations = dict(operations)
        self._followed = dict(followed or {})
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        staged = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        staged.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, staged, limit=1 << 16)
        staged.chmod(0o600)
        status = staged.stat()
        self._identity = (status.st_dev, status.st_ino)
        staged.replace(self._path)

    async def close(self) -> None:
        """Answers no further question, and cuts off those in work."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()
        self._server = None
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        if (status.st_dev, status.st_ino) == self._identity:
            self._path.unlink(missing_ok=True)

    async def __aenter__(self) -> "PeerServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                async with asyncio.timeout(IDLE_LIMIT_S):
                    question = await _read(reader)
                followed = self._followed.get(str(question.get("operation")))
                if followed is not None:
                    await self._tell(followed, question, reader, writer)
                    return
                writer.write(await self._answer(question))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass  # the other side has gone, or sits idle
        except ValueError as error:
            _log.warning("a peer sent what is no frame: %s", error)
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, question: Payload) -> bytes:
        name, payload = question.get("operation"), question.get("payload")
        try:
            if not isinstance(name, str) or not isinstance(payload, dict):
                raise InvalidArgument("a question has an operation (text) and a payload (object)")
            operation = self._operations.get(name)
            if operation is None:
                raise Unimplemented(f"{self._path.name} does not answer {name!r}")
            return _frame({"payload": await operation(payload)})
        except Exception as error:  # the boundary of a request between processes
            return _refusal(name, error)

    async def _tell(
        self, followed: Followed, question: Payload, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answers piece by piece until there are no more, or the other side has gone."""
        telling = asyncio.ensure_future(self._pieces(followed, question, writer))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((telling, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, gone):
                task.cancel()
            await asyncio.gather(telling, gone, return_exceptions=True)

    async def _pieces(self, followed: Followed, question: Payload, writer: asyncio.StreamWriter) -> None:
        payload = question.get("payload")
        try:
            async with aclosing(followed(payload if isinstance(payload, dict) else {})) as pieces:
                async for piece in pieces:
                    writer.write(_frame({"payload": piece}))
                    await writer.drain()
            last = _frame({"end": True})
        except ConnectionError:
            return
        except Exception as error:  # the boundary of a request between processes
            last = _refusal(question.get("operation"), error)
        writer.write(last)
        await writer.drain()


async def ask(path: Path, operation: str, payload: Payload, timeout_s: float = 5.0) -> Payload:
    """Returns what the process behind that socket answers.

    Raises: PeerGone (nobody answers there, or it went away meanwhile: the operation may have been done),
            DeadlineExceeded, ResourceExhausted (the question is too large), or the GatewayError that the peer raised.
    """
    question = _frame({"operation": operation, "payload": payload})
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(question)
            await writer.drain()
            answer = await _read(reader)
    except TimeoutError:
        raise DeadlineExceeded(f"{path.name} did not answer {operation!r} within {timeout_s:g} s") from None
    except (asyncio.IncompleteReadError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE):
            raise ResourceExhausted(f"{path.name} cannot be asked: {error.strerror}") from None
        raise PeerGone(f"{path.name} does not answer {operation!r}") from None
    except ValueError as error:
        raise Unavailable(f"{path.name} answered {operation!r} with what is no frame: {error}") from None
    finally:
        if writer is not None:
            writer.transport.abort()
    return _payload_of(answer, path, operation)


async def follow(path: Path, operation: str, payload: Payload) -> AsyncGenerator[Payload, None]:
    """Yields what the process behind that socket answers, until it has no more. Raises: as `ask`, but no deadline."""
    writer: asyncio.StreamWriter | None = None
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(_frame({"operation": operation, "payload": payload}))
        await writer.drain()
        while "end" not in (answer := await _read(reader)):
            yield _payload_of(answer, path, operation)
    except (asyncio.IncompleteReadError, OSError):
        raise PeerGone(f"{path.name} does not answer {operation!r}") from None
    except ValueError as error:
        raise Unavailable(f"{path.name} answered {operation!r} with what is no frame: {error}") from None
    finally:
        if writer is not None:
            writer.transport.abort()


class Peers:
    """The workers of this host, asked together."""

    def __init__(self, socket_dir: Path, own_slot: int, slots: int) -> None:
        self._socket_dir = socket_dir
        self._own_slot = own_slot
        self._slots = slots

    @property
    def control(self) -> Path:
        """The socket of the control process."""
        return self._socket_dir / CONTROL_SOCKET

    async def ask_all(
        self, operation: str, payload: Payload, *, timeout_s: float = 5.0, own: bool = True
    ) -> dict[int, Payload | GatewayError]:
        """Returns each slot's answer or its error, by slot; this worker's own among them unless `own` is False.

        All are asked at once, so it takes as long as the slowest. This worker's own answer comes over its socket like
        every other's: one path for all.
        """
        slots = [slot for slot in range(self._slots) if own or slot != self._own_slot]
        async with asyncio.TaskGroup() as group:
            tasks = {slot: group.create_task(self._ask(slot, operation, payload, timeout_s)) for slot in slots}
        return {slot: task.result() for slot, task in tasks.items()}

    async def ask_one(self, slot: int, operation: str, payload: Payload, *, timeout_s: float = 5.0) -> Payload:
        """Returns that slot's answer. Raises: what `ask` raises."""
        return await ask(worker_socket(self._socket_dir, slot), operation, payload, timeout_s)

    def follow_one(self, slot: int, operation: str, payload: Payload) -> AsyncGenerator[Payload, None]:
        """Returns what yields that slot's answers. Raises: what `follow` raises."""
        return follow(worker_socket(self._socket_dir, slot), operation, payload)

    async def _ask(self, slot: int, operation: str, payload: Payload, timeout_s: float) -> Payload | GatewayError:
        try:
            return await self.ask_one(slot, operation, payload, timeout_s=timeout_s)
        except GatewayError as error:
            return error


def _payload_of(answer: Payload, path: Path, operation: str) -> Payload:
    error, payload = answer.get("error"), answer.get("payload")
    if isinstance(error, dict):
        try:
            code = Code(error.get("code"))
        except ValueError:
            code = Code.INTERNAL
        raise _BY_CODE.get(code, GatewayError)(str(error.get("text", "")))
    if not isinstance(payload, dict):
        raise Unavailable(f"{path.name} answered {operation!r} without a payload")
    return payload


def _refusal(operation: object, error: Exception) -> bytes:
    """Returns an error as a frame; of a defect of ours the log alone has the cause."""
    if isinstance(error, GatewayError):
        return _frame({"error": {"code": error.code.value, "text": str(error)}})
    _log.error("operation %s failed", operation, exc_info=error)
    return _frame({"error": {"code": Code.INTERNAL.value, "text": str(Internal())}})


async def _read(reader: asyncio.StreamReader) -> Payload:
    """Returns the next frame. Raises: ValueError if it is too large or no JSON object."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > FRAME_LIMIT_BYTES:
        raise ValueError(f"a frame of {length} bytes, the limit is {FRAME_LIMIT_BYTES}")
    try:
        return msgspec.json.decode(await reader.readexactly(length), type=Payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"a frame that is no object: {error}") from None


def _frame(content: Payload) -> bytes:
    """Raises: ResourceExhausted if it is larger than the other side would read."""
    body = msgspec.json.encode(content)
    if len(body) > FRAME_LIMIT_BYTES:
        raise ResourceExhausted(f"a message of {len(body)} bytes to another process, the limit is {FRAME_LIMIT_BYTES}")
    return _LENGTH.pack(len(body)) + body
