"""A server of the part of Microsoft's Blob Storage protocol that readers use: blobs are listed by prefix, and read.

It was compared with Azurite: the contract suite passes on both. Names are paths below the account.
"""

import threading
from email.utils import formatdate
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"


class BlobServer(ThreadingHTTPServer):
    """Holds containers by name, each with its blobs by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Blobs)
        self.containers: dict[str, dict[str, bytes]] = {}
        self.breaks_after: int | None = None  # bytes of a body, after which the connection ends
        self.starts: list[int] = []  # the first byte of each read of a blob
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{ACCOUNT}"


class _Blobs(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BlobServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        _, _, container, *rest = unquote(parts.path).split("/")
        blobs = self.server.containers.get(container)
        if blobs is None:
            self._answer(404, b"", {"x-ms-error-code": "ContainerNotFound"})
        elif query.get("comp") == "list":
            self._answer(200, _listing(blobs, query.get("prefix", "")), {"Content-Type": "application/xml"})
        else:
            self._blob(blobs.get("/".join(rest)))

    def _blob(self, content: bytes | None) -> None:
        wanted = self.headers.get("If-Match")
        if content is None:
            self._answer(404, b"", {"x-ms-error-code": "BlobNotFound"})
        elif wanted and wanted.strip('"') != _etag(content):
            self._answer(412, b"", {"x-ms-error-code": "ConditionNotMet"})
        else:
            headers = {"ETag": f'"{_etag(content)}"', "Last-Modified": formatdate(0, usegmt=True)}
            self.server.starts.append(0)
            span = self.headers.get("x-ms-range") or self.headers.get("Range")
            if span is None:
                self._answer(200, content, headers)
                return
            start = int(span.removeprefix("bytes=").partition("-")[0])
            self.server.starts[-1] = start
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, content[start:], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        limit = self.server.breaks_after
        self.wfile.write(body[:limit])
        self.close_connection = limit is not None and limit < len(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _etag(content: bytes) -> str:
    return f"0x{sha256(content).hexdigest()[:16].upper()}"


def _listing(blobs: dict[str, bytes], prefix: str) -> bytes:
    rows = "".join(
        f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{formatdate(0, usegmt=True)}</Last-Modified>"
        f"<Etag>{_etag(content)}</Etag><Content-Length>{len(content)}</Content-Length>"
        f"<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
        for name, content in sorted(blobs.items())
        if name.startswith(prefix)
    )
    return f'<?xml version="1.0"?><EnumerationResults><Blobs>{rows}</Blobs><NextMarker/></EnumerationResults>'.encode()
