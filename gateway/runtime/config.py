"""The configuration of one gateway: frozen, and handed to every process as one line of JSON."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from gateway.runtime.access_options import AccessOptions
from gateway.runtime.options import OPTIONS
from gateway.runtime.protection import TlsOptions
from gateway.runtime.redaction_config import SECTION as REDACTION
from gateway.runtime.redaction_config import RedactionConfig
from gateway.runtime.sections import (
    CallLimits,
    DriftOptions,
    EventOptions,
    FeatureOptions,
    ListenOptions,
    LogOptions,
    ModelOptions,
    ProcessOptions,
    StoreOptions,
    TraceOptions,
)

# A unix socket's path has 108 bytes with its closing zero, 104 on macOS; the longest name of ours is "worker-255.sock"
# with a suffix while it is being replaced.
_SOCKET_PATH_LIMIT: Final = 107 if sys.platform == "linux" else 103
_LONGEST_SOCKET_NAME: Final = "worker-255.sock.4194304"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a gateway; a component is given its section.

    `warnings` are for the operator to read once, at start.
    """

    models: ModelOptions = field(default_factory=ModelOptions)
    process: ProcessOptions = field(default_factory=ProcessOptions)
    listen: ListenOptions = field(default_factory=ListenOptions)
    tls: TlsOptions = field(default_factory=TlsOptions)
    access: AccessOptions = field(default_factory=AccessOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    events: EventOptions = field(default_factory=EventOptions)
    log: LogOptions = field(default_factory=LogOptions)
    drift: DriftOptions = field(default_factory=DriftOptions)
    traces: TraceOptions = field(default_factory=TraceOptions)
    limits: CallLimits = field(default_factory=CallLimits)
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
        """What operators asked of models by hand, the key of feedback tokens, and the last quotas that were read."""
        return self.process.data_dir / "state"

    @property
    def token_key_file(self) -> Path:
        """The key that all workers of the host sign feedback tokens with."""
        return self.state_dir / "token.key"

    @property
    def access_dir(self) -> Path:
        """What was last read of the files that say who may do what, for a process that starts while they are broken."""
        return self.state_dir / "access"

    @property
    def content_dir(self) -> Path:
        """Verified copies of model files."""
        return self.process.data_dir / "content"

    @property
    def prepared_dir(self) -> Path:
        """Models in the form that workers map."""
        return self.process.data_dir / "prepared"

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

    def with_ports(self, numbers: Mapping[str, int]) -> "Config":
        """Returns the configuration with the ports that were reserved, by the names of their options."""
        listen = self.listen
        reserved: dict[str, Any] = {option.replace("-", "_"): number for option, number in numbers.items()}
        return replace(self, listen=replace(listen, **reserved))

    @property
    def ports(self) -> dict[str, int]:
        """The ports that are served, by the names of their options; 0: any."""
        listen = self.listen
        ports = {"grpc-port": listen.grpc_port, "metrics-port": listen.metrics_port}
        if listen.rest_apart:
            ports["http-port"] = listen.http_port
        if listen.control_port >= 0:
            ports["control-port"] = listen.control_port
        return ports

    @property
    def operators_host(self) -> str:
        """The address of the operators' port."""
        return self.listen.metrics_address or self.listen.host

    @property
    def elsewhere(self) -> dict[str, str]:
        """The addresses of those of `ports` that are not at `listen.host`."""
        return {"metrics-port": self.operators_host}

    def to_json(self) -> str:
        """Returns one line that `from_json` reads back; it holds the secrets, so it is for a child's standard input."""
        return encode(self).decode()

    def dump(self) -> dict[str, object]:
        """Returns every option by its name, secrets masked; for people."""
        shown = {o.name: o.masked(getattr(getattr(self, o.section), o.field)) for o in OPTIONS}
        if self.redaction.document:
            shown[REDACTION] = self.redaction.dump()
        return {name: str(value) if isinstance(value, Path) else value for name, value in shown.items()}


def encode(value: object) -> bytes:
    """Returns a configuration, or what holds one, as JSON."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(line: str | bytes, type_: type[_T]) -> _T:
    """Returns what `encode` wrote. Raises: msgspec.MsgspecError for anything else."""
    return msgspec.json.decode(line, type=type_, dec_hook=_path)


def from_json(line: str | bytes) -> Config:
    """Returns the configuration that `to_json` wrote. Raises: msgspec.MsgspecError for anything else."""
    return decode(line, Config)


def _path(type_: type, value: Any) -> object:
    if type_ is not Path:
        raise NotImplementedError(f"{type_} in a configuration")
    return Path(value)
