"""What is served where: the table that a request's method and path are looked up in."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from gateway.rest.http_call import HttpCall
from gateway.rest.http_refusal import HttpRefusal
from gateway.rpc.handler import AnnouncedCall

Announced = Callable[[HttpCall, int], AnnouncedCall | None]
Answer = Callable[[HttpCall], None] | Callable[[HttpCall], Awaitable[None]]


class Endpoint:
    """One handler, and what the transport has to know of it.

    `answer` is called on the loop with the whole request. A coroutine function runs in a Task of its own, which is
    cancelled with the call; a plain one answers by callback, at once or later, and is marked `by_callback`. An
    exception that leaves either fails the call. `permission` is the key in `access.permissions` of what it does: that
    of the RPC, where there is one. `by_quota`: quotas let each request in, as they do inference. `streams`: the answer
    has no deadline. `token_cookie` names the cookie that bears a token where the request has no Authorization.
    `announced` is told the length of a body that has not come whole, and may refuse it by raising; it returns what
    is to know when the body has come whole, or never will, if anything is.
    """

    __slots__ = (
        *("announced", "answer", "by_callback", "by_quota", "max_body_bytes", "permission", "permission_key"),
        *("streams", "token_cookie"),
    )

    def __init__(
        self,
        answer: Answer,
        permission: str,
        *,
        by_callback: bool = False,
        max_body_bytes: int = 1 << 20,
        by_quota: bool = False,
        streams: bool = False,
        token_cookie: str = "",
        announced: Announced | None = None,
    ) -> None:
        self.answer = answer
        self.permission = permission
        self.permission_key = permission.encode()
        self.by_callback = by_callback
        self.max_body_bytes = max_body_bytes
        self.by_quota = by_quota
        self.streams = streams
        self.token_cookie = token_cookie
        self.announced = announced


class EndpointMatch:
    """An endpoint, and what the path names: decoded, in the order of the path."""

    __slots__ = ("endpoint", "names")

    def __init__(self, endpoint: Endpoint, names: tuple[str, ...] = ()) -> None:
        self.endpoint = endpoint
        self.names = names


class EndpointTable(Protocol):
    """Finds endpoints. What it returns for a method and a path never changes: transports remember it."""

    def find(self, method: str, path: str) -> EndpointMatch | HttpRefusal:
        """Returns what serves the method at the path, which is percent-encoded and has no query; or 404, 405, 400."""

    def permissions(self) -> Iterable[str]:
        """Returns the permissions of all endpoints; a server whose table misses one does not start."""
