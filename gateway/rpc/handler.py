"""The interfaces of a handler: its context, and the mark of those that answer by callback."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
from grpc.aio import EOF as EOF  # type: ignore[attr-defined]

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.errors import GatewayError

Metadatum = tuple[str, str | bytes]  # the value is bytes where the name ends with -bin
Metadata = tuple[Metadatum, ...]
OwnMetadatum = tuple[str, bytes]  # of one call alone; the value is printable ASCII
GenericHandler: TypeAlias = "grpc.GenericRpcHandler[Any, Any]"
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
CancelCallback = Callable[[], None]

_MARK = "__answers_by_callback__"
_UNDECODED = "__takes_undecoded__"
_ANNOUNCED = "__is_announced_to__"
_SUBJECT = "__subject_of_its_message__"
_Function = TypeVar("_Function", bound=Callable[..., object])
# Is told the length of a message that comes in parts, and its first part, before the rest is read; returns what is to
# know when the message has come whole, or never will, if anything is.
Announced = Callable[["UnreadCall", int, bytes], "AnnouncedCall | None"]
# Returns what the beginning of a message says of who serves it: messages of one subject are refused alike.
Subject = Callable[[bytes], object]


class AnnouncedCall(Protocol):
    """A message that was let in at its beginning. Its call `waits` for others: the rest need not come soon."""

    @property
    def waits(self) -> bool: ...

    def end(self) -> None:
        """Notes that the message has come whole, or never will."""


class UnreadCall(Protocol):
    """What the head of a call says of it.

    Units: `deadline_ns` is on the monotonic clock, 0: none.
    """

    @property
    def principal(self) -> Principal: ...

    @property
    def quota_pass(self) -> QuotaPass | None:
        """The permit by which quotas let the call in at its head; None without any. The transport releases it."""

    @property
    def deadline_ns(self) -> int: ...


class CallbackContext(UnreadCall, Protocol):
    """One unary call that is answered by callback, at once or later, always on the event loop.

    Exactly one of `answer` and `fail` counts: what comes after the first, or after the call has ended by cancellation
    or deadline, is ignored. A caller that holds something for the call releases it in `on_cancel`'s callback or when it
    answers, whichever comes first.

    `principal` is who calls, as far as it is proven. Handlers of the other style find it in their context as well.

    Units: `message_size` counts the bytes of the request's message.
    """

    @property
    def message_size(self) -> int: ...

    def answer(self, message: object) -> None:
        """Sends a message, or bytes as they are, with status OK and the trailing metadata set before."""

    def fail(self, error: GatewayError) -> None:
        """Ends the call with the error's status and the trailing metadata set before."""

    def on_cancel(self, callback: CancelCallback) -> None:
        """Runs `callback` once if the call ends before it was answered: cancelled, expired, or its connection lost.

        Order: at once, if that has already happened.
        """

    def metadata_value(self, name: str) -> str | None:
        """Returns the first value of a lower-case name, or None; decodes nothing else."""

    def invocation_metadata(self) -> Metadata: ...

    def set_trailing_metadata(self, trailing_metadata: Metadata, own: OwnMetadatum | None = None) -> None:
        """Sets the metadata that follow the answer: `trailing_metadata`, then `own`.

        The encoded form of `trailing_metadata` is kept for as long as the same tuple comes again, so pass one that was
        made beforehand; put what differs with each call into `own`.
        """

    def time_remaining(self) -> float | None: ...

    def peer(self) -> str: ...

    def peer_identities(self) -> Iterable[bytes] | None: ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


def by_callback(function: _Function) -> _Function:
    """Returns the same function, marked as a unary method that answers by callback.

    Its parameters are `(self, message: bytes | memoryview, context: CallbackContext)`. It is called synchronously on
    the event loop with the undecoded message; a large one may come as a view. An exception that
    leaves it fails the call.
    """
    setattr(function, _MARK, True)
    return function


def undecoded(function: _Function) -> _Function:
    """Returns the same function, marked as one that is given the messages of its requests as they came."""
    setattr(function, _UNDECODED, True)
    return function


def takes_undecoded(function: object) -> bool:
    """Returns whether the function, or the function behind a bound method, is marked."""
    return getattr(function, _UNDECODED, False) is True


def announced_to(name: str, subject: Subject) -> Callable[[_Function], _Function]:
    """Returns a decorator for a method that answers by callback: its object's method `name` is an `Announced`.

    A GatewayError that leaves it refuses the call before its message is read. A transport that reads messages whole
    announces one of no bytes, which begins like the one before of the same caller.
    """

    def mark(function: _Function) -> _Function:
        setattr(function, _ANNOUNCED, name)
        setattr(function, _SUBJECT, subject)
        return function

    return mark


def announced_by(function: object) -> Announced | None:
    """Returns what is told of the messages that the bound method will be given; None if nothing is."""
    name, owner = getattr(function, _ANNOUNCED, ""), getattr(function, "__self__", None)
    return getattr(owner, name) if name else None


def subject_by(function: object) -> Subject | None:
    """Returns what tells the subject of the messages of a method that is announced; None for any other."""
    return getattr(function, _SUBJECT, None)


def answers_by_callback(function: object) -> bool:
    """Returns whether the function, or the function behind a bound method, is marked."""
    return getattr(function, _MARK, False) is True
