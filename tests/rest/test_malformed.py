"""Smuggling and malformed requests: bytes in, status out, and whether the connection goes on. One table."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.rest.serving import Served, get, post, serving

POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GOES_ON, ENDS = True, False

# name: (the request, the status, whether a second request on the connection is answered)
CASES: dict[str, tuple[bytes, int, bool]] = {
    "a good one": (post("/echo", b"abcd"), 200, GOES_ON),
    "an empty line before it": (b"\r\n" + post("/echo", b"abcd"), 200, GOES_ON),
    "a POST without a length has no body": (POST + b"\r\n", 200, GOES_ON),
    "a good chunked one": (CHUNKED + b"4\r\nabcd\r\n0\r\n\r\n", 200, GOES_ON),
    "chunked in capitals": (POST + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200, GOES_ON),
    "chunk extensions are read over": (CHUNKED + b'4;a=b;c="d"\r\nabcd\r\n0\r\n\r\n', 200, GOES_ON),
    "trailers are read over": (CHUNKED + b"0\r\nX-A: b\r\n\r\n", 200, GOES_ON),
    "an upgrade nobody has to take": (
        get("/about", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        *(200, GOES_ON),
    ),
    # Two readers could see two ends of the body.
    "a length and chunks": (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ENDS),
    "chunks and a length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400, ENDS),
    "two lengths": (POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400, ENDS),
    "two equal lengths": (POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400, ENDS),
    "a list of lengths": (POST + b"Content-Length: 4, 4\r\n\r\nabcd", 400, ENDS),
    "a length with a sign": (POST + b"Content-Length: +4\r\n\r\nabcd", 400, ENDS),
    "a length below zero": (POST + b"Content-Length: -4\r\n\r\nabcd", 400, ENDS),
    "a length in hex": (POST + b"Content-Length: 0x4\r\n\r\nabcd", 400, ENDS),
    "a length of other digits": (POST + "Content-Length: ٤\r\n\r\nabcd".encode(), 400, ENDS),
    "an empty length": (POST + b"Content-Length:\r\n\r\n", 400, ENDS),
    "a length of 16 digits": (POST + b"Content-Length: 1000000000000000\r\n\r\n", 413, ENDS),
    "a length of 20 digits": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400, ENDS),
    "an encoding of transfer that is none": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, ENDS),
    "a chunked one that is gzip as well": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, ENDS),
    "chunked, and then something": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, ENDS),
    "chunked twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        *(400, ENDS),
    ),
    "chunked in a header with a tab": (POST + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", 200, GOES_ON),
    "chunks in HTTP/1.0": (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ENDS),
    "a space before the colon": (b"POST /echo HTTP/1.1\r\nHost : a\r\nContent-Length: 4\r\n\r\nabcd", 400, ENDS),
    "a folded line": (POST + b"X: b\r\n c\r\nContent-Length: 4\r\n\r\nabcd", 400, ENDS),
    "a folded first line": (b"GET /about HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n", 400, ENDS),
    "lines that end with LF": (b"POST /echo HTTP/1.1\nHost: a\nContent-Length: 4\n\nabcd", 400, ENDS),
    "one line that ends with LF": (b"GET /about HTTP/1.1\r\nX: a\nHost: a\r\n\r\n", 400, ENDS),
    "a head that ends with LF": (b"GET /about HTTP/1.1\r\nHost: a\n\n", 400, ENDS),
    "CR in a value": (POST + b"X: b\rc\r\n\r\n", 400, ENDS),
    "NUL in a value": (POST + b"X: b\x00c\r\n\r\n", 400, ENDS),
    "a name with a space": (POST + b"X Y: b\r\n\r\n", 400, ENDS),
    "a name that is empty": (POST + b": b\r\n\r\n", 400, ENDS),
    "a name beyond ASCII": (POST + b"X-\xff: b\r\n\r\n", 400, ENDS),
    "a line without a colon": (POST + b"X\r\n\r\n", 400, ENDS),
    # Whose request is it?
    "no Host": (b"GET /about HTTP/1.1\r\n\r\n", 400, ENDS),
    "two Hosts": (b"GET /about HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, ENDS),
    "two equal Hosts": (b"GET /about HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, ENDS),
    "a Host that is a path": (b"GET /about HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, ENDS),
    "a Host with a user": (b"GET /about HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, ENDS),
    "a Host that is empty": (b"GET /about HTTP/1.1\r\nHost:\r\n\r\n", 200, GOES_ON),
    "a Host of IPv6": (b"GET /about HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", 200, GOES_ON),
    "an absolute target": (b"GET http://a/about HTTP/1.1\r\nHost: a\r\n\r\n", 400, ENDS),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, ENDS),
    "a fragment": (get("/about#x"), 400, ENDS),
    "a target with a space": (get("/about b"), 400, ENDS),
    "a target beyond ASCII": (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, ENDS),
    "two spaces": (b"GET  /about HTTP/1.1\r\nHost: a\r\n\r\n", 400, ENDS),
    "a tab for a space": (b"GET\t/about HTTP/1.1\r\nHost: a\r\n\r\n", 501, ENDS),
    # What is not HTTP/1.1.
    "HTTP/0.9": (b"GET /about\r\nHost: a\r\n\r\n", 400, ENDS),
    "HTTP/0.9 by its number": (b"GET /about HTTP/0.9\r\nHost: a\r\n\r\n", 505, ENDS),
    "HTTP/2.0 in words": (b"GET /about HTTP/2.0\r\nHost: a\r\n\r\n", 505, ENDS),
    "HTTP/1.2": (b"GET /about HTTP/1.2\r\nHost: a\r\n\r\n", 400, ENDS),
    "RTSP": (b"GET /about RTSP/1.0\r\nHost: a\r\n\r\n", 400, ENDS),
    "a method nobody knows": (b"FOO /about HTTP/1.1\r\nHost: a\r\n\r\n", 501, ENDS),
    "a method in small letters": (b"get /about HTTP/1.1\r\nHost: a\r\n\r\n", 400, ENDS),
    "a greeting of TLS": (b"\x16\x03\x01\x02\x00\x01\x00", 400, ENDS),
    "no HTTP at all": (b"\x00\x00\x00\x00", 400, ENDS),
    # Chunks.
    "a chunk without a size": (CHUNKED + b"\r\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk with a size of words": (CHUNKED + b"four\r\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk with a size that begins with 0x": (CHUNKED + b"0x4\r\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk with a sign": (CHUNKED + b"+4\r\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk below zero": (CHUNKED + b"-4\r\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk whose size has a space": (CHUNKED + b"4 \r\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk whose size overflows": (CHUNKED + b"10000000000000001\r\nz\r\n0\r\n\r\n", 400, ENDS),
    "a chunk that is longer than its size": (CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk line that ends with LF": (CHUNKED + b"4\nabcd\r\n0\r\n\r\n", 400, ENDS),
    "a chunk extension with LF": (CHUNKED + b"1;x=y\nz\r\n0\r\n\r\n", 400, ENDS),
    "a chunk extension that is long": (CHUNKED + b"1;" + b"x" * 300 + b"\r\nz\r\n0\r\n\r\n", 400, ENDS),
    "a trailer that is none": (CHUNKED + b"0\r\nX A\r\n\r\n", 400, ENDS),
    "trailers without an end": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 1000, 400, ENDS),
    "a chunk beyond the limit": (
        b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n",
        *(413, ENDS),
    ),
    # Sizes.
    "65 header fields": (get("/about", *(f"X-{number}: 1" for number in range(64))), 431, ENDS),
    "64 header fields": (get("/about", *(f"X-{number}: 1" for number in range(63))), 200, GOES_ON),
    "a head of more than 16 KiB": (get("/about", "X: " + "a" * 16384), 431, ENDS),
    "a head of more than 16 KiB without an end": (b"GET /about HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 16384, 431, ENDS),
    "a body beyond the limit": (post("/small", bytes(17)), 413, GOES_ON),
    # What is fine as HTTP, and refused here.
    "an unknown path": (get("/nowhere"), 404, GOES_ON),
    "an unknown path with a body": (post("/nowhere", bytes(100)), 404, GOES_ON),
    "another method": (get("/echo"), 405, GOES_ON),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404, GOES_ON),
    "an expectation that is unknown": (get("/about", "Expect: the-worst"), 417, GOES_ON),
    "an unknown encoding": (post("/echo", b"abcd", "Content-Encoding: br"), 415, GOES_ON),
    "gzip that is none": (post("/echo", b"abcd", "Content-Encoding: gzip"), 400, GOES_ON),
    "an unknown chunked path": (
        b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        *(404, ENDS),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CASES)
async def test_a_request_has_its_answer_and_no_other(served: Served, name: str) -> None:
    raw, status, goes_on = CASES[name]
    async with served.client() as client:
        answer = await client.ask(raw)
        assert answer.status == status
        assert (answer.fields.get("connection") == "close") is not goes_on
        if goes_on:
            assert (await client.ask(post("/echo", b"again"))).body == b"again"
        else:
            client.send(post("/echo", b"smuggled"))
            assert await client.ended()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CASES)
async def test_it_does_not_matter_how_the_bytes_are_cut(served: Served, name: str) -> None:
    raw, status, _ = CASES[name]
    async with served.client() as client:
        step = max(1, len(raw) // 40)
        for position in range(0, len(raw), step):
            client.send(raw[position : position + step])
            await asyncio.sleep(0)
        assert (await client.answer()).status == status
