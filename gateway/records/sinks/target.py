"""Sinks as an operator names them: one URL each.

s3://bucket[/prefix][?region=...&endpoint=http(s)://host:port]   published Parquet files, under their names in the lake
redis://[user:password@]host[:port][/db]?stream=NAME[&maxlen=N]  rows as entries of a stream; rediss:// over TLS (with
                                                                 redis-py's ssl_ options), unix:///path?stream=NAME
kafka://host:port[,host:port]/topic[?OPTION=VALUE]               rows as messages; OPTION as librdkafka calls it

Each takes `name` (of its outbox and in metrics), `keep_seconds` and `keep_bytes` (how much waits while it is away).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from gateway.records.lake.keeping import Keeping

SinkKind = Literal["s3", "redis", "kafka"]

FORMS: Final = (
    "s3://bucket/prefix, redis://host:port?stream=name (rediss, unix) or kafka://host:port/topic; several: with commas"
)
S3_INSTALL: Final = "pip install 'model-serving-gateway[s3]'"
KAFKA_INSTALL: Final = "pip install 'model-serving-gateway[kafka]'"
_BETWEEN = re.compile(r",\s*(?=[a-z][a-z0-9+]*://)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_STREAM = re.compile(r"[!-~]{1,255}")
_SCHEMES: Final[Mapping[str, SinkKind]] = {
    "s3": "s3", "redis": "redis", "rediss": "redis", "unix": "redis", "kafka": "kafka"
}  # fmt: skip
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs")
_COMMON = ("name", "keep_seconds", "keep_bytes")
_OWN: Final[Mapping[SinkKind, tuple[str, ...]]] = {
    "s3": ("region", "endpoint"), "redis": ("stream", "maxlen", "db", *_TLS), "kafka": ()
}  # fmt: skip
# A file that waits costs no space while the lake has it, so an object store may be away for as long as that keeps it.
_KEEPING: Final[Mapping[SinkKind, Keeping]] = {
    "s3": Keeping(30 * 86400.0, 64 << 30), "redis": Keeping(), "kafka": Keeping()
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """One sink. `place` is bucket and prefix, stream, or topic; `address` what its client connects to."""

    kind: SinkKind
    name: str
    place: str
    address: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)
    keeping: Keeping


def parse_targets(text: str) -> tuple[Target, ...]:
    """Returns the sinks that the text names, none if it is empty.

    Raises: ValueError, in words without the URL, which may hold a password.
    """
    targets = tuple(_target(part.strip()) for part in _BETWEEN.split(text) if part.strip())
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two sinks are named {name!r}: give one another name with ?name=")
    return targets


def _target(url: str) -> Target:
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError as error:
        raise ValueError(f"{error}; allowed: {FORMS}") from None
    kind = _SCHEMES.get(parts.scheme)
    if kind is None:
        raise ValueError(f"scheme {parts.scheme!r}; allowed: {FORMS}")
    for option in query:
        if option not in (*_COMMON, *_OWN[kind]) and not (kind == "kafka" and "." in option):
            allowed = ", ".join((*_OWN[kind], *_COMMON)) + (
                ", and librdkafka's (with a dot)" if kind == "kafka" else ""
            )
            raise ValueError(f"{kind} has no option {option!r}: {allowed}")
    place, address = _PLACES[kind](url, query)
    common = {option: query.pop(option) for option in _COMMON if option in query}
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}?{place}"
    name = common.get("name", f"{kind}-{sha256(shown.encode()).hexdigest()[:8]}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}: 1 to 64 of A-Z a-z 0-9 . _ -")
    default = _KEEPING[kind]
    keeping = Keeping(
        float(_whole(common, "keep_seconds", int(default.max_age_s))), _whole(common, "keep_bytes", default.max_bytes)
    )
    return Target(kind, name, place, address, query, keeping)


def _s3(url: str, query: dict[str, str]) -> tuple[str, str]:
    parts = urlsplit(url)
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError("s3 needs a bucket of 3 to 63 lower-case letters, digits, '.' and '-': s3://bucket/prefix")
    endpoint = query.get("endpoint", "")
    if endpoint:
        seen = urlsplit(endpoint)
        if seen.scheme not in ("http", "https") or not seen.hostname or seen.path.strip("/") or "@" in seen.netloc:
            raise ValueError(f"endpoint is {endpoint!r}: http://host:port or https://host:port")
    return "/".join(part for part in (parts.netloc, unquote(parts.path).strip("/")) if part), endpoint


def _redis(url: str, query: dict[str, str]) -> tuple[str, str]:
    stream = query.get("stream", "")
    if not _STREAM.fullmatch(stream):
        raise ValueError("redis needs a stream of 1 to 255 printable characters: redis://host:port?stream=name")
    _whole(query, "maxlen", 1)
    parts = urlsplit(url)
    if (parts.scheme != "unix" and not parts.hostname) or (parts.scheme == "unix" and not parts.path.strip("/")):
        raise ValueError("redis needs a server: redis://host:port?stream=name or unix:///path?stream=name")
    if parts.scheme != "rediss" and any(option in query for option in _TLS):
        raise ValueError("options that begin with ssl_ need TLS: rediss://host:port?stream=name")
    _whole(query, "db", 0, low=0)
    options = urlencode({option: query[option] for option in ("db", *_TLS) if option in query})
    return stream, f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{options}" if options else "")


def _kafka(url: str, query: dict[str, str]) -> tuple[str, str]:
    parts = urlsplit(url)
    topic = parts.path.strip("/")
    servers = [server for server in parts.netloc.split(",") if server]
    if (
        not servers
        or "@" in parts.netloc
        or not all(re.fullmatch(r"[^:]+(:\d{1,5})?|\[.+\](:\d{1,5})?", s) for s in servers)
    ):
        raise ValueError("kafka needs servers: kafka://host:port,host:port/topic; users go into ?sasl.username=")
    if not _TOPIC.fullmatch(topic):
        raise ValueError("kafka needs a topic of 1 to 249 letters, digits, '.', '_' and '-': kafka://host:port/topic")
    return topic, ",".join(servers)


_PLACES = {"s3": _s3, "redis": _redis, "kafka": _kafka}


def _whole(query: Mapping[str, str], option: str, default: int, *, low: int = 1) -> int:
    given = query.get(option)
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or not low <= int(given) < 1 << 50:
        raise ValueError(f"{option} is {given!r}: a whole number, {low} or more")
    return int(given)
