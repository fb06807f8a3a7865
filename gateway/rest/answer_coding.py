"""Answers compressed where the client asks for it: gzip or deflate, never larger ones than without.

Source: RFC 9110, 8.4 and 12.5.3.
"""

import asyncio
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Final

from gateway.rest.http_call import Fields, Piece
from gateway.rest.rest_call import RestCall

WORTH_BYTES: Final = 1024  # less fits into a packet as it is
_ON_LOOP_BYTES: Final = 32 << 10  # more is compressed on a thread: zlib lets go of the interpreter
_LEVEL: Final = 1
GZIP_BITS: Final = 31
_WINDOW_BITS: Final = {"gzip": GZIP_BITS, "deflate": 15}


def respond_coded(call: RestCall, fields: Fields, pieces: Sequence[Piece], own: Fields = ()) -> None:
    """Answers with status 200, compressed if the request accepts it and it is worth it."""
    accepted = call.header("accept-encoding")
    if accepted is not None:
        coding = chosen(accepted)
        size = sum(map(len, pieces))
        if coding and size >= WORTH_BYTES:
            _respond_compressed(call, fields, b"".join(pieces), own, coding)
            return
    call.respond(200, fields, pieces, own)


def chosen(accepted: str) -> str:
    """Returns the coding that a value of Accept-Encoding prefers among ours; "" for none."""
    best, weight = "", 0.0
    for part in accepted.split(","):
        name, _, rest = part.partition(";")
        coding = name.strip().lower()
        if coding == "x-gzip":
            coding = "gzip"
        if coding == "*":
            coding = "gzip"
        if coding in _WINDOW_BITS and (quality := _quality(rest)) > weight:
            best, weight = coding, quality
    return best


def _quality(rest: str) -> float:
    name, _, value = rest.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def _respond_compressed(call: RestCall, fields: Fields, body: bytes, own: Fields, coding: str) -> None:
    if len(body) <= _ON_LOOP_BYTES:
        _send(call, fields, own, coding, body, compress(body, coding))
        return
    running = asyncio.get_running_loop().run_in_executor(None, compress, body, coding)
    running.add_done_callback(partial(_sent, call, fields, own, coding, body))


def _sent(
    call: RestCall, fields: Fields, own: Fields, coding: str, body: bytes, running: "asyncio.Future[bytes]"
) -> None:
    if not running.cancelled():
        _send(call, fields, own, coding, body, running.result())


def _send(call: RestCall, fields: Fields, own: Fields, coding: str, body: bytes, compressed: bytes) -> None:
    varies = (b"vary", b"accept-encoding")
    if len(compressed) >= len(body):
        call.respond(200, fields, [body], (varies, *own))
    else:
        call.respond(200, fields, [compressed], ((b"content-encoding", coding.encode()), varies, *own))


def compress(body: bytes, coding: str) -> bytes:
    """Returns the body in the coding."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[coding])
    return compressor.compress(body) + compressor.flush()
