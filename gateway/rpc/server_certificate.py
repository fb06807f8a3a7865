"""A server's certificate for TLS: what its PEM files hold, proven before it is shown, and renewed when they change.

No gRPC here: the configuration checks the files before anything is started.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from gateway.errors import InvalidArgument
from gateway.threads import started_threads

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name: the times are compared here, by a clock that
# is given.
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server's identity; with `client_ca` every client must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    protocols: tuple[str, ...] = ("h2",)  # that are offered by ALPN, the preferred one first

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.certificate, self.key, *((self.client_ca,) if self.client_ca is not None else ()))


@dataclass(frozen=True, slots=True)
class Material:
    """The content of the files at one moment, as a context and as bytes. Units: seconds since the Unix epoch."""

    context: ssl.SSLContext
    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    not_before_s: float
    not_after_s: float


def read(files: TlsFiles) -> Material:
    """Returns the content of the files, proven to be an identity that clients take from a server.

    Raises: InvalidArgument naming the file and what is wrong with it.
    """
    certificate, key = _content(files.certificate), _content(files.key)
    client_ca = _content(files.client_ca) if files.client_ca is not None else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(files.protocols))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        pair = f"certificate {str(files.certificate)!r} with key {str(files.key)!r}"
        raise InvalidArgument(f"{pair}: {_said(error)}") from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise InvalidArgument(f"client CA {str(files.client_ca)!r}: {_said(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    not_before_s, not_after_s = _validity(context, files)
    return Material(context, certificate, key, client_ca, not_before_s, not_after_s)


def check_dates(material: Material, files: TlsFiles, now_s: float) -> None:
    """Raises: InvalidArgument if the certificate is not valid at this moment."""
    name = f"certificate {str(files.certificate)!r}"
    if now_s > material.not_after_s:
        raise InvalidArgument(f"{name} expired {_date(material.not_after_s)}")
    if now_s < material.not_before_s:
        raise InvalidArgument(f"{name} is not valid before {_date(material.not_before_s)}")


def names(files: TlsFiles) -> tuple[str, ...]:
    """Returns the host names and addresses that the certificate is for, names first. Raises: InvalidArgument."""
    listed = _handshake(read(files).context, files).get("subjectAltName", ())
    pairs = [(str(kind), str(value)) for kind, value in listed] if isinstance(listed, tuple) else []
    return tuple(value for kind, value in sorted(pairs, key=lambda pair: pair[0] != "DNS"))


def lets_in(files: TlsFiles, certificate: Path, key: Path) -> bool:
    """Returns whether a client that shows this certificate may connect. Raises: InvalidArgument (the files)."""
    context = read(files).context
    try:
        _handshake(context, files, (certificate, key))
    except InvalidArgument:
        return False
    return True


class ServerCertificate:
    """The newest sound content of the files; `trouble` says what is wrong with what they hold now, "" if nothing is.

    Order: what is new is read whole and proven before it takes the old one's place, so a certificate without its key, a
           file that is missing, or an expired one changes nothing but `trouble`. The first content may have expired: a
           worker that starts then has no other.
    Raises: InvalidArgument if there is no content to begin with.
    """

    def __init__(self, files: TlsFiles, *, wall_s: Callable[[], float] = time.time) -> None:
        self._files = files
        self._wall_s = wall_s
        self._seen = _marks(files)
        self._doubt = ""
        self.trouble = ""
        self.material = read(files)
        self._reading = started_threads(1, "certificate")
        try:
            check_dates(self.material, files, wall_s())
        except InvalidArgument as error:
            self._complain(str(error))

    def status(self) -> dict[str, object]:
        """Returns, for gauges and events, which certificate is shown, until when it is valid, and what is wrong."""
        return {
            "certificate": sha256(self.material.certificate).hexdigest()[:16],
            "not_after_s": self.material.not_after_s,
            "trouble": self.trouble,
        }

    async def renewals(self, every_s: float) -> AsyncIterator[Material]:
        """Yields each new content, for ever. The files are read by a thread of its own, whatever else hangs."""
        while True:
            await asyncio.sleep(every_s)
            if await asyncio.get_running_loop().run_in_executor(self._reading, self.look):
                _log.info("the TLS certificate was renewed, valid until %s", _date(self.material.not_after_s))
                yield self.material

    def look(self) -> bool:
        """Reads the files; returns whether they have new content, which is `material` now.

        Files are written one by one, so content that does not fit together is reported only if it is the same at the
        next look.
        """
        marks = _marks(self._files)
        if marks == self._seen and not (self._doubt or self.trouble):
            return False
        try:
            material = read(self._files)
            check_dates(material, self._files, self._wall_s())
        except InvalidArgument as error:
            if (marks, str(error)) == (self._seen, self._doubt):
                self._complain(str(error))
            self._seen, self._doubt = marks, str(error)
            return False
        if _marks(self._files) != marks:
            return False  # written meanwhile: the next look has it whole
        self._seen, self._doubt, self.trouble, self.material = marks, "", "", material
        return True

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            _log.error("TLS: %s; what was in force stays", trouble)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"TLS file {str(path)!r} cannot be read: {error.strerror}") from None


def _no_password() -> str:
    """Answers for an encrypted key; without this OpenSSL would ask the terminal."""
    raise ValueError("the key is encrypted: give one that is not, readable by the gateway only")


def _validity(context: ssl.SSLContext, files: TlsFiles) -> tuple[float, float]:
    """Returns from when and until when the certificate is valid, as a client reads it in a handshake.

    Raises: InvalidArgument if no handshake comes about, as with a certificate that is not for servers.
    """
    about = _handshake(context, files)
    return ssl.cert_time_to_seconds(str(about["notBefore"])), ssl.cert_time_to_seconds(str(about["notAfter"]))


def _handshake(context: ssl.SSLContext, files: TlsFiles, shown: tuple[Path, Path] | None = None) -> dict[str, object]:
    """Returns the server's certificate as a client reads it; `shown` are certificate and key of that client.

    Raises: InvalidArgument if no handshake comes about.
    """
    reading = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    reading.check_hostname = False
    reading.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        reading.load_verify_locations(files.certificate)
        if shown is not None:
            reading.load_cert_chain(*shown, password=_no_password)
        server = context.wrap_bio(to_server, to_client, server_side=True)
        client = reading.wrap_bio(to_client, to_server)
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        client.do_handshake()
        if shown is not None:
            server.do_handshake()  # only now it sees what the client shows
    except (ssl.SSLError, OSError, ValueError) as error:
        raise InvalidArgument(f"certificate {str(files.certificate)!r}: {_said(error)}") from None
    return dict(client.getpeercert() or {})


def _marks(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """Returns values that differ once a file was written or replaced."""
    return tuple(_mark(path) for path in files.paths)


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _date(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
