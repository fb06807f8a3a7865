"""How what is given for an option becomes its value.

What is given is text from arguments and environment, any scalar from the file. Reading it returns the value or raises a
ValueError whose text says what is allowed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from gateway.byte_size import BYTE_FORMS, read_bytes, written_bytes
from gateway.errors import InvalidArgument
from gateway.features.store_urls import split_stores, store_urls
from gateway.records.sinks.target import parse_targets
from gateway.routing.store.store_address import FORMS, parse_address
from gateway.runtime.masking import masked_sinks, masked_url, masked_webhook
from loaders.errors import UnsupportedUri
from loaders.schemes import canonical
from loaders.uri import has_scheme, split_uris

_T_co = TypeVar("_T_co", covariant=True)
_Figure = TypeVar("_Figure", int, float)
_WORDS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class OptionValue(Protocol[_T_co]):
    """A kind of value: `kind` and `limits` say in a command's help what it is and what it may be.

    `mask` makes text that is safe to print where a value of this kind has secrets beside passwords of URLs.
    """

    @property
    def kind(self) -> str: ...

    @property
    def limits(self) -> str: ...

    @property
    def mask(self) -> Callable[[str], str]: ...

    def read(self, given: object) -> _T_co:
        """Raises: ValueError saying what is allowed."""


@dataclass(frozen=True, slots=True)
class Bounded(Generic[_Figure]):
    """A figure within bounds, given as itself or as text; True and False are none."""

    low: _Figure
    high: _Figure
    kind: str
    what: str  # what is allowed, {} being the limits
    figures: type[float] | tuple[type[float], ...]
    parse: Callable[[str], _Figure]
    written: Callable[[Any], str]
    mask: Callable[[str], str] = masked_url

    @property
    def limits(self) -> str:
        return f"{self.written(self.low)} to {self.written(self.high)}"

    def read(self, given: object) -> _Figure:
        try:
            figure = self.parse(given) if isinstance(given, str) else given
        except ValueError:
            figure = None
        if isinstance(figure, bool) or not isinstance(figure, self.figures) or not self.low <= figure <= self.high:
            raise ValueError(self.what.format(self.limits))  # NaN is within no bounds
        return type(self.low)(figure)


def whole(low: int, high: int) -> Bounded[int]:
    """Returns a whole number within bounds."""
    return Bounded(low, high, "INTEGER", "a whole number from {}", int, int, str)


def size(low: int, high: int) -> Bounded[int]:
    """Returns a number of bytes within bounds, with a unit or without."""
    return Bounded(low, high, "BYTES", f"bytes from {{}}, {BYTE_FORMS}", int, read_bytes, written_bytes)


def number(low: float, high: float) -> Bounded[float]:
    """Returns a number within bounds."""
    return Bounded(float(low), float(high), "NUMBER", "a number from {}", (int, float), float, "{:g}".format)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    limits: str = ""
    mask: Callable[[str], str] = masked_url

    @property
    def kind(self) -> str:
        return "|".join(self.words)

    def read(self, given: object) -> str:
        if not isinstance(given, str) or given not in self.words:
            raise ValueError("one of " + ", ".join(self.words))
        return given


@dataclass(frozen=True, slots=True)
class Parsed(Generic[_T_co]):
    """Text that a function reads."""

    kind: str
    read: Callable[[object], _T_co]
    limits: str = ""
    mask: Callable[[str], str] = masked_url


def _switch(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if not isinstance(given, str) or given.lower() not in _WORDS:
        raise ValueError("true or false")
    return _WORDS[given.lower()]


def _path(given: object) -> Path:
    if not isinstance(given, str | Path) or not str(given) or "\0" in str(given):
        raise ValueError("a path")
    if "://" in str(given):  # as a path it would lose a slash and name a directory that nobody meant
        raise ValueError("a path of this machine, no URI; mount what lies elsewhere")
    return Path(given).expanduser()


def _maybe_path(given: object) -> Path | None:
    return None if given is None or given == "" else _path(given)


def _repositories(given: object) -> str:
    """Returns paths or URIs that loaders read, with commas between them; a file may list them.

    `~` of a path is the user's directory, as in other paths.
    """
    given = [given] if isinstance(given, str | Path) else given
    if not isinstance(given, list) or not given or not all(isinstance(one, str | Path) for one in given):
        raise ValueError("a path or a URI, several with commas between them, or a list of them")
    text = ",".join(map(str, given))
    if "\0" in text:
        raise ValueError("a path or a URI")
    try:
        canonical(text)
    except UnsupportedUri as error:
        raise ValueError(f"a path, or a URI that a loader reads; {error}") from None
    return ",".join(one if has_scheme(one) else str(Path(one).expanduser()) for one in split_uris(text))


def _masked_repositories(text: str) -> str:
    """Returns the URIs, each without what lets one in."""
    return ",".join(masked_url(one) if has_scheme(one) and "://" in one else one for one in text.split(","))


def _paths(given: object) -> str:
    """Returns absolute paths with commas between them; a file may list them."""
    if isinstance(given, str):
        given = [part for part in given.split(",") if part]
    if not isinstance(given, list):
        raise ValueError("paths with commas between them, or a list of them")
    return ",".join(str(_path(one).absolute()) for one in given)


def _label(given: object) -> str:
    allowed = "1 to 64 of the characters A-Z a-z 0-9 . _ -"
    if not isinstance(given, str) or not 1 <= len(given) <= 64:
        raise ValueError(allowed)
    if not all(character.isascii() and (character.isalnum() or character in "._-") for character in given):
        raise ValueError(allowed)
    return given


def _host(given: object) -> str:
    """Returns a literal address or `localhost`; names would make what is bound depend on a resolver."""
    allowed = "an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost"
    if not isinstance(given, str):
        raise ValueError(allowed)
    if given == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(given.strip("[]")))
    except ValueError:
        raise ValueError(allowed) from None


def _maybe_host(given: object) -> str:
    return given if given == "" else _host(given)


def _redis_url(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{FORMS}, or empty for the embedded Valkey")
    if given:
        try:
            parse_address(given)
        except InvalidArgument as error:
            why = masked_url(str(error).removeprefix("redis url: "))
            raise ValueError(f"{FORMS}, or empty for the embedded Valkey; here: {why}") from None
    return given


def _webhook_url(given: object) -> str:
    allowed = "https://host[:port]/path (http:// too), without user and password, or empty for none"
    if not isinstance(given, str):
        raise ValueError(allowed)
    try:
        parts = urlsplit(given)
        wrong = parts.port == 0 or parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc
    except ValueError:
        wrong = True
    if given and (wrong or not given.isascii() or not given.isprintable() or " " in given):
        raise ValueError(allowed)
    return given


def _sinks(given: object) -> str:
    """Returns the URLs of sinks with commas between them; a file may list them."""
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        given = ",".join(given)
    if not isinstance(given, str):
        raise ValueError("URLs of sinks with commas between them, or a list of them")
    try:
        parse_targets(given)
    except ValueError as error:  # it may quote what was taken for a parameter
        raise ValueError(masked_url(str(error))) from None
    return given


def _feature_stores(given: object) -> str:
    """Returns names and URLs of feature stores with commas between them; a file may list them."""
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        given = ",".join(given)
    if not isinstance(given, str):
        raise ValueError("NAME=URL, several with commas between them, or a list of them")
    try:
        store_urls(given)
    except InvalidArgument as error:
        raise ValueError(f"NAME=URL with {FORMS}; here: {masked_url(str(error))}") from None
    return given


def _masked_stores(text: str) -> str:
    return ",".join(f"{name}={masked_url(url)}" for name, url in split_stores(text))


SWITCH: Final = Parsed("", _switch)
PATH: Final = Parsed("PATH", _path)
MAYBE_PATH: Final = Parsed("PATH", _maybe_path)
PATHS: Final = Parsed("PATH,...", _paths)
REPOSITORIES: Final = Parsed("PATH|URI,...", _repositories, mask=_masked_repositories)
LABEL: Final = Parsed("NAME", _label)
HOST: Final = Parsed("ADDRESS", _host)
MAYBE_HOST: Final = Parsed("ADDRESS", _maybe_host)
REDIS_URL: Final = Parsed("URL", _redis_url)
COLLECTOR_URL: Final = Parsed("URL", _webhook_url, mask=masked_webhook)
WEBHOOK_URL: Final = Parsed("URL", _webhook_url, mask=masked_webhook)
SINKS: Final = Parsed("URL,...", _sinks, mask=masked_sinks)
FEATURE_STORES: Final = Parsed("NAME=URL,...", _feature_stores, mask=_masked_stores)
