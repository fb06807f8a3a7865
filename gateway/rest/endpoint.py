"""What is served where: the table that a request's method and path are looked up in."""

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol

from gateway.rest.http_call import HttpCall
from gateway.rest.http_refusal import HttpRefusal


class Endpoint(NamedTuple):
    """One handler, and what the transport has to know of it.

    `answer` is called on the loop with the whole request. A coroutine function runs in a Task of its own, which is
    cancelled with the call; a plain one answers by callback, at once or later, and is marked `by_callback`. An
    exception that leaves either fails the call. `permission` is the key in `access.permissions` of what it does: that
    of the RPC, where there is one. `by_quota`: quotas let each request in, as they do inference. `streams`: the answer
    has no deadline. `token_cookie` names the cookie that bears a token where the request has no Authorization.
    `announced` is told the length of a body that has not come whole, and may refuse it by raising.
    """

    answer: Callable[[HttpCall], None] | Callable[[HttpCall], Awaitable[None]]
    permission: str
    by_callback: bool = False
    max_body_bytes: int = 1 << 20
    by_quota: bool = False
    streams: bool = False
    token_cookie: str = ""
    announced: Callable[[HttpCall, int], None] | None = None


class EndpointMatch(NamedTuple):
    """An endpoint, and what the path names: decoded, in the order of the path."""

    endpoint: Endpoint
    names: tuple[str, ...] = ()


class EndpointTable(Protocol):
    """Finds endpoints. What it returns for a method and a path never changes: transports remember it."""

    def find(self, method: str, path: str) -> EndpointMatch | HttpRefusal:
        """Returns what serves the method at the path, which is percent-encoded and has no query; or 404, 405, 400."""

    def permissions(self) -> Iterable[str]:
        """Returns the permissions of all endpoints; a server whose table misses one does not start."""
