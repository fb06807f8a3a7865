"""A server that is asked over HTTP: JSON and files, with credentials that do not follow a redirect to another host."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from loaders.errors import SourceChanged, SourceNotFound, SourceTooLarge, SourceUnreadable
from loaders.remote_copy import RemoteFile

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_CHUNK: Final = 1 << 20
_MAX_JSON: Final = 64 << 20
_MAX_PAGES: Final = 1000
_CONNECTIONS: Final = 16  # that are kept of one host: so many versions may come at once
_ANSWER_S: Final = 60.0  # of one answer that is no file
_PAGES_S: Final = 300.0
_NEXT: Final = re.compile(r'<(?P<place>[^>]+)>\s*;\s*rel="?next"?')
Headers = Mapping[str, str]
# Where the client tells of redirects and of tries that failed, with the whole address.
_TALKERS: Final = ("urllib3.poolmanager", "urllib3.connectionpool", "urllib3.util.retry")


class HttpSource:
    """Asks one server. `credentials` returns the headers that prove who asks, anew for each request.

    `what` is what the server is called in errors; addresses are not named there. `login` is told what the server says
    to a request that proves too little, and returns whether `credentials` has something better now.
    """

    def __init__(
        self,
        base: str,
        what: str,
        credentials: Callable[[], Headers],
        login: Callable[[str], bool] = lambda challenge: False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.base: Final = base.rstrip("/")
        self._what = what
        self._credentials = credentials
        self._login = login
        self._clock = clock
        self._pool = _pool(self.base)

    def json(self, path: str, shown: str, *, headers: Headers | None = None, fields: Headers | None = None) -> Any:
        """Returns what the server answers. Raises: SourceNotFound, SourceUnreadable, SourceTooLarge."""
        return self.answer(path, shown, headers=headers, fields=fields)[0]

    def answer(
        self, path: str, shown: str, *, headers: Headers | None = None, fields: Headers | None = None
    ) -> tuple[Any, Headers]:
        """Returns what the server answers, and the headers of the answer. Raises: as `json`."""
        data, answered = self.raw(path, shown, headers=headers, fields=fields)
        return self.parsed(data, shown), answered

    def raw(
        self, path: str, shown: str, *, headers: Headers | None = None, fields: Headers | None = None
    ) -> tuple[bytes, Headers]:
        """Returns the bytes of the answer, and its headers by names in lower case. Raises: as `json`."""
        data, until_s = bytearray(), self._clock() + _ANSWER_S
        with self._asked(path, shown, headers or {}, fields) as response:
            for chunk in _arriving(response):
                data += chunk
                if len(data) > _MAX_JSON:
                    raise SourceTooLarge(f"{shown}: {self._what} answers more than {_MAX_JSON} bytes")
                if self._clock() > until_s:  # whoever sends a byte now and then would hold up every other repository
                    raise SourceUnreadable(f"{shown} cannot be read: {self._what} answers for more than {_ANSWER_S} s")
            answered = {name.lower(): value for name, value in response.headers.items()}
        return bytes(data), answered

    def parsed(self, data: bytes, shown: str) -> Any:
        """Returns the value that the bytes of an answer are as JSON. Raises: SourceUnreadable."""
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SourceUnreadable(f"{shown} cannot be read: {self._what} answers what is no JSON") from error

    def pages(self, path: str, shown: str) -> Iterator[Any]:
        """Yields what the server answers, and what its links lead to: pages of this server, whatever host they name.

        Raises: as `json`; SourceTooLarge (links without an end).
        """
        own, url = urlsplit(self.base), self.base + path
        until_s = self._clock() + _PAGES_S
        for _ in range(_MAX_PAGES):
            if self._clock() > until_s:
                raise SourceUnreadable(f"{shown} cannot be read: {self._what} answers for more than {_PAGES_S} s")
            answer, headers = self.answer(url, shown)
            yield answer
            more = _NEXT.match(headers.get("link", ""))
            if more is None:
                return
            url = urlsplit(urljoin(url, more["place"]))._replace(scheme=own.scheme, netloc=own.netloc).geturl()
        raise SourceTooLarge(f"{shown}: {self._what} answers more than {_MAX_PAGES} pages")

    def content(self, path: str, one: RemoteFile, name: str, offset: int, *, match: bool = False) -> Iterator[bytes]:
        """Yields a file's bytes from `offset` on; with `match` only while its ETag is its mark.

        Raises: SourceNotFound, SourceChanged, SourceUnreadable.
        """
        shown = ascii(name[:80])
        headers = {"If-Match": one.mark} if match else {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._asked(path, shown, headers, None, is_checked=bool(one.sha256)) as response:
            skip = offset if response.status == 200 else 0  # the server knows no ranges
            for chunk in _arriving(response):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0

    @contextmanager
    def _asked(
        self, path: str, shown: str, headers: Headers, fields: Headers | None, *, is_checked: bool = False
    ) -> Iterator["BaseHTTPResponse"]:
        """Yields the answer. One that `is_checked` against a digest may come by a way that anybody can change it on."""
        from urllib3.exceptions import HTTPError

        url = path if path.startswith(("http://", "https://")) else self.base + path
        try:
            response = self._get(url, headers, fields)
            if response.status == 401 and self._is_own(url, response) and self._login(_challenge(response)):
                response.close()
                response = self._get(url, headers, fields)
            try:
                self._check(response.status, shown)
                if not is_checked and self.base.startswith("https://") and _leaves_tls(response):
                    raise SourceUnreadable(f"{shown} cannot be read: {self._what} redirects to an address without TLS")
                yield response
            finally:
                response.close()
        except (HTTPError, OSError) as error:
            raise SourceUnreadable(f"{shown} cannot be read: {type(error).__name__}") from error

    def _get(self, url: str, headers: Headers, fields: Headers | None) -> "BaseHTTPResponse":
        # Bytes as they are stored: a range of a compressed answer would be something else.
        sent = {"Accept-Encoding": "identity", **self._credentials(), **headers}
        return self._pool.request("GET", url, fields=dict(fields or {}) or None, headers=sent, preload_content=False)

    def _is_own(self, url: str, response: "BaseHTTPResponse") -> bool:
        """Whether this server has answered, not one to which it redirects: that has no say about where logins go."""
        for step in response.retries.history if response.retries is not None else ():
            url = urljoin(url, step.redirect_location or "")
        return urlsplit(url)[:2] == urlsplit(self.base)[:2]

    def _check(self, status: int, shown: str) -> None:
        if status == 404:
            raise SourceNotFound(f"{shown} is not there")
        if status in (412, 416):
            raise SourceChanged(f"{shown} was changed while it was copied")
        if status in (401, 403):
            raise SourceUnreadable(
                f"{shown} cannot be read: {self._what} answers {status}: credentials lack, or lack rights"
            )
        if not 200 <= status < 300:
            raise SourceUnreadable(f"{shown} cannot be read: {self._what} answers {status}")


def _arriving(response: "BaseHTTPResponse") -> Iterator[bytes]:
    """Yields the bytes of the body as they come, in no chunk that somebody could wait for without end."""
    while chunk := response.read1(_CHUNK):
        yield chunk


def _leaves_tls(response: "BaseHTTPResponse") -> bool:
    """Whether a redirect on the way to this answer led to an address without TLS."""
    steps = response.retries.history if response.retries is not None else ()
    return any((step.redirect_location or "").lower().startswith("http://") for step in steps)


def _challenge(response: "BaseHTTPResponse") -> str:
    return response.headers.get("WWW-Authenticate", "")


def _without_query(record: logging.LogRecord) -> bool:
    """Cuts addresses in what the client tells where their query begins: it is what signs an address for a while."""
    if isinstance(record.args, tuple):
        record.args = tuple(one.partition("?")[0] if isinstance(one, str) else one for one in record.args)
    return True


for _talker in _TALKERS:
    logging.getLogger(_talker).addFilter(_without_query)


def _pool(base: str) -> "PoolManager":
    from urllib3 import PoolManager, ProxyManager, Retry, Timeout

    # To another host than the first one a redirected request goes without what proves who asks.
    parts = urlsplit(base)
    retries = Retry(total=4, connect=2, read=2, redirect=4, status=0, backoff_factor=0.2)
    timeout = Timeout(connect=5, read=30)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        return ProxyManager(proxy, retries=retries, timeout=timeout, maxsize=_CONNECTIONS)
    return PoolManager(retries=retries, timeout=timeout, maxsize=_CONNECTIONS)
