"""A version to load, and the version that came of it."""

from dataclasses import dataclass

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import ConfigSource
from gateway.serving.configured_warmups import in_model_shapes, warmups
from gateway.serving.contract import MODEL_FILENAME, check_identity, session_options, thread_count
from gateway.serving.model_config import ModelConfig
from gateway.serving.model_kind import ModelKind, kind_of
from gateway.serving.model_policy import Policy
from gateway.serving.probe import ProbeRequest
from gateway.serving.provenance import UNKNOWN_ORIGIN, Provenance
from gateway.serving.repository import ModelFolder
from gateway.serving.session import Session
from loaders.loader import LocalVersion


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version to load: its place in the repository, and the configuration that holds for it.

    `pin` is the digest of the content that a route was given, "" where no route names the version.
    """

    folder: ModelFolder
    version: str
    source: ConfigSource
    fingerprint: str
    pin: str = ""

    @property
    def model(self) -> str:
        return self.folder.name

    @property
    def place(self) -> str:
        """Returns a text that names the candidate's content: by its digest where a route has it, else by its files."""
        if self.pin:
            return f"digest {self.pin}"
        named = f"{self.folder.origin!r} {self.model!r} {self.version!r} {self.fingerprint}"
        return named if self.fingerprint else ""

    @property
    def filename(self) -> str:
        return self.source.message.default_model_filename or MODEL_FILENAME

    def check(self) -> None:
        """Checks that the configuration can be read, and is this model's. Raises: FailedPrecondition."""
        if self.folder.error and self.source is self.folder.source:
            raise FailedPrecondition(self.folder.error)
        check_identity(self.source, self.model)

    @property
    def kind(self) -> ModelKind:
        """Returns the kind that the configuration is of. Raises: FailedPrecondition, where it is of none."""
        return kind_of(self.source)

    def request(self, local: LocalVersion, *, intra_threads: int, policy: Policy, timeout_s: float) -> ProbeRequest:
        """Returns the request to the probe for a copy of the candidate. Raises: FailedPrecondition."""
        source = self.source
        return ProbeRequest(
            local,
            filename=self.filename,
            intra_threads=thread_count(source, "intra_op_thread_count", intra_threads),
            inter_threads=thread_count(source, "inter_op_thread_count", 1),
            options=session_options(source),
            max_batch_size=source.message.max_batch_size if source.sets("max_batch_size") else None,
            warmups=in_model_shapes(warmups(source, self.folder.read), source),
            policy=policy,
            timeout_s=timeout_s,
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that can serve; `identity` hashes everything that it was made from (see `Pipeline.identity`).

    `weights` is whether the processes of the host share its weights, and why not. Where it `is_cold` all is known but
    its session, which is opened when a request asks for it.

    Units: `run_us` is the time of a run of one row, 0.0 where it is not known; `memory_bytes` that its trial needed,
           of which the host has `shared_bytes` once for all workers; `load_ms` from the beginning of its load,
           `load_ns` what opening it took on trial.
    """

    session: Session | None
    config: ModelConfig
    digest: str
    run_us: float
    identity: str
    memory_bytes: int = 0
    provenance: Provenance = UNKNOWN_ORIGIN
    weights: str = ""
    load_ms: float = 0.0
    shared_bytes: int = 0
    is_cold: bool = False
    load_ns: int = 0

    @property
    def opened(self) -> Session:
        """Returns the session of a version with a model file."""
        if self.session is None:
            raise ValueError(f"model {self.config.name!r} has no session")
        return self.session
