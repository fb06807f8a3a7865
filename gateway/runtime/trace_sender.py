"""Spans on their way to a collector: OTLP over HTTP/1.1, on one connection, from a thread.

1. A collector that refuses for the moment, or cannot be reached, is asked again until the time for it is over.
2. What it may have taken is not sent again: a connection that has ended is seen before it is used.

Source: OTLP 1.x, "OTLP/HTTP".
"""

import gzip
import select
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Event, Lock
from time import monotonic
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import gateway
from gateway.runtime.otlp_settings import OtlpSettings

PATH: Final = "/v1/traces"
_RETRIED: Final = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.5
_LEAST_LIMIT_S: Final = 0.01
_ANSWER_BYTES: Final = 1 << 20
_COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}


class TraceSender:
    """Sends requests to the collector at `endpoint`, one at a time.

    Units: `limit_s` is the time for each request, all its tries included.
    """

    def __init__(self, endpoint: str, settings: OtlpSettings, *, limit_s: float) -> None:
        url = endpoint.rstrip("/")
        self._url = urlsplit(url if url.endswith(PATH) else url + PATH)
        self._limit_s = limit_s
        self._compress = _COMPRESS.get(settings.compression)
        self._context = settings.context() if self._url.scheme == "https" else None
        self._proxy = _proxy_of(self._url)
        # A proxy for plain HTTP is asked for the whole URL.
        through = self._proxy is not None and self._context is None
        self._target = self._url.geturl() if through else self._url._replace(scheme="", netloc="").geturl()
        self._headers = {
            "user-agent": f"model-serving-gateway/{gateway.__version__}",
            **(_proxy_credential(self._proxy) if through else {}),
            **settings.headers,
            "content-type": "application/x-protobuf",
            **({"content-encoding": settings.compression} if settings.compression else {}),
        }
        self._connection: HTTPConnection | None = None
        self._hurried = Event()
        self._sending = Lock()

    def send(self, body: bytes) -> bool:
        """Returns whether the collector took it."""
        if self._compress is not None:
            body = self._compress(body)
        with self._sending:
            end, wait_s = monotonic() + self._limit_s, _FIRST_WAIT_S
            while True:
                taken, asked_s = self._try(body, end)
                if taken is not None:
                    return taken
                pause_s = wait_s if asked_s is None else asked_s
                if monotonic() + pause_s >= end or self._hurried.wait(pause_s):
                    return False
                wait_s *= 2

    def hurry(self, limit_s: float) -> None:
        """Has every request tried once from now on, and ends the waiting for another try."""
        self._limit_s = limit_s
        self._hurried.set()

    def close(self) -> None:
        """Ends the connection, but for a request that is still under way."""
        if self._sending.acquire(blocking=False):
            self._drop()
            self._sending.release()

    def _try(self, body: bytes, end: float) -> tuple[bool | None, float | None]:
        """Returns whether it was taken, None if it may be tried again, and then in how many seconds it was asked to."""
        try:
            connection = self._connected(max(_LEAST_LIMIT_S, end - monotonic()))
        except (OSError, HTTPException):  # HTTPException: what a proxy says
            self._drop()
            return None, None
        try:
            connection.request("POST", self._target, body, self._headers)
            with connection.getresponse() as answer:
                answer.read(_ANSWER_BYTES)
                whole = answer.isclosed()
        except (OSError, HTTPException):
            self._drop()
            return False, None
        if not whole:
            self._drop()
        if answer.status in _RETRIED:
            return None, _retry_after_s(answer)
        return 200 <= answer.status < 300, None

    def _connected(self, limit_s: float) -> HTTPConnection:
        """Returns a connection that is open, as far as this side knows. Raises: OSError, HTTPException."""
        connection = self._connection
        if connection is None or connection.sock is None or _has_ended(connection):
            self._drop()
            connection = self._connection = self._make()
            connection.timeout = limit_s
            connection.connect()
        connection.sock.settimeout(limit_s)
        return connection

    def _make(self) -> HTTPConnection:
        at = self._url if self._proxy is None else self._proxy
        host = at.hostname or ""
        if self._context is None:
            return HTTPConnection(host, at.port or 80)
        made = HTTPSConnection(host, at.port or 443, context=self._context)
        if self._proxy is not None:
            made.set_tunnel(self._url.hostname or "", self._url.port or 443, _proxy_credential(self._proxy))
        return made

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _proxy_of(url: SplitResult) -> SplitResult | None:
    """Returns the proxy that the environment names for it."""
    named = getproxies().get(url.scheme)
    return None if not named or proxy_bypass(url.hostname or "") else urlsplit(named)


def _proxy_credential(proxy: SplitResult | None) -> dict[str, str]:
    if proxy is None or not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _has_ended(connection: HTTPConnection) -> bool:
    """Returns whether the other side has closed it: nothing is awaited, so what can be read is its end."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _retry_after_s(answer: HTTPResponse) -> float | None:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "")))
    except ValueError:  # none, or a date: the next try comes in its own time
        return None
