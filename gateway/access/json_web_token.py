"""JSON Web Tokens: whose key signed one, and what it claims. The only module that imports PyJWT.

Source: RFC 7519, RFC 7517, RFC 8725 (algorithms are ours to choose, never the token's).
"""

import json
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import InvalidArgument, Unauthenticated

if TYPE_CHECKING:
    import jwt

INSTALL: Final = "pip install 'model-serving-gateway[jwt]'"
# Asymmetric ones alone: with a shared secret every verifier could sign, and `none` is no signature.
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
LEEWAY_S: Final = 30.0
LIMIT_BYTES: Final = 1 << 20
_KEYS: Final = 1000
_KEYS_OF_ID: Final = 8  # each may be tried for a token; half of them from either end: some add at the end, some before
_SHOWN: Final = 64  # characters of an id
_LATEST_S: Final = 1e12
_RSA_BITS: Final = 2048
# Libraries read more than that: what they leave out would make any number of tokens of one that was signed.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_log = logging.getLogger(__name__)


class UnknownKey(Unauthenticated):
    """A token that names a signing key that is not known, or not yet."""


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """What every token must claim."""

    issuer: str
    audience: str


def check_installed() -> None:
    """Raises: InvalidArgument where PyJWT, or what it verifies signatures with, is not installed."""
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        raise InvalidArgument(f"JWTs need a library that is not installed: {INSTALL}")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key, and the algorithms by which it may have signed."""

    public: Any
    algorithms: tuple[str, ...]


class SigningKeys:
    """The public keys of an issuer by their ids. Ids need not differ (RFC 7517, 4.5), and a key need not have one."""

    def __init__(self, keys: Mapping[str, Sequence[SigningKey]]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._keys.values())

    def find(self, key_id: str) -> Sequence[SigningKey]:
        """Returns the keys of that id; for a token that names none, those without one, or else the only one there is.

        Raises: UnknownKey.
        """
        keys = self._keys.get(key_id, ())
        if not keys and not key_id and len(self) == 1:
            (keys,) = self._keys.values()
        if not keys:
            raise UnknownKey(
                "the token names a signing key that is not known: the issuer's keys are being looked at again, so try"
                " once more in 10 s, and then ask its issuer for a new token"
            )
        return keys


NO_KEYS: Final = SigningKeys({})


def parse_keys(text: str | bytes) -> SigningKeys:
    """Returns the keys of a JWKS document that can verify a signature; others are passed over.

    Of one id, or of none, there are eight at most; what is left out is told in the log.

    Raises: InvalidArgument for text that is none, or holds no such key.
    """
    import jwt

    try:
        listed = json.loads(text)["keys"]
        if not isinstance(listed, list) or len(listed) > _KEYS:
            raise ValueError("keys")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidArgument('not a JWKS document: {"keys": [...]} is expected') from None
    keys: dict[str, list[SigningKey]] = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig" or one.get("kty") == "oct" or "d" in one:
            continue
        try:
            key = jwt.PyJWK(one)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        of_id = keys.setdefault(str(one.get("kid") or ""), [])
        if key.algorithm_name in ALGORITHMS and getattr(key.key, "key_size", _RSA_BITS) >= _least_bits(key.key_type):
            of_id.append(SigningKey(key.key, _algorithms_of(key, one)))
    keys = {key_id: _tried(key_id, of_id) for key_id, of_id in keys.items() if of_id}
    if not keys:
        raise InvalidArgument(f"no key for one of {', '.join(ALGORITHMS)} (RSA with {_RSA_BITS} bits or more) in it")
    return SigningKeys(keys)


def verify(token: str, keys: SigningKeys, expected: ExpectedClaims, now_s: float) -> Mapping[str, Any]:
    """Returns the claims of a token that its issuer signed for this audience, and that is valid now.

    Raises: Unauthenticated saying what to do about it, and nothing of the token; UnknownKey.
    """
    import jwt

    if _COMPACT.fullmatch(token) is None:
        raise Unauthenticated("the token is no JWT: three parts of base64url without padding, with dots between")
    try:
        header = jwt.get_unverified_header(token)
        if "crit" in header:  # RFC 7515, 4.1.11: what has to be understood, and is not
            raise Unauthenticated("the token's header has `crit`, which this gateway does not take")
        claims = _signed_by_one(token, keys.find(str(header.get("kid") or "")), str(header.get("alg")), expected)
    except jwt.InvalidAudienceError:
        raise Unauthenticated("the token is for another audience: ask for one for this gateway") from None
    except jwt.InvalidIssuerError:
        raise Unauthenticated("the token is of another issuer than this gateway trusts") from None
    except jwt.MissingRequiredClaimError as error:
        raise Unauthenticated(f"the token has no claim {error.claim!r}") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise Unauthenticated("the token is no JWT that this gateway's issuer signed") from None
    if _number(claims.get("exp")) + LEEWAY_S <= now_s:
        raise Unauthenticated("the token has expired: get a new one")
    if "nbf" in claims and _number(claims["nbf"]) - LEEWAY_S > now_s:
        raise Unauthenticated("the token is not valid yet: is the clock right?")
    return claims


def _signed_by_one(
    token: str, keys: Sequence[SigningKey], algorithm: str, expected: ExpectedClaims
) -> Mapping[str, Any]:
    """Returns the claims if one of the keys has signed them. Raises: jwt.PyJWTError, ValueError, TypeError."""
    import jwt

    for key in keys:
        if algorithm not in key.algorithms:
            continue
        with warnings.catch_warnings(), suppress(jwt.InvalidSignatureError):
            warnings.simplefilter("ignore")
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                issuer=expected.issuer,
                audience=expected.audience,
                # The times are compared here, with a clock that is given.
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return claims
    raise jwt.InvalidSignatureError


def _tried(key_id: str, keys: list[SigningKey]) -> list[SigningKey]:
    """Returns those that are tried for a token that names the id: the first and the last, if there are too many."""
    if len(keys) <= _KEYS_OF_ID:
        return keys
    half = _KEYS_OF_ID // 2
    _log.warning(
        "jwt-keys: %d keys have %s: the first %d and the last %d are tried for a token, and no token that one of the "
        "others signed is taken; publish each under an id of its own",
        len(keys),
        f"the id {key_id[:_SHOWN]!r}" if key_id else "no id",
        half,
        half,
    )
    return [*keys[:half], *keys[-half:]]


def _algorithms_of(key: "jwt.PyJWK", described: Mapping[str, object]) -> tuple[str, ...]:
    """Returns the algorithm that the key is for; of an RSA key that says none, all that use such a key."""
    if key.key_type == "RSA" and not described.get("alg"):
        return tuple(name for name in ALGORITHMS if name.startswith(("RS", "PS")))
    return (key.algorithm_name,)


def _number(value: object) -> float:
    # JSON as Python reads it has NaN, which is before no time, and integers that no float holds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LATEST_S:
        raise Unauthenticated("the token's times are no numbers of seconds")
    return float(value)


def _least_bits(key_type: str | None) -> int:
    return _RSA_BITS if key_type == "RSA" else 0
