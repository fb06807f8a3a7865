"""One version of one model, and its life.

    START ── LOAD ──> LOADING ── READY ──> AVAILABLE ── RETIRE ──> UNLOADING ── DRAINED ──> END
                         │                     ^                       │
                         ├─ FAIL ──> FAILED    └─────── REVIVE ────────┘
                         └─ DROP ──> END

A version becomes AVAILABLE after it can serve, and UNLOADING before it can no longer: code on the loop that sees an
AVAILABLE version may lease it.
"""

from collections.abc import Callable, Mapping
from enum import Enum

from gateway.errors import GatewayError, Unavailable, UnknownVersion, VersionNotReady
from gateway.serving.arrivals import Arrivals
from gateway.serving.model_config import ModelConfig
from gateway.serving.provenance import UNKNOWN_ORIGIN, Provenance
from gateway.serving.session import Session
from gateway.tensor import TensorSpec


class VersionState(Enum):
    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"
    FAILED = "FAILED"


class VersionEvent(Enum):
    LOAD = "load"
    READY = "ready"
    FAIL = "fail"
    DROP = "drop"
    RETIRE = "retire"
    REVIVE = "revive"
    DRAINED = "drained"


MOVES: Mapping[tuple[VersionState, VersionEvent], VersionState] = {
    (VersionState.START, VersionEvent.LOAD): VersionState.LOADING,
    (VersionState.START, VersionEvent.DROP): VersionState.END,
    (VersionState.LOADING, VersionEvent.READY): VersionState.AVAILABLE,
    (VersionState.LOADING, VersionEvent.FAIL): VersionState.FAILED,
    (VersionState.LOADING, VersionEvent.DROP): VersionState.END,
    (VersionState.AVAILABLE, VersionEvent.RETIRE): VersionState.UNLOADING,
    (VersionState.UNLOADING, VersionEvent.REVIVE): VersionState.AVAILABLE,
    (VersionState.UNLOADING, VersionEvent.DRAINED): VersionState.END,
    (VersionState.FAILED, VersionEvent.DROP): VersionState.END,
}


class IllegalVersionMove(Exception):  # not RuntimeError: mypyc compiles children of Exception only
    """Raised when a version is asked for a move that its state does not allow: a fault of the caller."""


class Version:
    """A version of a model as the loop sees it. Only the loop reads and writes it.

    It has a session where it has a model file (`gateway.serving.model_kind`) and is in memory. One that `is_cold` is
    not: it serves as any other, after its load, which takes some `load_ns`. `uses` counts its leases.

    `inputs` and `outputs` are the contract (shapes with the batch dimension where it batches), `run_us` the time of a
    run of one row, which the engine keeps up to date, `memory_bytes` what its trial needed, `weights` whether the
    host's processes share its weights, and why not. `merges` is whether
    requests of several clients may share a run.
    """

    __slots__ = (
        "arrivals",
        "backlog",
        "batches",
        "config",
        "digest",
        "inputs",
        "is_cold",
        "labels",
        "leases",
        "load_ns",
        "max_batch_size",
        "memory_bytes",
        "merges",
        "model",
        "name",
        "on_idle",
        "outputs",
        "provenance",
        "reason",
        "run_us",
        "session",
        "shared_bytes",
        "state",
        "uses",
        "weights",
    )

    def __init__(self, model: str, name: str) -> None:
        self.model = model
        self.name = name
        self.digest = ""
        self.provenance = UNKNOWN_ORIGIN
        self.memory_bytes = 0
        self.weights = ""
        self.shared_bytes = 0
        self.state = VersionState.START
        self.reason = ""
        self.leases = 0
        self.uses = 0
        self.is_cold = False
        self.load_ns = 0
        self.session: Session | None = None
        self.on_idle: Callable[[Version], None] | None = None
        self.run_us = 0.0
        self.backlog = 0  # how long its queue was when it moved last, in nanoseconds; 0: short, or not known
        self.arrivals = Arrivals()
        self.config = ModelConfig(name=model)
        self._describe(self.config)

    def _describe(self, config: ModelConfig) -> None:
        self.config = config
        self.inputs: tuple[TensorSpec, ...] = config.inputs
        self.outputs: tuple[TensorSpec, ...] = config.outputs
        self.labels: Mapping[str, tuple[str, ...]] = {spec.name: spec.labels for spec in config.outputs if spec.labels}
        self.max_batch_size = config.max_batch_size
        self.batches = config.max_batch_size > 0
        self.merges = config.merges

    def equip(
        self,
        session: Session | None,
        config: ModelConfig,
        *,
        digest: str,
        run_us: float,
        memory_bytes: int = 0,
        provenance: Provenance = UNKNOWN_ORIGIN,
        weights: str = "",
        shared_bytes: int = 0,
        is_cold: bool = False,
        load_ns: int = 0,
    ) -> None:
        """Gives a loading version the parts that it serves with, and what is known of its origin."""
        self.weights = weights
        self.shared_bytes = shared_bytes
        self.is_cold = is_cold
        self.load_ns = load_ns
        self.provenance = provenance
        self.memory_bytes = memory_bytes
        self.session = session
        self.digest = digest
        self.run_us = run_us
        self._describe(config)

    def move(self, event: VersionEvent, reason: str = "") -> None:
        """Makes one move of the life cycle; `reason` says why, for a person.

        Raises: IllegalVersionMove.
        """
        target = MOVES.get((self.state, event))
        if target is None:
            raise IllegalVersionMove(
                f"model {self.model!r} version {self.name!r}: {event.value} while {self.state.value}"
            )
        self.state = target
        self.reason = reason

    def lease(self) -> None:
        """Keeps the session loaded until `release`."""
        self.leases += 1
        self.uses += 1

    def release(self) -> None:
        """Ends a lease; the end of a retired version's last lease unloads it."""
        self.leases -= 1
        if self.leases == 0 and self.state is VersionState.UNLOADING and self.on_idle is not None:
            self.on_idle(self)

    def refusal(self) -> GatewayError:
        """Returns the error for a request when this version cannot serve."""
        if self.state is VersionState.FAILED:
            return VersionNotReady(self.model, self.name, self.reason)
        if self.state is VersionState.END:
            return UnknownVersion(self.model, self.name)
        doing = "unloading" if self.state is VersionState.UNLOADING else "loading"
        return Unavailable(
            f"Request for unknown model: {self.model!r} version {self.name!r} is not at ready state: {doing}"
        )

    def __repr__(self) -> str:
        return f"Version({self.model!r}, {self.name!r}, {self.state.value}, leases={self.leases})"
