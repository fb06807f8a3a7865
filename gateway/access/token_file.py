"""Static tokens: 256 random bits each, of which a file holds the SHA-256 and what the bearer may do.

One token a line: `sha256:HEX name=ci role=operator models=fraud* tenant=acme expires=2027-01-31T00:00:00Z`. `name` and
`role` are required; `role` and `models` take several words with commas between them. Lines that begin with `#`, and
empty ones, count for nothing. A slow hash would protect passwords; nobody guesses 256 random bits.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from gateway.access.principal import Grant, Role, check_pattern
from gateway.errors import InvalidArgument, NotFound

PREFIX: Final = "gwt_"  # by which secret scanners know one, and a server that it is no JWT
LIMIT_BYTES: Final = 4 << 20
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,127}", re.ASCII)
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_FIELDS: Final = ("name", "role", "models", "tenant", "expires")


@dataclass(frozen=True, slots=True)
class StaticToken:
    """What the file says of one token. Units: `expires_s` since the Unix epoch, 0: never."""

    digest: bytes
    name: str
    grants: tuple[Grant, ...]
    tenant: str = ""
    expires_s: float = 0.0

    def to_line(self) -> str:
        """Returns the token's line, without its end."""
        roles = ",".join(grant.role for grant in self.grants)
        words = [f"sha256:{self.digest.hex()}", f"name={self.name}", f"role={roles}"]
        words.append(f"models={','.join(self.grants[0].models)}")
        if self.tenant:
            words.append(f"tenant={self.tenant}")
        if self.expires_s:
            words.append(f"expires={date_text(self.expires_s)}")
        return " ".join(words)


def new_token(random: bytes) -> str:
    """Returns the text of a token made of 32 random bytes."""
    if len(random) != 32:
        raise ValueError(f"a token is made of 32 random bytes, not {len(random)}")
    return PREFIX + _base64url(random)


def random_token() -> str:
    """Returns a token that nobody has seen before."""
    return new_token(secrets.token_bytes(32))


def digest_of(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class StaticTokens:
    """The tokens of a file by their digests."""

    def __init__(self, tokens: Mapping[bytes, StaticToken]) -> None:
        self._tokens = tokens

    def __iter__(self) -> Iterator[StaticToken]:
        return iter(self._tokens.values())

    def find(self, token: bytes) -> StaticToken | None:
        """Returns what is known of a token.

        What a caller can time is a search by the digest, which says nothing of any other token's; the digests are then
        compared in constant time.
        """
        digest = digest_of(token)
        known = self._tokens.get(digest)
        return known if known is not None and hmac.compare_digest(known.digest, digest) else None


NO_TOKENS: Final = StaticTokens({})


def parse_tokens(text: str) -> StaticTokens:
    """Returns the tokens of a file. Raises: InvalidArgument naming the line and what is wrong with it."""
    tokens: dict[bytes, StaticToken] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            token = parse_line(line)
            if token.digest in tokens:
                raise InvalidArgument("the same token stands in an earlier line")
        except InvalidArgument as error:
            raise InvalidArgument(f"line {number}: {error}") from None
        tokens[token.digest] = token
    return StaticTokens(tokens)


def parse_line(line: str) -> StaticToken:
    """Raises: InvalidArgument, which does not repeat what could be a token put there by mistake."""
    first, *words = line.split()
    digest = _DIGEST.fullmatch(first)
    if digest is None:
        raise InvalidArgument("the first word is not sha256: and 64 hexadecimal digits; `gateway token new` writes one")
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _FIELDS or not equals or not value:
            raise InvalidArgument(f"{', '.join(f'{field}=...' for field in _FIELDS)} are allowed after the hash")
        if name in values:
            raise InvalidArgument(f"{name} is given twice")
        values[name] = value
    models = tuple(check_pattern(pattern) for pattern in values.get("models", "*").split(","))
    return StaticToken(
        bytes.fromhex(digest[1]),
        _fitting("name", values.get("name", ""), NAME),
        tuple(Grant(read_role(role), models) for role in values.get("role", "").split(",")),
        _fitting("tenant", values["tenant"], TENANT) if "tenant" in values else "",
        _date(values["expires"]) if "expires" in values else 0.0,
    )


def read_role(word: str) -> Role:
    """Raises: InvalidArgument."""
    try:
        return Role(word)
    except ValueError:
        raise InvalidArgument(f"role is {word[:32]!r}, allowed: {', '.join(Role)}") from None


def without(text: str, name: str) -> str:
    """Returns the file without the tokens of that name, or whose hash begins so. Raises: NotFound, InvalidArgument."""
    kept = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line.lstrip().startswith("#"):
            token = parse_line(line)
            digest = name.removeprefix("sha256:")
            if token.name == name or (len(digest) >= 8 and token.digest.hex().startswith(digest)):
                continue
        kept.append(line)
    if len(kept) == len(text.splitlines()):
        raise NotFound(f"there is no token of the name {name!r}, and none whose hash begins so (8 digits at least)")
    return "".join(kept)


def date_text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _date(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"expires is {text[:64]!r}, allowed: a time such as 2027-01-31T00:00:00Z") from None
    if at.tzinfo is None:
        raise InvalidArgument(f"expires is {text[:64]!r}, which has no time zone: end it with Z")
    return at.timestamp()


def _fitting(field: str, text: str, pattern: "re.Pattern[str]") -> str:
    if pattern.fullmatch(text) is None:
        raise InvalidArgument(f"{field} is {text[:64]!r}, allowed: {pattern.pattern}")
    return text


def _base64url(raw: bytes) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(raw).rstrip(b"=").decode()
