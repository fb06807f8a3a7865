"""A call of the grpcio transport as its handler sees it: grpcio's context, with messages decoded and counted."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic_ns
from typing import Any, Final

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.errors import GatewayError, PermissionDenied, UnknownModel
from gateway.rpc.authorizer import CallCredential
from gateway.rpc.handler import EOF, AnnouncedCall, CancelCallback, Metadata, OwnMetadatum
from gateway.rpc.inflation import Inflater, encoding_of
from gateway.rpc.message import BadMessage, Compressed
from gateway.rpc.method import Method
from gateway.rpc.open_calls import OpenCall
from gateway.rpc.precedent import Precedents
from gateway.rpc.pushback import never

_LEAD_BYTES: Final = 512  # of a message: more than the names of a model and a version take
_DENIALS: Final = (PermissionDenied, UnknownModel)


class AdaptedCall:
    """grpcio's context with decoded messages, a known method and the server's own deadline.

    Order: grpcio reads a message from the wire when it is asked for, so what is refused before is never held.
    """

    def __init__(
        self,
        inner: Any,
        method: Method,
        deadline_ns: int,
        principal: Principal,
        held: OpenCall,
        inflater: Inflater,
        max_send_bytes: int,
    ) -> None:
        self._inner = inner
        self._method = method
        self._held = held
        self._inflater = inflater
        self._max_send_bytes = max_send_bytes
        self.deadline_ns = deadline_ns
        self.principal = principal
        self.credential: CallCredential | None = None
        self.quota_pass: QuotaPass | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def message(self) -> bytes:
        """Returns the one message of a unary call, not decoded. Raises: ResourceExhausted, BadMessage."""
        self._held.awaited_ns = monotonic_ns()
        message = await self._inner.read()
        self._held.awaited_ns = 0
        if message is EOF:
            raise BadMessage("a unary call ended without a whole message")
        return await self._content(message)

    def prove(self) -> Principal:
        """Returns who calls, found out anew: a stream outlives what proved its caller.

        Raises: Unauthenticated, PermissionDenied.
        """
        if self.credential is not None:
            self.principal = self.credential.prove()
        return self.principal

    async def read(self) -> object:
        message = await self._inner.read()
        if message is EOF:
            return message
        self.prove()
        return self._method.decode(await self._content(message))

    async def write(self, message: object) -> None:
        self.prove()
        raw = self.encode(message)
        await self._inner.write(raw)
        self._held.sent(len(raw))

    def encode(self, message: object) -> bytes:
        """Returns an answer as bytes, which count until they have left or the call is over.

        Raises: ResourceExhausted.
        """
        raw = self._method.encode(message)
        if len(raw) > self._max_send_bytes:
            raise never(f"answer of {len(raw)} bytes, at most {self._max_send_bytes} are sent")
        self._held.reserve(len(raw))
        return raw

    def time_remaining(self) -> float | None:
        return (self.deadline_ns - monotonic_ns()) / 1e9 if self.deadline_ns else None

    async def _content(self, message: bytes) -> bytes:
        """Counts a message, and returns it inflated; the content counts until the next is read."""
        self._held.receive(len(message))
        encoding = encoding_of(message)
        if not encoding:
            return message
        inflation = self._held.inflation = self._inflater.open(Compressed(message, encoding))
        try:
            content = inflation.begin()
            return await self._inflater.finish(inflation) if content is None else content
        except BadMessage:
            if encoding == b"gzip":
                raise
            inflation.release()
            return message  # it began like zlib, and is plain


class _ForeseenCall:
    """A call whose message is not known: it takes nothing from quotas, and is asked for roles, to say nothing else."""

    quota_pass = None

    def __init__(self, principal: Principal, deadline_ns: int) -> None:
        self.principal = principal
        self.deadline_ns = deadline_ns


class AdaptedCallbackCall(AdaptedCall):
    """A call that is answered by callback, while the Task that grpcio gave it waits.

    A caller whose last message would be refused if it came now is refused at the head, and its message never read.
    """

    def __init__(self, *arguments: Any, precedents: Precedents) -> None:
        super().__init__(*arguments)
        self._precedents = precedents
        self.message_size = 0
        self._answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._on_cancel: list[CancelCallback] = []

    async def answered(self) -> object:
        """Calls the handler; returns its answer, or raises what it fails with."""
        coming = self._foresee()
        try:
            message = await self.message()
        finally:
            if coming is not None:
                coming.end()
        self.message_size = len(message)
        self._remember(message)
        try:
            self._method.call(message, self)
            return await self._answered
        except BaseException:
            self._abandon()
            raise

    def _foresee(self) -> AnnouncedCall | None:
        """Returns the call on its way, if it is known who serves it. Raises: ResourceExhausted, Unavailable."""
        announce = self._method.announce
        if announce is None:
            return None
        now_ns = monotonic_ns()
        precedent = self._precedents.find(self._caller, self._method.path, now_ns)
        if precedent is None:
            return None
        if precedent.probes(now_ns):
            return None
        self._held.expect(precedent.likely_bytes)
        if not precedent.decides(now_ns):
            return None
        try:
            return announce(_ForeseenCall(self.principal, self.deadline_ns), 0, precedent.lead)
        except _DENIALS:
            return None  # whose load it is is nobody's business

    def _remember(self, message: bytes) -> None:
        subject = self._method.subject
        if subject is not None:
            lead = message[:_LEAD_BYTES]
            path, size_bytes = self._method.path, len(message)
            self._precedents.note(self._caller, path, subject(lead), lead, size_bytes, monotonic_ns())

    @property
    def _caller(self) -> str:
        """Who calls, by which connection: others of the same name or address may want another model."""
        return f"{self.principal.name} {self._held.peer.name}"

    def answer(self, message: object) -> None:
        if not self._answered.done():
            self._on_cancel.clear()
            self._answered.set_result(message)

    def fail(self, error: GatewayError) -> None:
        if isinstance(error, _DENIALS):
            self._precedents.deny(self._caller, self._method.path)
        if not self._answered.done():
            self._on_cancel.clear()
            self._answered.set_exception(error)

    def on_cancel(self, callback: CancelCallback) -> None:
        if self._answered.cancelled():
            callback()
        elif not self._answered.done():
            self._on_cancel.append(callback)

    def _abandon(self) -> None:
        """Tells whoever works on the answer, once, that nobody waits for it any more."""
        self._answered.cancel()
        callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            callback()

    def metadata_value(self, name: str) -> str | None:
        for key, value in self._inner.invocation_metadata():
            if key == name:
                return value if isinstance(value, str) else value.decode("latin-1")
        return None

    def set_trailing_metadata(self, trailing_metadata: Metadata, own: OwnMetadatum | None = None) -> None:
        # grpcio takes bytes only where the key ends with -bin.
        more = ((own[0], own[1].decode("ascii")),) if own is not None else ()
        self._inner.set_trailing_metadata((*trailing_metadata, *more))


Adapted = Callable[[Any, Any], Awaitable[Any]]  # a handler as grpcio calls it
