"""The options of `gateway serve`: one table that the command line, the environment and the file share."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from gateway.errors import InvalidArgument
from gateway.records.sinks.target import parse_targets
from gateway.routing.store.store_address import FORMS, parse_address

ENVIRONMENT_PREFIX: Final = "GATEWAY_"
DRIFT_WINDOWS_S: Final = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "1d": 86400}


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name as on the command line, where its value goes, and how text becomes a value.

    `read` takes what was given (text from arguments and environment, any scalar from the file) and returns the value or
    raises ValueError whose text says what is allowed. One that is `repeated` is given a list where it is named twice.
    """

    name: str
    section: str
    field: str
    read: Callable[[object], object]
    default: object
    help: str
    repeated: bool = False

    @property
    def environment_name(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()


def whole(low: int, high: int) -> Callable[[object], int]:
    def read(given: object) -> int:
        allowed = f"a whole number from {low} to {high}"
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise ValueError(allowed)
        try:
            value = int(given)
        except ValueError:
            raise ValueError(allowed) from None
        if not low <= value <= high:
            raise ValueError(allowed)
        return value

    return read


def number(low: float, high: float) -> Callable[[object], float]:
    def read(given: object) -> float:
        allowed = f"a number from {low:g} to {high:g}"
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise ValueError(allowed)
        try:
            value = float(given)
        except ValueError:
            raise ValueError(allowed) from None
        if not low <= value <= high:  # NaN fails this as well
            raise ValueError(allowed)
        return value

    return read


def one_of(*names: str) -> Callable[[object], str]:
    def read(given: object) -> str:
        if not isinstance(given, str) or given not in names:
            raise ValueError("one of " + ", ".join(names))
        return given

    return read


def switch(given: object) -> bool:
    if isinstance(given, bool):
        return given
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if not isinstance(given, str) or given.lower() not in words:
        raise ValueError("true or false")
    return words[given.lower()]


def path(given: object) -> Path:
    if not isinstance(given, str | Path) or not str(given) or "\0" in str(given):
        raise ValueError("a path")
    return Path(given).expanduser()


def label(given: object) -> str:
    allowed = "1 to 64 of the characters A-Z a-z 0-9 . _ -"
    if not isinstance(given, str) or not 1 <= len(given) <= 64:
        raise ValueError(allowed)
    if not all(character.isascii() and (character.isalnum() or character in "._-") for character in given):
        raise ValueError(allowed)
    return given


def host(given: object) -> str:
    """A literal address or `localhost`; names would make what is bound depend on a resolver."""
    allowed = "an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost"
    if not isinstance(given, str):
        raise ValueError(allowed)
    if given == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(given.strip("[]")))
    except ValueError:
        raise ValueError(allowed) from None


def redis_url(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{FORMS}, or empty for the embedded Valkey")
    if given:
        try:
            parse_address(given)
        except InvalidArgument as error:
            why = str(error).removeprefix("redis url: ")
            raise ValueError(f"{FORMS}, or empty for the embedded Valkey; here: {why}") from None
    return given


def webhook_url(given: object) -> str:
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


def sinks(given: object) -> str:
    """The URLs of sinks with commas between them; a file may list them."""
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        given = ",".join(given)
    if not isinstance(given, str):
        raise ValueError("URLs of sinks with commas between them, or a list of them")
    parse_targets(given)
    return given


def masked_sinks(text: str) -> str:
    """The sinks without anything that lets one in."""
    try:
        return ",".join(f"{target.kind}:{target.place} ({target.name})" for target in parse_targets(text))
    except ValueError:
        return "***" if text else ""


def maybe_path(given: object) -> Path | None:
    return None if given is None or given == "" else path(given)


def masked_webhook(url: str) -> str:
    """The URL's server; paths of webhooks often are what lets one in."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/***" if url else ""


def masked_url(url: str) -> str:
    """The URL with its password replaced; safe to log and to print."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return "***"
    query = "&".join(
        f"{pair.split('=', 1)[0]}=***" if "password=" in pair.lower() else pair for pair in parts.query.split("&")
    )
    netloc = parts.netloc
    if password is not None:
        user, _, address = netloc.rpartition("@")
        netloc = f"{user.split(':', 1)[0]}:***@{address}"
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


OPTIONS: Final[tuple[Option, ...]] = (
    Option("model-repository", "models", "repository", path, "models", "Holds <model>/<version>/model.onnx."),
    Option("poll-seconds", "models", "poll_seconds", number(0, 3600), 2.0, "Look for versions this often; 0: never."),
    Option("intra-op-threads", "models", "intra_op_threads", whole(0, 256), 0, "Threads of one run; 0: by CPUs."),
    Option("data-dir", "process", "data_dir", path, "data", "Holds the log, the store, the state."),
    Option("workers", "process", "workers", whole(0, 256), 0, "Worker processes; 0: one for each CPU."),
    Option("grace-seconds", "process", "grace_seconds", number(0, 3600), 10.0, "A stop waits this long for calls."),
    Option("log-level", "process", "log_level", one_of("debug", "info", "warning", "error"), "info", "What to tell."),
    Option("host", "listen", "host", host, "127.0.0.1", "Address to listen on."),
    Option("grpc-port", "listen", "grpc_port", whole(0, 65535), 8001, "Inference and control over gRPC; 0: any."),
    Option("http-port", "listen", "http_port", whole(0, 65535), 8000, "Kept for REST, which is not served yet."),
    Option("metrics-port", "listen", "metrics_port", whole(0, 65535), 8002, "Metrics, health; 0: any."),
    Option("transport", "listen", "transport", one_of("grpcio", "ngh2"), "ngh2", "The gRPC server."),
    Option("reflection", "listen", "reflection", switch, False, "Serve gRPC reflection."),
    Option("feedback-token", "listen", "feedback_token", switch, True, "Answers carry a signed token for feedback."),
    Option("insecure", "listen", "insecure", switch, False, "Allow an address that other hosts can reach."),
    Option("tls-certificate", "tls", "certificate", maybe_path, None, "PEM chain that clients are shown; gRPC by TLS."),
    Option("tls-key", "tls", "key", maybe_path, None, "PEM key of that certificate, not encrypted."),
    Option("tls-client-ca", "tls", "client_ca", maybe_path, None, "PEM authorities of clients, who must show theirs."),
    Option("max-message-bytes", "listen", "max_message_bytes", whole(4096, 2**31 - 1), 64 << 20, "Largest message."),
    Option("max-connections", "listen", "max_connections", whole(1, 1_000_000), 8192, "Connections a worker holds."),
    Option("busy-poll-microseconds", "listen", "busy_poll_microseconds", whole(0, 10_000), 100,
           "Stay awake so long for the next call of a client that makes one at a time; 0: never."),
    Option("redis-url", "store", "redis_url", redis_url, "", "Redis >= 7 with the rules; empty: embedded."),
    Option("environment", "store", "environment", label, "default", "Name space of the rules inside Redis."),
    Option("webhook-url", "events", "webhook_url", webhook_url, "", "POST every event there, signed; empty: nowhere."),
    Option("webhook-secret-file", "events", "webhook_secret_file", maybe_path, None,
           "Holds the secret that signs; or GATEWAY_WEBHOOK_SECRET in the environment."),
    Option("log-rate", "log", "rate", number(0, 1), 1.0, "Share of predictions that is logged."),
    Option("log-buffer-bytes", "log", "buffer_bytes", whole(1 << 20, 1 << 34), 64 << 20,
           "Rows waiting for disk."),
    Option("log-policy", "log", "policy", one_of("drop_newest", "sample", "block", "audit"), "drop_newest",
           "While too much waits for the disk: leave rows out, log fewer, let answers wait, or refuse them."),
    Option("log-block-milliseconds", "log", "block_milliseconds", number(1, 10_000), 20.0,
           "An answer waits so long for the log, with log-policy block or audit."),
    Option("sink", "log", "sinks", sinks, "",
           "Where logged rows go beside Parquet (docs/log.md): s3://, redis:// or kafka:// URLs, with commas between.",
           repeated=True),
    Option("drift-window", "drift", "window", one_of(*DRIFT_WINDOWS_S), "1h", "Drift is judged by windows so long."),
    Option("default-deadline-seconds", "limits", "default_deadline_seconds", number(0.001, 86400), 30.0,
           "Deadline of a call that brings none."),
    Option("max-in-flight", "limits", "max_in_flight", whole(1, 1_000_000), 4096, "Calls a worker holds at a time."),
    Option("max-in-flight-bytes", "limits", "max_in_flight_bytes", whole(1 << 20, 1 << 40), 1 << 30,
           "Bytes of requests a worker holds at a time."),
)  # fmt: skip
BY_NAME: Final[Mapping[str, Option]] = {option.name: option for option in OPTIONS}
CONFIG_OPTION: Final = "config"  # names the file itself, so it has no place in the file


def option_named(key: str, source: str) -> Option:
    """The option of that name; dashes and underscores are the same.

    Raises: InvalidArgument naming the nearest option.
    """
    option = BY_NAME.get(key.replace("_", "-"))
    if option is None:
        raise InvalidArgument(f"{source}: there is no option {key!r}{nearest(key)}")
    return option


def nearest(key: str) -> str:
    close = get_close_matches(key.replace("_", "-").lower(), BY_NAME, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; the options are {', '.join(sorted(BY_NAME))}"


def read_value(option: Option, given: object, source: str) -> object:
    try:
        return option.read(given)
    except ValueError as error:
        shown = masked_url(str(given)) if option.name == "redis-url" else given
        shown = "***" if option.name in ("webhook-url", "sink") else shown
        raise InvalidArgument(
            f"{source}: {option.name} is {json.dumps(shown, default=str)}, allowed: {error}"
        ) from None
