"""The sections of the configuration.

Each field that is `Annotated` with a Setting is an option: name, type, default, limits and help stand here alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final

from gateway.errors import InvalidArgument
from gateway.runtime.masking import masked_url, masked_webhook
from gateway.runtime.option import Setting
from gateway.runtime.option_value import (
    COLLECTOR_URL,
    FEATURE_STORES,
    HOST,
    LABEL,
    MAYBE_HOST,
    MAYBE_PATH,
    PATH,
    PATHS,
    REDIS_URL,
    REPOSITORIES,
    SINKS,
    SWITCH,
    WEBHOOK_URL,
    Choice,
    number,
    size,
    whole,
)
from gateway.telemetry.logs import FORMATS
from loaders.errors import SignatureRefused
from loaders.model_signature import INSTALL, TrustedKeys
from loaders.schemes import canonical, missing

DRIFT_WINDOWS_S: Final[Mapping[str, int]] = {
    "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "1d": 86400,
}  # fmt: skip
_PORT: Final = whole(0, 65535)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    repository: Annotated[
        str,
        Setting(
            "Holds <model>/<version>/model.onnx; of several, with commas between, the first that has a model.",
            REPOSITORIES,
            name="model-repository",
            repeated=True,
        ),
    ] = "models"
    allow_links_to: Annotated[
        str,
        Setting(
            "Directories outside the repository to which links may lead, with commas between.", PATHS, repeated=True
        ),
    ] = ""  # fmt: skip
    require_signature: Annotated[
        Path | None, Setting("File of public keys (PEM); versions that none of them signed do not load.", MAYBE_PATH)
    ] = None  # fmt: skip
    content_store_bytes: Annotated[
        int, Setting("Copies that are not in use go when there is more; 0: they always do.", size(0, 1 << 50))
    ] = 32 << 30  # fmt: skip
    prepared_models_bytes: Annotated[
        int, Setting("Disk for models whose weights workers share; 0: each has its own.", size(0, 1 << 50))
    ] = 32 << 30  # fmt: skip
    prepare_min_bytes: Annotated[
        int, Setting("Workers share the weights of models that have this many bytes of them.", size(1, 1 << 50))
    ] = 16 << 20  # fmt: skip
    response_cache_bytes: Annotated[
        int, Setting("Bytes of answers that a worker keeps, of models that ask for it; 0: none.", size(0, 1 << 50))
    ] = 64 << 20  # fmt: skip
    load_on_demand: Annotated[
        bool,
        Setting("Versions that no route names are in memory only once a request has come for them.", SWITCH),
    ] = False
    model_memory_bytes: Annotated[
        int,
        Setting(
            "Versions in memory of all workers; with load-on-demand, the least recently used make room; 0: no limit.",
            size(0, 1 << 50),
        ),
    ] = 0
    poll_seconds: Annotated[float, Setting("Look for versions this often; 0: never.", number(0, 3600))] = 2.0
    intra_op_threads: Annotated[int, Setting("Threads of one run; 0: by CPUs.", whole(0, 256))] = 0
    quarantine_seconds: Annotated[
        float, Setting("Refuse what a worker died of for this long.", number(1, 31_536_000))
    ] = 600.0  # fmt: skip

    def proven(self) -> "ModelOptions":
        """Returns the options with paths made absolute, once the file of trusted keys was read.

        Raises: InvalidArgument naming what is wrong, or what must be installed.
        """
        if self.model_memory_bytes and not self.load_on_demand:
            raise InvalidArgument(
                "model-memory-bytes bounds what is loaded on demand: set load-on-demand too, or 0 for no limit"
            )
        keys = self.require_signature
        if keys is not None:
            if find_spec("cryptography") is None:
                raise InvalidArgument(f"require-signature needs what is not installed: {INSTALL}")
            try:
                TrustedKeys(keys).read()
            except SignatureRefused as error:
                raise InvalidArgument(f"require-signature {str(keys)!r}: {error}") from None
        return replace(self, repository=canonical(self.repository), require_signature=keys and keys.absolute())

    def missing_repository(self) -> str:
        """Returns which repository makes a start a mistake and why, "" if nothing speaks against it."""
        return missing(self.repository)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    data_dir: Annotated[Path, Setting("Holds the log, the store, the state.", PATH)] = Path("data")
    workers: Annotated[int, Setting("Worker processes; 0: one for each CPU.", whole(0, 256))] = 0
    grace_seconds: Annotated[float, Setting("A stop waits this long for calls.", number(0, 3600))] = 10.0
    worker_memory_bytes: Annotated[
        int, Setting("Replace a worker that holds more memory, without losing a call; 0: never.", size(0, 1 << 50))
    ] = 0  # fmt: skip
    log_level: Annotated[str, Setting("What to tell.", Choice(("debug", "info", "warning", "error")))] = "info"
    log_format: Annotated[
        str, Setting("How each process writes what it tells on standard error.", Choice(FORMATS))
    ] = "text"  # fmt: skip


def is_reachable(address: str) -> bool:
    """Returns whether other hosts can connect to a literal address of this one."""
    return not ip_address(address).is_loopback


@dataclass(frozen=True, slots=True)
class ListenOptions:
    host: Annotated[str, Setting("Address to listen on.", HOST)] = "127.0.0.1"
    grpc_port: Annotated[int, Setting("Inference and control over gRPC; 0: any.", _PORT)] = 8001
    http_port: Annotated[int, Setting("Inference over REST; 0: any, -1: none.", whole(-1, 65535))] = 8000
    single_port: Annotated[
        bool, Setting("Serve REST at grpc-port as well, told apart by the first bytes, and not at http-port.", SWITCH)
    ] = False  # fmt: skip
    control_port: Annotated[
        int, Setting("Control over gRPC there, and no longer at grpc-port; 0: any, -1: at grpc-port.", whole(-1, 65535))
    ] = -1  # fmt: skip
    control_socket: Annotated[
        Path | None, Setting("Control over gRPC at this unix socket, and no longer at grpc-port.", MAYBE_PATH)
    ] = None  # fmt: skip
    metrics_port: Annotated[
        int, Setting("Metrics, health, page, and control over REST, all without TLS; 0: any.", _PORT)
    ] = 8002
    metrics_address: Annotated[
        str, Setting("Address of metrics-port, such as 127.0.0.1 behind a proxy; empty: as host.", MAYBE_HOST)
    ] = ""
    transport: Annotated[str, Setting("The gRPC server.", Choice(("grpcio", "ngh2")))] = "ngh2"
    reflection: Annotated[bool, Setting("Serve gRPC reflection.", SWITCH)] = False
    feedback_token: Annotated[bool, Setting("Answers carry a signed token for feedback.", SWITCH)] = True
    load_reports: Annotated[
        bool, Setting("Answers tell the worker's load, by which clients and proxies can balance (ORCA).", SWITCH)
    ] = False  # fmt: skip
    insecure: Annotated[bool, Setting("Allow an address that other hosts can reach.", SWITCH)] = False
    max_message_bytes: Annotated[int, Setting("Largest message.", size(4096, 2**31 - 1))] = 64 << 20
    max_connections: Annotated[int, Setting("Connections a worker holds.", whole(1, 1_000_000))] = 8192
    max_connections_per_address: Annotated[
        int,
        Setting(
            "Connections a worker holds of one IPv4 address or IPv6 /64 network (ngh2 only); 0: no such limit.",
            whole(0, 1_000_000),
        ),
    ] = 1024
    busy_poll_microseconds: Annotated[
        int,
        Setting(
            "Stay awake so long for the next call of a client that makes one at a time; 0: never.", whole(0, 10_000)
        ),
    ] = 100

    def proven(self) -> "ListenOptions":
        """Returns the options with absolute paths."""
        return replace(self, control_socket=self.control_socket.absolute() if self.control_socket else None)

    @property
    def rest_apart(self) -> bool:
        """Whether REST has a port of its own."""
        return self.http_port >= 0 and not self.single_port

    @property
    def control_apart(self) -> bool:
        """Whether the control service has an address of its own."""
        return self.control_port >= 0 or self.control_socket is not None

    @property
    def reachable(self) -> bool:
        """Whether other hosts can connect to the ports of applications."""
        return is_reachable(self.host)


@dataclass(frozen=True, slots=True, repr=False)
class StoreOptions:
    redis_url: Annotated[
        str, Setting("Redis >= 7 with the rules; empty: embedded.", REDIS_URL)
    ] = ""  # fmt: skip
    start_without_rules: Annotated[
        bool,
        Setting("Serve the newest versions at a start at which neither the store nor the disk has any rules.", SWITCH),
    ] = False
    environment: Annotated[str, Setting("Name space of the rules inside Redis.", LABEL)] = "default"
    routes_dir: Annotated[
        Path | None,
        Setting("Documents that should be applied; an event tells where the store differs; empty: no.", MAYBE_PATH),
    ] = None  # fmt: skip

    def __repr__(self) -> str:
        return f"StoreOptions(redis_url={masked_url(self.redis_url)!r}, environment={self.environment!r})"


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    stores: Annotated[
        str,
        Setting(
            "Redis servers that feature views look rows up in, by the names that views give them (docs/features.md).",
            FEATURE_STORES,
            name="feature-store",
            repeated=True,
        ),
    ] = field(default="", repr=False)  # URLs may hold passwords


@dataclass(frozen=True, slots=True, repr=False)
class EventOptions:
    """The secret itself is no option: an argument can be read by every user of the host."""

    webhook_url: Annotated[
        str, Setting("POST every event there, signed; empty: nowhere.", WEBHOOK_URL)
    ] = ""  # fmt: skip
    webhook_secret_file: Annotated[
        Path | None,
        Setting("Holds the secret that signs; or GATEWAY_WEBHOOK_SECRET in the environment.", MAYBE_PATH),
    ] = None
    webhook_secret: str = ""

    def __repr__(self) -> str:
        return f"EventOptions(webhook_url={masked_webhook(self.webhook_url)!r})"


@dataclass(frozen=True, slots=True)
class LogOptions:
    rate: Annotated[float, Setting("Share of predictions that is logged.", number(0, 1), name="log-rate")] = 1.0
    buffer_bytes: Annotated[
        int, Setting("Rows waiting for disk.", size(1 << 20, 1 << 34), name="log-buffer-bytes")
    ] = 64 << 20  # fmt: skip
    policy: Annotated[
        str,
        Setting(
            "While too much waits for the disk: leave rows out, log fewer, let answers wait, or refuse them.",
            Choice(("drop_newest", "sample", "block", "audit")),
            name="log-policy",
        ),
    ] = "drop_newest"
    block_milliseconds: Annotated[
        float,
        Setting(
            "An answer waits so long for the log, with log-policy block or audit.",
            number(1, 10_000),
            name="log-block-milliseconds",
        ),
    ] = 20.0
    retention_days: Annotated[
        float,
        Setting("Parquet of the log goes when it is older.", number(1 / 24, 36_500), name="log-retention-days"),
    ] = 30.0
    retention_bytes: Annotated[
        int,
        Setting(
            "Parquet of the log goes, the oldest first, when there is more.",
            size(1 << 20, 1 << 50),
            name="log-retention-bytes",
        ),
    ] = 64 << 30
    sinks: Annotated[
        str,
        Setting(
            "Where logged rows go beside Parquet (docs/log.md): s3://, redis:// or kafka:// URLs, with commas between.",
            SINKS,
            name="sink",
            repeated=True,
        ),
    ] = field(default="", repr=False)  # URLs may hold passwords


@dataclass(frozen=True, slots=True)
class DriftOptions:
    window: Annotated[
        str, Setting("Drift is judged by windows so long.", Choice(tuple(DRIFT_WINDOWS_S)), name="drift-window")
    ] = "1h"  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class TraceOptions:
    otlp_endpoint: Annotated[
        str, Setting("Send traces there by OTLP over HTTP, such as http://127.0.0.1:4318; empty: none.", COLLECTOR_URL)
    ] = ""  # fmt: skip
    ratio: Annotated[
        float, Setting("Share that is traced of calls that bring no trace.", number(0, 1), name="trace-ratio")
    ] = 0.01  # fmt: skip

    def __repr__(self) -> str:
        return f"TraceOptions(otlp_endpoint={masked_webhook(self.otlp_endpoint)!r}, ratio={self.ratio!r})"


@dataclass(frozen=True, slots=True)
class CallLimits:
    default_deadline_seconds: Annotated[
        float, Setting("Deadline of a call that brings none.", number(0.001, 86400))
    ] = 30.0  # fmt: skip
    quotas: Annotated[
        Path | None, Setting("Who may use how much, and whose calls go first, in YAML (docs/quotas.md).", MAYBE_PATH)
    ] = None
    max_in_flight: Annotated[int, Setting("Calls a worker holds at a time.", whole(1, 1_000_000))] = 4096
    max_in_flight_bytes: Annotated[
        int, Setting("Bytes of requests a worker holds at a time.", size(1 << 20, 1 << 40))
    ] = 1 << 30  # fmt: skip
