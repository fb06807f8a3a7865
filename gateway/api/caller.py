"""Whose requests exchanges carry: what they need to know of a caller, and how it is given the outcome."""

from collections.abc import Callable
from typing import Protocol

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.api.signature import Reply, Signature
from gateway.errors import GatewayError
from gateway.rpc.handler import Metadata, OwnMetadatum
from gateway.serving.call import Call


class Applicant(Protocol):
    """Whoever may send a request, as far as its head says. Units: `deadline_ns` on the monotonic clock; 0: none."""

    @property
    def deadline_ns(self) -> int: ...

    @property
    def principal(self) -> Principal: ...

    @property
    def quota_pass(self) -> QuotaPass | None: ...


class Caller(Applicant, Protocol):
    """Receives the outcome of an exchange, exactly once."""

    @property
    def message_size(self) -> int: ...

    def answer(self, message: bytes) -> None: ...

    def fail(self, error: GatewayError) -> None: ...

    def on_cancel(self, callback: Callable[[], None]) -> None: ...

    def metadata_value(self, name: str) -> str | None: ...

    def set_trailing_metadata(self, trailing_metadata: Metadata, own: OwnMetadatum | None = None) -> None:
        """`trailing_metadata` repeats from call to call and is encoded once; `own` is this call's own."""


class ForeignCaller(Caller, Protocol):
    """A caller that wants no ModelInferResponse: it writes its answers itself, in a form of its own."""

    @property
    def protocol(self) -> str:
        """What was asked for, as a trace calls it: a service of gRPC, or another protocol's name."""

    def accept(self, signature: Signature, reply: Reply) -> None:
        """Raises: InvalidArgument, before the model runs, if such a reply has no form for this caller."""

    def takes_long(self, call: Call, reply: Reply) -> bool:
        """Returns whether to write the answer would keep the loop from its other requests."""

    def write(self, call: Call, signature: Signature, reply: Reply, max_bytes: int) -> None:
        """Writes the answer, which `answer` then sends, with no message; on another thread where that takes long.

        Raises: GatewayError, which is the outcome then.
        """
