"""The configuration of one gateway: parsed once, frozen, handed to every process as one JSON line."""

import json
import math
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.errors import InvalidArgument
from gateway.records.sinks.target import KAFKA_INSTALL, S3_INSTALL, parse_targets
from gateway.routing.store.store_address import parse_address
from gateway.runtime.cpu_quota import cpu_quota
from gateway.runtime.options import (
    CONFIG_OPTION,
    ENVIRONMENT_PREFIX,
    OPTIONS,
    masked_sinks,
    masked_url,
    masked_webhook,
    nearest,
    option_named,
    read_value,
)
from gateway.runtime.protection import Tls, check_protection, exposure
from gateway.runtime.redaction_config import KEY_VARIABLE as REDACTION_KEY
from gateway.runtime.redaction_config import SECTION as REDACTION
from gateway.runtime.redaction_config import RedactionConfig, parse_redaction
from gateway.telemetry.webhooks import secret_bytes

# A unix socket's path has 108 bytes with its closing zero; the longest name of ours is "worker-255.sock" with a suffix
# while it is being replaced.
_SOCKET_PATH_LIMIT: Final = 107
# Not an option: an argument can be read by every user of the host.
WEBHOOK_SECRET: Final = ENVIRONMENT_PREFIX + "WEBHOOK_SECRET"
_CLIENTS: Final = {"kafka": ("confluent_kafka", KAFKA_INSTALL), "s3": ("botocore", S3_INSTALL)}
_LONGEST_SOCKET_NAME: Final = "worker-255.sock.4194304"


@dataclass(frozen=True, slots=True)
class Models:
    repository: Path
    poll_seconds: float
    intra_op_threads: int  # 0: what remains of the CPUs for each worker


@dataclass(frozen=True, slots=True)
class Process:
    data_dir: Path
    workers: int
    grace_seconds: float
    log_level: str


@dataclass(frozen=True, slots=True)
class Listen:
    host: str
    grpc_port: int
    http_port: int
    metrics_port: int
    transport: str
    reflection: bool
    feedback_token: bool
    insecure: bool
    max_message_bytes: int
    max_connections: int
    busy_poll_microseconds: int

    @property
    def reachable(self) -> bool:
        """Whether other hosts can connect."""
        return not ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True, repr=False)
class Store:
    redis_url: str  # empty: the embedded Valkey
    environment: str

    def __repr__(self) -> str:
        return f"Store(redis_url={masked_url(self.redis_url)!r}, environment={self.environment!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Events:
    webhook_url: str  # empty: events are told to nobody
    webhook_secret_file: Path | None
    webhook_secret: str = ""

    def __repr__(self) -> str:
        return f"Events(webhook_url={masked_webhook(self.webhook_url)!r})"


@dataclass(frozen=True, slots=True)
class Log:
    rate: float
    buffer_bytes: int
    policy: str
    block_milliseconds: float
    sinks: str = field(default="", repr=False)  # their URLs, which may hold passwords


@dataclass(frozen=True, slots=True)
class Drift:
    window: str


@dataclass(frozen=True, slots=True)
class Limits:
    default_deadline_seconds: float
    max_in_flight: int
    max_in_flight_bytes: int


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a gateway; a component is given its section.

    `warnings` are for the operator to read once, at start.
    """

    models: Models
    process: Process
    listen: Listen
    store: Store
    log: Log
    drift: Drift
    events: Events
    limits: Limits
    tls: Tls
    redaction: RedactionConfig = field(default_factory=RedactionConfig)
    warnings: tuple[str, ...] = ()

    @property
    def run_dir(self) -> Path:
        """Where the state of the running gateway is kept."""
        return self.process.data_dir / "run"

    @property
    def socket_dir(self) -> Path:
        """`run_dir`, or a short directory of this user where socket names under it would be too long for the kernel."""
        if len(os.fsencode(self.run_dir / _LONGEST_SOCKET_NAME)) <= _SOCKET_PATH_LIMIT:
            return self.run_dir
        name = sha256(os.fsencode(self.run_dir)).hexdigest()[:16]
        return Path(f"/tmp/gateway-{os.getuid()}-{name}")

    @property
    def log_dir(self) -> Path:
        """Where the prediction log is kept: the workers' write-ahead logs, and what becomes of them."""
        return self.process.data_dir / "log"

    @property
    def published_dir(self) -> Path:
        """Where the compactor and the sinks put their metrics for the control process."""
        return self.run_dir / "published"

    @property
    def wal_dir(self) -> Path:
        return self.log_dir / "wal"

    @property
    def lake_dir(self) -> Path:
        """Where the compactor puts Parquet files."""
        return self.log_dir / "lake"

    @property
    def state_dir(self) -> Path:
        """What operators asked of models by hand, and the key of feedback tokens."""
        return self.process.data_dir / "state"

    @property
    def token_key_file(self) -> Path:
        """The key that all workers of the host sign feedback tokens with."""
        return self.state_dir / "token.key"

    @property
    def content_dir(self) -> Path:
        """Verified copies of model files."""
        return self.process.data_dir / "content"

    @property
    def rules_file(self) -> Path:
        """The last-known-good rules, from which a worker starts while the store is away."""
        return self.process.data_dir / "rules" / "last-known-good"

    @property
    def valkey_dir(self) -> Path:
        return self.process.data_dir / "valkey"

    @property
    def embedded_store(self) -> bool:
        return not self.store.redis_url

    def with_store(self, redis_url: str) -> "Config":
        return replace(self, store=replace(self.store, redis_url=redis_url))

    def with_ports(self, *, grpc_port: int, metrics_port: int) -> "Config":
        return replace(self, listen=replace(self.listen, grpc_port=grpc_port, metrics_port=metrics_port))

    def to_json(self) -> str:
        """One line that `from_json` reads back; it holds the secrets, so it is for a child's standard input only."""
        return json.dumps(asdict(self), default=str, separators=(",", ":"))

    def dump(self) -> dict[str, object]:
        """Every option by its name, secrets masked; for people."""
        shown = {option.name: getattr(getattr(self, option.section), option.field) for option in OPTIONS}
        shown["redis-url"] = masked_url(self.store.redis_url)
        shown["webhook-url"] = masked_webhook(self.events.webhook_url)
        shown["sink"] = masked_sinks(self.log.sinks)
        if self.redaction.document:
            shown[REDACTION] = self.redaction.dump()
        return {name: str(value) if isinstance(value, Path) else value for name, value in shown.items()}


_SECTIONS: Final[dict[str, Any]] = {
    "models": Models,
    "process": Process,
    "listen": Listen,
    "store": Store,
    "log": Log,
    "drift": Drift,
    "events": Events,
    "limits": Limits,
    "tls": Tls,
}
_PATHS: Final = (
    ("models", "repository"),
    ("process", "data_dir"),
    ("events", "webhook_secret_file"),
    *(("tls", name) for name in ("certificate", "key", "client_ca")),
)


def from_json(line: str | bytes) -> Config:
    """The configuration that `to_json` wrote; `ValueError` or `KeyError` for anything else."""
    raw = json.loads(line)
    for section, name in _PATHS:
        if raw[section][name] is not None:
            raw[section][name] = Path(raw[section][name])
    sections = {name: section(**raw[name]) for name, section in _SECTIONS.items()}
    redaction = RedactionConfig(**raw[REDACTION])
    return Config(**sections, redaction=redaction, warnings=tuple(raw.get("warnings", ())))


def parse(
    options: Mapping[str, object], environ: Mapping[str, str], file: Mapping[str, object], *, cpus: int = 1
) -> Config:
    """The configuration: argument before environment before file before default.

    An argument that is None was not given. Pure: paths stay as they are given, `cpus` is what `workers` 0 means.

    Raises: InvalidArgument naming the source, the key, the value and what is allowed.
    """
    given = {option.name: (option.default, "default") for option in OPTIONS}
    for key, value in file.items():
        if key == REDACTION:
            continue
        given[option_named(str(key), "file").name] = (value, f"file, {key}")
    for option in OPTIONS:
        if option.environment_name in environ:
            given[option.name] = (environ[option.environment_name], f"environment, {option.environment_name}")
    for key, value in options.items():
        if value is not None:
            name = option_named(key, "arguments").name
            given[name] = (value, f"argument, --{name}")
    values: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    for option in OPTIONS:
        value, source = given[option.name]
        values[option.section][option.field] = read_value(option, value, source)
    values["events"]["webhook_secret"] = environ.get(WEBHOOK_SECRET, "")
    values["process"]["workers"] = values["process"]["workers"] or max(1, cpus)
    sections = {name: section(**values[name]) for name, section in _SECTIONS.items()}
    redaction = parse_redaction(file.get(REDACTION), environ.get(REDACTION_KEY, ""))
    config = Config(**sections, redaction=redaction, warnings=_environment_warnings(environ))
    return _checked(config)


def load(options: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Config:
    """The configuration of this process, its file read and its paths made absolute.

    Raises: InvalidArgument for a value that is not allowed or a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    arguments = dict(options)
    file_name = arguments.pop(CONFIG_OPTION, None) or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    file = read_file(Path(str(file_name))) if file_name else {}
    config = parse(arguments, environ, file, cpus=math.ceil(cpu_quota()))
    return replace(
        config,
        events=_with_secret(config.events),
        models=replace(config.models, repository=config.models.repository.absolute()),
        process=replace(config.process, data_dir=config.process.data_dir.absolute()),
        tls=config.tls.proven(time.time()),
        redaction=config.redaction.proven(),
    )


def _with_secret(events: Events) -> Events:
    """The events with the secret that the file holds, checked.

    Raises: InvalidArgument if there is a webhook and no secret fit to sign for it.
    """
    if not events.webhook_url:
        return events
    try:
        path = events.webhook_secret_file
        secret = path.read_text(encoding="utf-8") if path is not None else events.webhook_secret
        secret_bytes(secret)
    except OSError as error:
        raise InvalidArgument(f"webhook-secret-file {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidArgument(
            f"webhook-url needs a secret in the file webhook-secret-file or in {WEBHOOK_SECRET}: {error}"
        ) from None
    return replace(events, webhook_secret=secret)


def read_file(path: Path) -> Mapping[str, object]:
    """The options in a TOML (`.toml`) or YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise InvalidArgument(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"config file {str(path)!r} does not parse: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidArgument(
            f"config file {str(path)!r} holds a {type(content).__name__}, allowed: option: value pairs"
        )
    return content


def _checked(config: Config) -> Config:
    """What single values cannot show: combinations."""
    listen = config.listen
    check_protection(config.tls, listen.host, reachable=listen.reachable, insecure=listen.insecure)
    _check_sinks(config)
    config = replace(config, warnings=(*config.warnings, *_trust_warnings(config)))
    ports = [port for port in (listen.grpc_port, listen.http_port, listen.metrics_port) if port]
    if len(set(ports)) != len(ports):
        raise InvalidArgument(
            f"grpc-port {listen.grpc_port}, http-port {listen.http_port} and metrics-port {listen.metrics_port} "
            "must differ"
        )
    return config


def _check_sinks(config: Config) -> None:
    """Raises: InvalidArgument (a sink that is the routing store, or whose client is not installed)."""
    rules = parse_address(config.store.redis_url).nodes if config.store.redis_url else ()
    for target in parse_targets(config.log.sinks):
        if target.kind == "redis" and set(parse_address(target.address).nodes) & set(rules):
            raise InvalidArgument(
                f"sink {target.name} is the Redis of redis-url: a log there could evict the rules, give it its own"
            )
        module, install = _CLIENTS.get(target.kind, ("", ""))
        if module and find_spec(module) is None:
            raise InvalidArgument(f"sink {target.name} needs a client that is not installed: {install}")


def _trust_warnings(config: Config) -> tuple[str, ...]:
    warnings = []
    if config.listen.reachable:
        warnings.append(exposure(config.tls, config.listen.host, config.listen.metrics_port))
    if "ssl_cert_reqs=none" in config.store.redis_url:
        warnings.append("redis-url: with ssl_cert_reqs=none whoever takes the connection is believed to be the store")
    if config.events.webhook_url.startswith("http://"):
        warnings.append("webhook-url: over http:// events can be read on their way; the signature only tells forgeries")
    return tuple(warnings)


def _environment_warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names that look like a misspelt option.

    Others are left alone: a container platform puts GATEWAY_PORT and GATEWAY_SERVICE_HOST there by itself.
    """
    known = {option.environment_name for option in OPTIONS} | {
        ENVIRONMENT_PREFIX + "CONFIG",
        ENVIRONMENT_PREFIX + "SERVER",
        *(f"{ENVIRONMENT_PREFIX}CLI_TLS_{name}" for name in ("CA", "CERT", "KEY", "NAME")),
        WEBHOOK_SECRET,
        REDACTION_KEY,
    }
    warnings = []
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            hint = nearest(name.removeprefix(ENVIRONMENT_PREFIX))
            if "did you mean" in hint:
                warnings.append(f"environment variable {name} is not an option{hint}")
    return tuple(warnings)
