"""The methods that a server serves, each with what a transport needs to know of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from google.protobuf.message import DecodeError

from gateway.errors import InvalidArgument
from gateway.rpc.handler import (
    Announced,
    GenericHandler,
    Metadata,
    RpcHandler,
    Subject,
    announced_by,
    answers_by_callback,
    subject_by,
    takes_undecoded,
)
from gateway.rpc.pushback import never

# Protobuf takes a message apart in one go, on the loop. What a few MiB of fields without content cost is tens of
# milliseconds; the largest message of a tensor's size would be a second, whoever may call the method.
MOST_DECODED_BYTES: Final = 2 << 20


class HandlerCallDetails(NamedTuple):
    """The argument of a generic handler: grpc.HandlerCallDetails as a value."""

    method: str
    invocation_metadata: Metadata


class Method:
    """One method: the handler's function with its codecs, whatever the kind of call."""

    __slots__ = (
        *("announce", "by_callback", "call", "deserializer", "path"),
        *("request_streaming", "response_streaming", "serializer", "subject"),
    )

    def __init__(self, path: str, handler: RpcHandler) -> None:
        self.path = path
        self.request_streaming = bool(handler.request_streaming)
        self.response_streaming = bool(handler.response_streaming)
        self.deserializer: Callable[[bytes], object] | None = handler.request_deserializer
        self.serializer: Callable[[Any], bytes] | None = handler.response_serializer
        call = {
            (False, False): handler.unary_unary,
            (False, True): handler.unary_stream,
            (True, False): handler.stream_unary,
            (True, True): handler.stream_stream,
        }[self.request_streaming, self.response_streaming]
        if call is None:
            raise TypeError(f"handler of {path} has no function for its kind of call")
        self.call: Callable[..., Any] = call
        if takes_undecoded(call):
            self.deserializer = None
        self.by_callback = answers_by_callback(call)
        self.announce: Announced | None = announced_by(call)
        self.subject: Subject | None = subject_by(call)
        if self.by_callback and (self.request_streaming or self.response_streaming):
            raise TypeError(f"handler of {path} answers by callback, which only unary methods can")

    def most_bytes(self, limit_bytes: int) -> int:
        """Returns how long a request of the method may be, where the server takes so many bytes."""
        is_decoded = self.deserializer is not None and not self.by_callback
        return min(limit_bytes, MOST_DECODED_BYTES) if is_decoded else limit_bytes

    def decode(self, message: bytes | memoryview) -> object:
        """Returns the request's message.

        Raises: InvalidArgument for bytes that are not one (also text that is not UTF-8, and nesting that is too deep);
                ResourceExhausted for too many.
        """
        if self.deserializer is None:
            return message
        if len(message) > MOST_DECODED_BYTES:
            raise never(f"message of {len(message)} bytes, at most {MOST_DECODED_BYTES} are accepted by {self.path}")
        try:
            return self.deserializer(message if isinstance(message, bytes) else bytes(message))
        except (DecodeError, ValueError) as error:
            raise InvalidArgument(f"request of {self.path}: {len(message)} bytes are not a message of it") from error

    def encode(self, message: object) -> bytes:
        """Returns the bytes of an answer; bytes are passed as they are.

        Raises: TypeError for an answer of another type than the method's.
        """
        if isinstance(message, bytes):
            return message
        if self.serializer is None:
            raise TypeError(f"answer of {self.path} is {type(message).__name__}, not bytes")
        return self.serializer(message)


class MethodTable:
    """The methods of a server by their path, `/package.Service/Method`."""

    def __init__(self) -> None:
        self._registered: dict[str, Method] = {}
        self._generic: list[GenericHandler] = []

    def register(self, service_name: str, method_handlers: Mapping[str, RpcHandler]) -> None:
        for name, handler in method_handlers.items():
            path = f"/{service_name}/{name}"
            self._registered[path] = Method(path, handler)

    def add_generic(self, handlers: Iterable[GenericHandler]) -> None:
        self._generic.extend(handlers)

    def registered(self) -> Mapping[str, Method]:
        """Returns the registered methods by their path."""
        return self._registered

    def find(self, path: str, metadata: Metadata) -> Method | None:
        """Returns the method of a path, or None. Registered handlers go first; generic ones are asked for each call."""
        method = self._registered.get(path)
        if method is not None:
            return method
        for generic in self._generic:
            handler = generic.service(cast(Any, HandlerCallDetails(path, metadata)))
            if handler is not None:
                return Method(path, handler)
        return None
