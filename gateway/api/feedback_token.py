"""Feedback tokens: what an answer says of itself, signed, so that feedback can name it without a search in the log.

    prefix   "1." and, in base64, model, version, arm (each a length and UTF-8) and the revision
    tail     "." and, in base64: milliseconds since the epoch (6 bytes), hash of the request's id (8), signature (12)

The signature is keyed BLAKE2b over the prefix and the rest of the tail. The base64 is that for URLs, without padding.
The hash is XXH3_64bits of the id under which the prediction log has the request. All integers are big-endian.

Source: RFC 7693 (BLAKE2), RFC 4648 section 5 (base64url).
"""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from struct import Struct
from tempfile import NamedTemporaryFile
from time import time_ns
from typing import Final

from xxhash import xxh3_64_digest

from gateway.errors import FailedPrecondition, InvalidArgument

VERSION = b"1."
KEY_BYTES = 32
SIGNATURE_BYTES = 12
LIMIT = 1024  # characters; the longest that is ever made has fewer
_TIME_BYTES: Final = 6
_SAID_BYTES = _TIME_BYTES + 8
_REVISION = Struct(">Q")
_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class Token:
    """Holds what a token says. Units: `at_ms` since the epoch."""

    model: str
    version: str
    arm: str
    revision: int
    at_ms: int
    request_hash: bytes

    def is_of(self, request_id: str) -> bool:
        """Returns whether the token was given to the request with that id."""
        return self.request_hash == xxh3_64_digest(request_id.encode())


class Stamp:
    """Makes the tokens of answers that differ only in their request and their time."""

    __slots__ = ("_clock", "_prefix", "_signing")

    def __init__(self, prefix: bytes, signing: blake2b, clock: Callable[[], int]) -> None:
        self._prefix = prefix
        self._signing = signing  # the signature so far
        self._clock = clock

    def mint(self, request_id: str) -> bytes:
        """Returns the token of an answer that was just given, in ASCII."""
        tail = (self._clock() // 1_000_000).to_bytes(_TIME_BYTES, "big") + xxh3_64_digest(request_id.encode())
        signature = self._signing.copy()
        signature.update(tail)
        # 26 bytes: 35 characters, and one of padding.
        return self._prefix + b2a_base64(tail + signature.digest(), newline=False).translate(_URLSAFE)[:-1]


class Tokens:
    """Makes and checks tokens with one key."""

    __slots__ = ("_clock", "_key")

    def __init__(self, key: bytes, *, clock: Callable[[], int] = time_ns) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a token key has {KEY_BYTES} bytes, this one {len(key)}")
        self._key = key
        self._clock = clock

    def stamp(self, model: str, version: str, arm: str, revision: int) -> Stamp:
        """Returns what makes the tokens of that arm's answers; worth keeping."""
        names = b"".join([bytes((len(name.encode()),)) + name.encode() for name in (model, version, arm)])
        prefix = VERSION + urlsafe_b64encode(names + _REVISION.pack(revision)).rstrip(b"=") + b"."
        return Stamp(prefix, self._signing(prefix), self._clock)

    def verify(self, text: str) -> Token:
        """Returns what the token says, if it was made with this key.

        Raises: InvalidArgument. The text says nothing of what would have been right.
        """
        try:
            token = self._read(text)
        except (ValueError, NotBase64, IndexError, UnicodeError) as error:
            raise InvalidArgument("the feedback token is malformed") from error
        if token is None:
            raise InvalidArgument("the feedback token was not made by this gateway, or was changed")
        return token

    def _read(self, text: str) -> Token | None:
        """Returns what the token says, None if its signature does not fit."""
        if len(text) > LIMIT or not text.isascii():
            raise ValueError("no token")
        head, dot, tail_text = text.rpartition(".")
        prefix = f"{head}{dot}"
        if not prefix.startswith(VERSION.decode()):
            raise ValueError("another version")
        tail = _decoded(tail_text)
        if len(tail) != _SAID_BYTES + SIGNATURE_BYTES:
            raise ValueError("another length")
        said, signature = tail[:_SAID_BYTES], tail[_SAID_BYTES:]
        if not compare_digest(self._signing(prefix.encode() + said).digest(), signature):
            return None
        model, version, arm, revision = _split(_decoded(head[len(VERSION) :]))
        at_ms = int.from_bytes(said[:_TIME_BYTES], "big")
        return Token(model, version, arm, revision, at_ms, said[_TIME_BYTES:])

    def _signing(self, data: bytes) -> blake2b:
        return blake2b(data, key=self._key, digest_size=SIGNATURE_BYTES)


def load_key(path: Path) -> bytes:
    """Returns the key in that file. Where there is none, whoever asks first makes it for all.

    Order: when this returns, the file is complete, and only its owner can read it.
    Raises: FailedPrecondition (the file holds something else), OSError.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as made:  # mode 0600
            made.write(os.urandom(KEY_BYTES))
            made.flush()
            os.fsync(made.fileno())
            try:
                os.link(made.name, path)
            except FileExistsError:
                pass  # another process was first: its key is the one
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise FailedPrecondition(f"{path.name} holds {len(key)} bytes, a token key has {KEY_BYTES}")
    return key


def _decoded(text: str) -> bytes:
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(data).rstrip(b"=").decode() != text:  # decoding passes over what is no base64
        raise ValueError("not base64")
    return data


def _split(packed: bytes) -> tuple[str, str, str, int]:
    names: list[str] = []
    for _ in range(3):
        size = packed[0]
        names.append(packed[1 : 1 + size].decode())
        packed = packed[1 + size :]
    if len(packed) != _REVISION.size:
        raise ValueError("another length")
    return names[0], names[1], names[2], int(_REVISION.unpack(packed)[0])
