"""A body that did not come whole with its head: by its length into memory of its own, or in chunks."""

from typing import Final

import numpy as np

from gateway.errors import GatewayError
from gateway.rest.chunked_body import ChunkedBody
from gateway.rest.http1_limits import Http1Limits
from gateway.rest.http_refusal import HttpRefusal, refusal_of
from gateway.rest.rest_call import RestCall

_SCARCE_BYTES_PER_S: Final = 64 * 1024  # of a body that may stay while the room for bodies runs out


class IncomingBody:
    """The body of `call` on its way. `view` is where one with a length is put together; bytes are read into it.

    Raises: ResourceExhausted if there is no room for one with a length.
    Units: `missing` bytes of the view are still to come; `progress` bytes came since `too_slow` looked last.
    """

    __slots__ = ("_looked_ns", "call", "chunked", "missing", "progress", "uninvited", "view")

    def __init__(self, call: RestCall, limit_bytes: int, now_ns: int) -> None:
        self.call = call
        self.view: memoryview | None = None
        self.chunked: ChunkedBody | None = None
        self.missing = 0
        self.progress = 0
        self.uninvited = False  # the client waits to be told to send it
        self._looked_ns = now_ns
        if call.head.chunked:
            self.chunked = ChunkedBody(limit_bytes)
        else:
            self.missing = call.head.content_length
            call.hold(self.missing)
            self.view = np.empty(self.missing, np.uint8).data  # unlike a bytearray, it is not cleared first

    @property
    def complete(self) -> bool:
        """Whether all of it has come."""
        return self.chunked.complete if self.chunked is not None else not self.missing

    def room(self) -> memoryview | None:
        """Returns where the next bytes are to be read into; None for chunks."""
        view = self.view
        return None if view is None else view[len(view) - self.missing :]

    def put(self, data: bytes) -> None:
        """Takes the first bytes of a body with a length."""
        view = self.view
        if view is not None:
            view[: len(data)] = data
            self.missing -= len(data)

    def feed(self, data: bytes, position: int) -> int | HttpRefusal:
        """Takes chunks; returns the position behind what it took, or what is wrong with them."""
        chunked, call = self.chunked, self.call
        if chunked is None:
            return position
        before = chunked.size_bytes
        reached = chunked.feed(data, position)
        if isinstance(reached, HttpRefusal):
            return reached
        try:
            call.hold(chunked.size_bytes - before)
        except GatewayError as error:
            return refusal_of(error, call.head.path)
        return reached

    def content(self) -> bytes | memoryview:
        """Returns the body, which is complete."""
        if self.chunked is not None:
            return self.chunked.join()
        return b"" if self.view is None else self.view.toreadonly()

    def too_slow(self, now_ns: int, limits: Http1Limits, stall_timeout_s: float, *, scarce: bool) -> bool:
        """Returns whether too little came since the last look; more is asked for while room is `scarce`."""
        limit_s, least_bytes = limits.body_timeout_s, limits.body_bytes
        if scarce:
            limit_s = min(limit_s, stall_timeout_s)
            least_bytes = int(_SCARCE_BYTES_PER_S * limit_s)
        if now_ns - self._looked_ns < limit_s * 1e9:
            return False
        slow = self.progress < least_bytes
        self._looked_ns, self.progress = now_ns, 0
        return slow
