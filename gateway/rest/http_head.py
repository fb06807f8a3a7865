"""The head of an HTTP/1.1 request: parsed strictly, checked, and remembered; clients send the same one again."""

from re import ASCII
from re import compile as pattern
from typing import Final

import httptools
from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade

from gateway.rest.endpoint import EndpointMatch, EndpointTable
from gateway.rest.http_refusal import HttpRefusal
from gateway.rpc.deadline import parse_timeout
from gateway.rpc.inflation import ENCODINGS

Pairs = tuple[tuple[bytes, bytes], ...]
MAX_HEAD_BYTES: Final = 16 * 1024
RETURN: Final = 0x0D
MAX_HEAD_FIELDS: Final = 64
_KEPT: Final = 1024
_KEPT_BYTES: Final = 2048  # a longer head is parsed each time
_MAX_DIGITS: Final = 15
_REQUEST_LINE: Final = pattern(rb"[A-Z-]{1,32} [!-~]+ HTTP/1\.([01])\r\n")
_HOST: Final = pattern(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?", ASCII)


class HttpHead:
    """What a request's head says; never changed, so that requests share it.

    `outcome` is who serves the request, or why nobody does. `fatal`: the bytes behind the head cannot be told apart, so
    the connection ends with the answer. Names of `fields` are lower case.

    Units: `content_length` -1: the body is chunked; `timeout_ns` 0: the client names none.
    """

    __slots__ = (
        *("authorization", "chunked", "content_length", "encoding", "expects_continue", "fatal", "fields"),
        *("keep_alive", "method", "outcome", "path", "query", "timeout_ns", "version"),
    )

    def __init__(self, outcome: EndpointMatch | HttpRefusal, *, fatal: bool = False) -> None:
        self.outcome = outcome
        self.fatal = fatal
        self.method = ""
        self.path = ""
        self.query = ""
        self.version = "1.1"
        self.fields: dict[str, str] = {}
        self.authorization: bytes | None = None
        self.content_length = 0
        self.chunked = False
        self.encoding = b""
        self.expects_continue = False
        self.keep_alive = True
        self.timeout_ns = 0


class HeadParser:
    """Parses heads for one table of endpoints, and remembers them whole, at most so many and none that is long.

    Order: what the client is allowed to do is asked for each request anew; only what the bytes say is remembered.
    """

    __slots__ = ("_heads", "_streams", "_table")

    def __init__(self, table: EndpointTable) -> None:
        self._table = table
        self._heads: dict[bytes, HttpHead] = {}
        self._streams: dict[Pairs, HttpHead] = {}

    def parse(self, block: bytes) -> HttpHead:
        """Returns the head of a block of bytes that ends with its empty line."""
        head = self._heads.get(block)
        if head is None:
            head = self._read(block)
            if len(block) <= _KEPT_BYTES and not head.fatal:
                if len(self._heads) >= _KEPT:
                    self._heads.clear()
                self._heads[block] = head
        return head

    def _read(self, block: bytes) -> HttpHead:
        collector = _Collector()
        line = _REQUEST_LINE.match(block)
        parser = httptools.HttpRequestParser(collector)
        try:
            parser.feed_data(block)
        except HttpParserInvalidMethodError:
            return _fatal(501, "the method is unknown") if block[:1].isupper() else no_head()
        except HttpParserUpgrade:
            pass  # nobody has to take an upgrade
        except HttpParserError as error:
            return _fatal(400, f"the request is not HTTP/1.1: {error}")
        if line is None:
            return _line_refused(block)
        return self._checked(collector, line.group(1) == b"1", bytes(parser.get_method()).decode())

    def _checked(self, collector: "_Collector", is_newest: bool, method: str) -> HttpHead:
        """Checks what the parser does not. Source: RFC 9112, 3.2, 6.1, 6.3; RFC 9110, 10.1.1."""
        target = collector.target.decode("latin-1")
        if len(collector.pairs) > MAX_HEAD_FIELDS:
            return _fatal(431, f"{len(collector.pairs)} header fields, at most {MAX_HEAD_FIELDS} are accepted")
        if method == "CONNECT" or not (target[:1] == "/" or target == "*") or "#" in target:
            return _fatal(400, "the target is no path: this is no proxy")
        fields: dict[str, str] = {}
        counts: dict[str, int] = {}
        for raw_name, raw_value in collector.pairs:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
            counts[name] = counts.get(name, 0) + 1
        hosts = counts.get("host", 0)
        if hosts > 1 or (hosts == 0 and is_newest) or _HOST.fullmatch(fields.get("host", "")) is None:
            return _fatal(400, "a request has exactly one Host, which is a name or an address")
        transfer = fields.get("transfer-encoding")
        if transfer is not None:
            if not is_newest or "content-length" in fields:
                return _fatal(400, "Transfer-Encoding is not for HTTP/1.0, and not for a request with a Content-Length")
            if transfer.lower() != "chunked":
                return _fatal(501, "Transfer-Encoding is other than chunked")
        length = fields.get("content-length", "0")
        if counts.get("content-length", 0) > 1 or not (length.isascii() and length.isdigit()):
            return _fatal(400, "Content-Length is not one number")
        if len(length) > _MAX_DIGITS:
            return _fatal(413, "the body is larger than anything that is accepted")
        head = self._of(method, target, fields)
        head.version = "1.1" if is_newest else "1.0"
        head.content_length = int(length) if transfer is None else -1
        head.chunked = transfer is not None
        tokens = [token.strip() for token in fields.get("connection", "").lower().split(",")]
        head.keep_alive = "close" not in tokens if is_newest else "keep-alive" in tokens
        expected = fields.get("expect")
        if expected is not None and is_newest:
            head.expects_continue = expected.lower() == "100-continue"
            if not head.expects_continue:
                head.outcome = HttpRefusal(417, "Expect is other than 100-continue")
        return head

    def of_stream(self, headers: Pairs, most_bytes: int) -> HttpHead:
        """Returns the head of an HTTP/2 stream, whose framing says the rest. Source: RFC 9113, 8.3.1."""
        head = self._streams.get(headers)
        if head is not None:
            return head
        size_bytes = sum(len(name) + len(value) for name, value in headers)
        fields: dict[str, str] = {}
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        if len(headers) > MAX_HEAD_FIELDS or size_bytes > most_bytes:
            text = f"{len(headers)} header fields of {size_bytes} bytes, at most {MAX_HEAD_FIELDS} of {most_bytes}"
            return HttpHead(HttpRefusal(431, text))
        # Who reads the host finds it by one name on both versions. Source: RFC 9113, 8.3.1.
        if ":authority" in fields:
            fields["host"] = fields[":authority"]
        target = fields.get(":path", "")
        if not (target[:1] == "/" or target == "*") or "#" in target:
            return HttpHead(HttpRefusal(400, "the target is no path: this is no proxy"))
        head = self._of(fields.get(":method", ""), target, fields)
        head.version = "2"
        length = fields.get("content-length", "")
        head.content_length = int(length) if length.isascii() and length.isdigit() and len(length) < _MAX_DIGITS else -1
        if size_bytes <= _KEPT_BYTES:
            if len(self._streams) >= _KEPT:
                self._streams.clear()
            self._streams[headers] = head
        return head

    def _of(self, method: str, target: str, fields: dict[str, str]) -> HttpHead:
        """Returns what is read of a request whatever its framing."""
        path, _, query = target.partition("?")
        found = self._table.find("GET" if method == "HEAD" else method, path)
        head = HttpHead(found)
        head.method, head.path, head.query = method, path, query
        head.fields = fields
        authorization = fields.get("authorization")
        if authorization is None and isinstance(found, EndpointMatch) and found.endpoint.token_cookie:
            authorization = _from_cookie(fields.get("cookie", ""), found.endpoint.token_cookie)
        head.authorization = None if authorization is None else authorization.encode("latin-1")
        timeout = fields.get("grpc-timeout")
        if timeout is not None:
            try:
                head.timeout_ns = parse_timeout(timeout.encode("latin-1"))
            except ValueError:
                pass  # as if there were none
        encoding = fields.get("content-encoding", "identity").lower().replace("x-gzip", "gzip")
        if encoding != "identity":
            head.encoding = encoding.encode("latin-1")
            if head.encoding not in ENCODINGS and isinstance(found, EndpointMatch):
                head.outcome = unknown_encoding(encoding)
        return head


class _Collector:
    """What the parser tells."""

    def __init__(self) -> None:
        self.target = b""
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value))


def _from_cookie(cookies: str, wanted: str) -> str | None:
    """Returns the credential that a browser keeps in the cookie, None without one."""
    for item in cookies.split(";"):
        name, _, value = item.strip().partition("=")
        if name == wanted and value:
            return f"Bearer {value}"
    return None


def unknown_encoding(encoding: str) -> HttpRefusal:
    """Returns the refusal of a body in an encoding that is not known."""
    text = f"Content-Encoding {encoding[:64]!r} is not supported: use gzip, deflate or none"
    return HttpRefusal(415, text, ((b"accept-encoding", b"gzip, deflate"),))


def oversized_head() -> HttpHead:
    """Returns what refuses a head that is too long."""
    return _fatal(431, f"the head has more than {MAX_HEAD_BYTES} bytes")


def hopeless_head(begun: bytes) -> HttpHead | None:
    """Returns the refusal of a head that has begun and cannot become one; None where it may."""
    if len(begun) > MAX_HEAD_BYTES:
        return oversized_head()
    if b"\n\n" in begun or not (0x41 <= begun[0] <= 0x5A or begun[0] == RETURN):
        return no_head()
    return None


def late_head() -> HttpHead:
    """Returns what refuses a head that does not come to its end."""
    return _fatal(408, "the head of the request comes too slowly")


def no_head() -> HttpHead:
    """Returns what refuses bytes that cannot become a head."""
    return _fatal(400, "no request of HTTP/1.1 begins so")


def _line_refused(block: bytes) -> HttpHead:
    version = block.partition(b"\r\n")[0].rpartition(b" ")[2]
    if version[:5] == b"HTTP/" and version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return _fatal(505, "the version is neither HTTP/1.1 nor HTTP/1.0")
    return _fatal(400, "the request line is not `METHOD /path HTTP/1.1`")


def _fatal(status: int, text: str) -> HttpHead:
    return HttpHead(HttpRefusal(status, text), fatal=True)
