"""The address of the routing store, read from its URL: one server, a server that Sentinel names, or a cluster's nodes.

redis://[user[:password]@]host[:port][/db]                 one server, or any node of a cluster
rediss://...                                               the same over TLS
unix:///path/to/socket[?username=...&password=...&db=...]
redis+sentinel://[user[:password]@]host:port,host:port/service[/db]   and rediss+sentinel://
redis+cluster://[user[:password]@]host:port,host:port                 and rediss+cluster://

Options follow `?`, under redis-py's names: those of `TLS_OPTIONS` and `PLAIN_OPTIONS`. Nothing else is taken, so a
misspelt option is an error and not a default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from gateway.errors import InvalidArgument

Kind = Literal["single", "sentinel", "cluster"]

FORMS: Final = (
    "redis://[user:password@]host:port[/db], rediss://..., unix:///path, redis+sentinel://host:port,host:port/service "
    "or redis+cluster://host:port,host:port"
)
TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs")
PLAIN_OPTIONS: Final = ("db", "username", "password")
SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")
_PORTS: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_SWITCH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Node:
    """A server's address; a unix socket's has its path for a host and no port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """`nodes` are the server itself, the sentinels or some of a cluster's nodes, by `kind`.

    `options` are for connections to the servers, `sentinel_options` for those to the sentinels: names as in redis-py.
    """

    kind: Kind
    nodes: tuple[Node, ...]
    tls: bool = False
    unix: bool = False
    service: str = ""
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, object] = field(default_factory=dict, repr=False)


def parse_address(url: str) -> StoreAddress:
    """The address that the URL means.

    Raises: InvalidArgument, in words without the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError as error:
        raise InvalidArgument(f"redis url: {error}") from None
    if parts.scheme == "unix":
        return _unix(parts, query)
    base, _, suffix = parts.scheme.partition("+")
    if base not in ("redis", "rediss") or suffix not in ("", "sentinel", "cluster"):
        raise InvalidArgument(f"redis url: scheme {parts.scheme!r}")
    kind: Kind = "sentinel" if suffix == "sentinel" else "cluster" if suffix == "cluster" else "single"
    tls = base == "rediss"
    userinfo, _, hosts = parts.netloc.rpartition("@")
    service, database = _path(kind, parts.path)
    allowed = (*PLAIN_OPTIONS, *(TLS_OPTIONS if tls else ()), *(SENTINEL_OPTIONS if kind == "sentinel" else ()))
    if database:
        query.setdefault("db", database)
    user, _, password = userinfo.partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    options = {name: value for name, value in given.items() if value} | _options(query, allowed)
    if kind == "cluster" and options.get("db"):
        raise InvalidArgument(f"redis url: db {options['db']}, but a cluster has the one database 0")
    sentinel = {name: options.pop(f"sentinel_{name}", "") for name in ("username", "password")}
    own = {name: value for name, value in options.items() if name in TLS_OPTIONS}
    return StoreAddress(
        kind=kind,
        nodes=_nodes(kind, hosts),
        tls=tls,
        service=service,
        options=options,
        sentinel_options=own | {name: value for name, value in sentinel.items() if value},
    )


def _unix(parts: SplitResult, query: Mapping[str, str]) -> StoreAddress:
    if parts.netloc or not parts.path:
        raise InvalidArgument(
            "redis url: unix:// is followed by the socket's absolute path, as in unix:///run/redis.sock"
        )
    return StoreAddress("single", (Node(unquote(parts.path), 0),), unix=True, options=_options(query, PLAIN_OPTIONS))


def _nodes(kind: Kind, hosts: str) -> tuple[Node, ...]:
    nodes = []
    for text in hosts.split(","):
        try:
            one = urlsplit(f"//{text}")
            host, port = one.hostname, one.port
        except ValueError:
            host, port = None, None
        if not host or port == 0:
            raise InvalidArgument(f"redis url: {text!r} is not host:port")
        nodes.append(Node(unquote(host), port or _PORTS[kind]))
    if kind == "single" and len(nodes) > 1:
        raise InvalidArgument(f"redis url: {len(nodes)} hosts need redis+sentinel:// or redis+cluster://")
    return tuple(nodes)


def _path(kind: Kind, path: str) -> tuple[str, str]:
    """Service name and database."""
    words = [unquote(word) for word in path.split("/") if word]
    service = words.pop(0) if kind == "sentinel" and words else ""
    if kind == "sentinel" and not service:
        raise InvalidArgument("redis url: a sentinel url ends with the service's name, as in .../mymaster")
    if len(words) > 1:
        raise InvalidArgument(f"redis url: path {path!r}")
    return service, words[0] if words else ""


def _options(query: Mapping[str, str], allowed: tuple[str, ...]) -> dict[str, object]:
    options: dict[str, object] = {}
    for name, value in query.items():
        if name not in allowed:
            raise InvalidArgument(f"redis url: option {name!r}; allowed here: {', '.join(allowed)}")
        options[name] = _value(name, value)
    return options


def _value(name: str, value: str) -> object:
    if name == "db":
        if not (value.isascii() and value.isdecimal() and len(value) <= 5):
            raise InvalidArgument(f"redis url: db {value!r} is not a database's number")
        return int(value)
    if name == "ssl_check_hostname":
        if value.lower() not in _SWITCH:
            raise InvalidArgument(f"redis url: {name} {value!r} is not true or false")
        return _SWITCH[value.lower()]
    if name == "ssl_cert_reqs" and value not in ("required", "none"):
        raise InvalidArgument(f"redis url: {name} {value!r} is not required or none")
    return value
