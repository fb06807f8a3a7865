"""One fetch of an issuer's keys: bounded in size and time, whatever the issuer answers, and however slowly."""

import asyncio
import socket
import ssl
import threading
import urllib.error
import urllib.request
from concurrent.futures import Future
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from time import monotonic
from typing import Any, Final

from gateway.access.json_web_token import LIMIT_BYTES

LIMIT_S: Final = 5.0
_OTHER_AUTHORITIES: Final = "; SSL_CERT_FILE in the gateway's environment names other authorities than the system's"
_CHUNK: Final = 1 << 16


class _Incoming(RawIOBase):
    """What a socket receives until its time is up; a socket's own limit begins anew with each byte."""

    def __init__(self, receiver: socket.socket, raw: RawIOBase, limit_s: float) -> None:
        self._receiver = receiver
        self._raw = raw
        self._limit_s = limit_s
        self._until_s = monotonic() + limit_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until_s - monotonic()
        if left_s <= 0:
            raise TimeoutError(f"it answers for more than {self._limit_s:g} s")
        self._receiver.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer with its head and its body, all of it within the limit of its socket."""

    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        raw: Any = self.fp
        self.fp = BufferedReader(_Incoming(sock, raw.detach(), sock.gettimeout() or LIMIT_S))


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, req, context=ssl.create_default_context())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follows nothing: whoever may redirect would choose whose keys are trusted."""


def fetch(url: str, limit_s: float = LIMIT_S) -> str:
    """Returns the document at a URL. Raises: OSError (URLError is one), ValueError."""
    opener = urllib.request.build_opener(_NoRedirect(), _Http(), _Https())
    content = b""
    try:
        with opener.open(url, timeout=limit_s) as answer:
            while chunk := answer.read1(_CHUNK):  # not one that is waited for until it is whole
                content += chunk
                if len(content) > LIMIT_BYTES:
                    raise ValueError(f"more than {LIMIT_BYTES} bytes")
    except HTTPException as error:
        raise ValueError(f"the answer is no HTTP: {type(error).__name__}") from error
    return content.decode()


def fetch_beside(url: str) -> "asyncio.Future[tuple[str, str]]":
    """Returns the outcome to come: the document, or "" and why there is none.

    The thread is of its own: a name that is looked up without end holds up neither other work nor the exit.
    """
    outcome: Future[tuple[str, str]] = Future()

    def work() -> None:
        try:
            outcome.set_result(answer_at(url))
        except Exception as error:  # a defect of ours is told to who waits
            outcome.set_exception(error)

    threading.Thread(target=work, name="fetch of keys", daemon=True).start()
    return asyncio.wrap_future(outcome)


def answer_at(url: str) -> tuple[str, str]:
    """Returns the document at a URL, or "" and why there is none."""
    try:
        return fetch(url), ""
    except urllib.error.HTTPError as error:
        error.close()
        return "", str(error.reason or error)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        return "", f"{why}{_OTHER_AUTHORITIES if isinstance(why, ssl.SSLCertVerificationError) else ''}"
