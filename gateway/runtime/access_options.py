"""How callers prove who they are, and where it is said what each may do."""

from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from gateway.access.entrance import AccessFiles, Watched
from gateway.access.json_web_token import ExpectedClaims, check_installed, parse_keys
from gateway.access.roles_file import parse_roles
from gateway.access.token_file import parse_tokens
from gateway.errors import InvalidArgument
from gateway.runtime.option import Setting
from gateway.runtime.option_value import MAYBE_PATH, Parsed

_TEXT_LIMIT: Final = 1024


def _text(given: object) -> str:
    if not isinstance(given, str) or len(given) > _TEXT_LIMIT or not given.isprintable():
        raise ValueError(f"text of at most {_TEXT_LIMIT} printable characters")
    return given


def _keys(given: object) -> str:
    """Returns a path, or a URL that nobody on the way can answer in another's name."""
    text = _text(given)
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        wrong = not parts.hostname or "@" in parts.netloc
        wrong = wrong or (parts.scheme != "https" and not _is_loopback(str(parts.hostname)))
    except ValueError:
        wrong = True
    if wrong or parts.scheme not in ("http", "https"):
        raise ValueError("a path, or an https:// URL without user and password (http:// on this host alone)")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


TEXT: Final = Parsed("TEXT", _text)
KEYS: Final = Parsed("PATH|URL", _keys)


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Without any of these everybody who can connect may do everything."""

    tokens: Annotated[
        Path | None, Setting("Static tokens, hashed (`gateway token new`).", MAYBE_PATH, name="access-tokens")
    ] = None
    roles: Annotated[
        Path | None, Setting("Who holds which roles on which models, in YAML.", MAYBE_PATH, name="access-roles")
    ] = None
    jwt_issuer: Annotated[str, Setting("The issuer whose JWTs are taken.", TEXT)] = ""
    jwt_audience: Annotated[str, Setting("The audience that those JWTs must be for.", TEXT)] = ""
    jwt_keys: Annotated[str, Setting("JWKS document with the issuer's public keys.", KEYS)] = ""

    @property
    def configured(self) -> bool:
        """Whether callers have to prove who they are, beside any certificate."""
        return self.tokens is not None or self.roles is not None or bool(self.jwt_keys)

    @property
    def files(self) -> AccessFiles:
        expected = ExpectedClaims(self.jwt_issuer, self.jwt_audience) if self.jwt_keys else None
        return AccessFiles(self.tokens, self.roles, self.jwt_keys, expected)

    def check(self, *, certificates: bool) -> None:
        """Raises: InvalidArgument for options that need each other, or a library that is not installed."""
        jwt = (self.jwt_issuer, self.jwt_audience, self.jwt_keys)
        if any(jwt) and not all(jwt):
            raise InvalidArgument("jwt-issuer, jwt-audience and jwt-keys need each other")
        if self.jwt_keys:
            check_installed()
        if self.roles is not None and self.tokens is None and not self.jwt_keys and not certificates:
            raise InvalidArgument(
                "access-roles says who may do what, and nobody can prove who he is: give access-tokens, "
                "jwt-keys or tls-client-ca as well"
            )

    def proven(self) -> "AccessOptions":
        """Returns the options with absolute paths, once their files were read.

        Raises: InvalidArgument naming the file and what is wrong with it.
        """
        keys = self.jwt_keys
        options = replace(
            self,
            tokens=self.tokens.absolute() if self.tokens is not None else None,
            roles=self.roles.absolute() if self.roles is not None else None,
            jwt_keys=str(Path(keys).expanduser().absolute()) if keys and "://" not in keys else keys,
        )
        files = options.files
        _prove(Watched("access-tokens", parse_tokens, None), files.tokens)
        _prove(Watched("access-roles", parse_roles, None), files.roles)
        _prove(Watched("jwt-keys", parse_keys, None), None if files.keys_url or not files.keys else Path(files.keys))
        return options


def _prove(watched: Watched[object], path: Path | None) -> None:
    if path is not None:
        watched.look(path, first=True)
        if watched.trouble:
            raise InvalidArgument(watched.trouble)
