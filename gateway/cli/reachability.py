"""The diagnosis of an address at which no gateway answers, by connecting to it step by step."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.cli.tls import PLAIN, ClientTls, Connecting

_STEP_S: Final = 2.0  # at most: who waits less long for a connection waits half of that
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and empty SETTINGS
_SETTINGS_TYPE: Final = 4
_NOT_GRPC: Final = "the gateway's gRPC port is 8001 unless it was told otherwise"


def why_unreachable(server: str, way: Connecting) -> str:
    """Returns in a phrase why gRPC does not connect to `server` (host:port); "" if nothing is wrong with it now.

    1. Does the name have an address? 2. Does the port accept connections? 3. Do both sides speak TLS, or neither, and
    do they trust each other? 4. Is HTTP/2 spoken there? Each step waits for 2 s
    at most.
    """
    host, port = _split(server)
    if not host:
        return ""  # another form of address, such as unix:PATH: gRPC's own
    step_s = min(_STEP_S, way.limit_s / 2)
    try:
        stream = socket.create_connection((host, port), timeout=step_s)
    except (socket.gaierror, UnicodeError) as error:
        return f"unknown host: {host!r} has no address ({getattr(error, 'strerror', error)})"
    except ConnectionRefusedError:
        return f"connection refused: nothing listens on port {port} of {host}; start one with `gateway serve`"
    except TimeoutError:
        return f"no answer from {host} within {step_s:g} s: is it up, and does a firewall let port {port} through?"
    except OSError as error:
        return f"cannot connect: {error.strerror or error}"
    with stream:
        return _plain(stream, host, port, step_s) if way.tls == PLAIN else _secured(stream, host, way.tls)


def _plain(stream: socket.socket, host: str, port: int, step_s: float) -> str:
    said = _greeted(stream)
    if said is not None and _is_http2(said):
        return ""
    if _speaks_tls(host, port, step_s):
        return "TLS: it speaks TLS; name the authorities that signed its certificate with --tls-ca"
    return _no_http2(said)


def _secured(stream: socket.socket, host: str, tls: ClientTls) -> str:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        return f"TLS: the files of --tls-ca, --tls-cert and --tls-key do not fit: {error}"
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(stream, server_hostname=tls.name or host) as secured:
            said = _greets(secured)
            said = _greeted(secured) if said is None else said
    except ssl.SSLCertVerificationError as error:
        return (
            f"TLS: its certificate is not accepted: {error.verify_message}; --tls-ca names the authorities that signed "
            "it, --tls-name the name that is in it"
        )
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if "certificate required" in reason or "handshake failure" in reason:
            return f"TLS: it asks for a certificate of yours ({reason}): --tls-cert and --tls-key"
        if "wrong version" in reason or "record layer" in reason or "unexpected eof" in reason:
            return "TLS: it does not speak TLS; leave the --tls options out"
        return f"TLS: the handshake failed: {reason}"
    except TimeoutError:
        return f"TLS: no handshake within {stream.gettimeout():g} s: it does not speak TLS, or is no gateway"
    except OSError as error:
        return f"TLS: it closed the connection during the handshake ({error.strerror or error})"
    if said == b"" and tls.certificate is None:
        return "TLS: it hangs up after the handshake; if it asks for a certificate of yours: --tls-cert and --tls-key"
    return "" if said is not None and _is_http2(said) else _no_http2(said)


def _no_http2(said: bytes | None) -> str:
    if said is None:
        return f"not gRPC: it accepts connections and says nothing; {_NOT_GRPC}"
    if said.startswith(b"HTTP/"):
        return f"not gRPC: it answers with {said.split(b' ')[0].decode('latin-1')}; {_NOT_GRPC}"
    if not said:
        return f"not gRPC: it closed the connection; {_NOT_GRPC}"
    return f"not gRPC: it speaks something else than HTTP/2; {_NOT_GRPC}"


def _greeted(stream: socket.socket) -> bytes | None:
    """Returns the other side's answer to the HTTP/2 preface: b"" if it hangs up, None if it is silent for too long."""
    try:
        stream.sendall(_PREFACE)
        return _read(stream)
    except OSError:
        return b""


def _greets(stream: ssl.SSLSocket) -> bytes | None:
    """Returns what the other side sends unasked: an HTTP/2 server need not wait for its client.

    Nothing is sent, so that an alert which says why the other side hangs up can be read: TLS 1.3 lets a client finish
    its handshake before the server has checked the client's certificate.
    Raises: ssl.SSLError if it hangs up with an alert.
    """
    try:
        return _read(stream)
    except ssl.SSLError:
        raise
    except OSError:
        return b""


def _read(stream: socket.socket) -> bytes | None:
    try:
        said = stream.recv(9)
        while said and len(said) < 9 and (more := stream.recv(9 - len(said))):
            said += more
    except TimeoutError:
        return None
    return said


def _is_http2(said: bytes) -> bool:
    return len(said) == 9 and said[3] == _SETTINGS_TYPE


def _speaks_tls(host: str, port: int, step_s: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connected(host, port, step_s) as stream, context.wrap_socket(stream, server_hostname=host):
            return True
    except ssl.SSLError as error:
        # An alert is TLS as well; so is a server that first wants a certificate.
        return "alert" in (error.reason or "").lower()
    except OSError:
        return False


@contextmanager
def _connected(host: str, port: int, step_s: float) -> Iterator[socket.socket]:
    with socket.create_connection((host, port), timeout=step_s) as stream:
        yield stream


def _split(server: str) -> tuple[str, int]:
    """Returns host and port; "" for a text of another form."""
    host, colon, port = server.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isdecimal() or (":" in host and not bracketed) or "/" in server:
        return "", 0
    return host.strip("[]"), int(port)
