"""The load pipeline, from a version directory to a session that has run: fetch, probe, open, warm up.

None of it runs on the loop. Files and sessions are handled on threads, and a model first runs in a process of its own,
so that a hostile one cannot harm the worker (`gateway.serving.probe`).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TypeVar

from gateway.errors import FailedPrecondition, GatewayError, Internal, Unavailable
from gateway.serving.config_source import ConfigSource
from gateway.serving.contract import (
    MODEL_FILENAME,
    check_identity,
    complete,
    in_model_shapes,
    session_options,
    thread_count,
    warmups,
)
from gateway.serving.declaration import Describe, declared, declared_digest
from gateway.serving.execution_provider import CPU, providers_of
from gateway.serving.model_config import ModelConfig
from gateway.serving.model_kind import ModelKind, kind_of
from gateway.serving.model_policy import Policy
from gateway.serving.preparer import Preparer
from gateway.serving.probe import Prober, ProbeRequest, ProbeResult
from gateway.serving.provenance import MAX_RECORD_BYTES, UNKNOWN_ORIGIN, Provenance, provenance, record_name
from gateway.serving.repository import ModelFolder
from gateway.serving.session import Session
from gateway.serving.version_session import session_of
from gateway.serving.warm_up import WarmUp, served_outputs
from loaders.errors import LoaderError
from loaders.loader import Loader, LocalVersion
from loaders.model_signature import TrustedKeys

logger = logging.getLogger(__name__)

T = TypeVar("T")


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

    def check_runs_alone(self) -> None:
        """Checks that the version is a model that a session runs. Raises: FailedPrecondition, if it is not."""
        if not self.kind.has_file:
            raise FailedPrecondition(
                f"model {self.model!r} is of {self.kind.shown!r}: it runs in the gateway that serves it, and not alone"
            )

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

    `weights` is whether the processes of the host share its weights, and why not.

    Units: `run_us` is the time of a run of one row, 0.0 where it is not known; `memory_bytes` that its trial needed.
    """

    session: Session | None
    config: ModelConfig
    digest: str
    run_us: float
    identity: str
    memory_bytes: int = 0
    provenance: Provenance = UNKNOWN_ORIGIN
    weights: str = ""

    @property
    def opened(self) -> Session:
        """Returns the session of a version with a model file."""
        if self.session is None:
            raise ValueError(f"model {self.config.name!r} has no session")
        return self.session


class Pipeline:
    """Loads versions, a few at a time; with `trusted_keys` only those that one of the keys has signed.

    With a `preparer` the weights of large versions are shared with the other processes of the host.
    """

    def __init__(
        self,
        loader: Loader,
        prober: Prober,
        *,
        intra_threads: int,
        policy: Policy | None = None,
        loads_at_once: int = 2,
        probe_timeout_s: float = 60.0,
        trusted_keys: TrustedKeys | None = None,
        preparer: Preparer | None = None,
    ) -> None:
        self._loader = loader
        self._preparer = preparer
        self._prober = prober
        self._intra_threads = intra_threads
        self._policy = policy or Policy()
        self._probe_timeout_s = probe_timeout_s
        self._trusted_keys = trusted_keys
        self._describes: dict[ModelKind, Describe] = {}
        self._permits = asyncio.Semaphore(loads_at_once)
        self._threads = ThreadPoolExecutor(loads_at_once, thread_name_prefix="load")

    def describe_by(self, kind: ModelKind, describe: Describe) -> None:
        """Has `describe` complete the configuration of each version of that kind, which has no model file.

        Order: before the first load.
        """
        self._describes[kind] = describe

    async def load(
        self, candidate: Candidate, *, again: bool = False, on_trial: Callable[[], None] | None = None
    ) -> Loaded:
        """Returns the loaded candidate; its session runs from a verified copy that nobody writes to.

        A version that the host knows to be good does not queue behind those on trial; `on_trial` is called before a
        trial or a preparation begins. With `again` those that took too long before are repeated.

        Raises: GatewayError; its text is the reason, fit to be shown.
        """
        candidate.check()
        if not candidate.kind.has_file:
            return await self._declared(candidate)
        async with self._permits:
            request = await self._on_thread(partial(self._request, candidate))
        result = await self._prober.known(request, again=again)
        on_trial = on_trial or _nothing
        if result is None:
            on_trial()
            result = await self._prober.probe(request, again=again)
        if not result.ok:
            raise FailedPrecondition(result.reason)
        weights = ""
        if self._preparer is not None:
            shared, weights = await self._shared(self._preparer, candidate, request, result, again, on_trial)
            if shared is not None:
                return shared
        async with self._permits:
            loaded = await self._on_thread(partial(self._opened, candidate, request, result))
        return replace(loaded, weights=weights)

    async def _shared(
        self,
        preparer: Preparer,
        candidate: Candidate,
        request: ProbeRequest,
        result: ProbeResult,
        again: bool,
        on_trial: Callable[[], None],
    ) -> tuple[Loaded | None, str]:
        """Returns the version in its prepared form, which is made if it is not there; else None, and why not."""
        why = preparer.objection(request, result)
        if not why:
            use = partial(self._opened, candidate, request, result)
            open_prepared = partial(preparer.opened, request, result, use)
            async with self._permits:
                loaded = await self._on_thread(open_prepared)
            if loaded is not None:
                return replace(loaded, weights="shared"), ""
            on_trial()
            why = await preparer.prepare(request, result, again=again)
        if not why:
            async with self._permits:
                loaded = await self._on_thread(open_prepared)
            if loaded is not None:
                return replace(loaded, weights="shared"), ""
            why = "its prepared form could not be loaded, see the log"
        return None, f"its own: {why}"

    async def identity(self, candidate: Candidate) -> str:
        """Returns a hash of the candidate's files, configuration, labels and warm-up data.

        It changes exactly when a load could give another version.

        Raises: GatewayError, where the candidate cannot be read.
        """
        async with self._permits:
            if not candidate.kind.has_file:
                return await self._on_thread(lambda: declared_digest(candidate.source, candidate.folder))
            return await self._on_thread(lambda: _identity(candidate, self._request(candidate)))

    async def digest(self, candidate: Candidate) -> str:
        """Returns the digest of the repository's present content, whatever the pin says. Raises: GatewayError."""
        async with self._permits:
            return await self._on_thread(lambda: self._loader.fetch(candidate.model, candidate.version).digest)

    def progress(self, model: str, version: str) -> str:
        """Returns how far a copy of the version is that takes long; "" where none is under way."""
        return self._loader.progress(model, version)

    async def aclose(self) -> None:
        """Lets no further load begin, and ends the trials."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._prober.aclose()

    async def _declared(self, candidate: Candidate) -> Loaded:
        """Returns a version without a model file, whose configuration is its content."""
        describe = self._describes.get(candidate.kind)
        if describe is None:
            raise FailedPrecondition(f"a model of {candidate.kind.shown!r} cannot be served here")
        source, folder = candidate.source, candidate.folder
        async with self._permits:
            config = await self._on_thread(lambda: declared(source, folder))
            digest = await self._on_thread(lambda: declared_digest(source, folder))
        config = await describe(candidate.model, source, config)
        return Loaded(None, config, digest, 0.0, digest)

    def _opened(
        self, candidate: Candidate, request: ProbeRequest, result: ProbeResult, prepared: Session | None = None
    ) -> Loaded:
        """Returns the version, with what is known of its origin."""
        loaded = open_version(candidate, request, result, prepared)
        try:
            record = candidate.folder.read_file(record_name(candidate.version), MAX_RECORD_BYTES)
        except LoaderError:
            record = None  # nobody published it so, or the source is away
        checked = self._trusted_keys is not None
        origin = provenance(request.local, loaded.opened.metadata, record, signature_checked=checked)
        return replace(loaded, provenance=origin)

    def _request(self, candidate: Candidate) -> ProbeRequest:
        """Returns the request to the probe for a copy of the candidate."""
        candidate.check()
        local = self._loader.fetch(candidate.model, candidate.version, digest=candidate.pin or None)
        if self._trusted_keys is not None:
            self._trusted_keys.check(local)
        return candidate.request(
            local, intra_threads=self._intra_threads, policy=self._policy, timeout_s=self._probe_timeout_s
        )

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(_explained, work))


def _nothing() -> None:
    """Does what is done before a trial that nobody wants to know of."""


def _explained(work: Callable[[], T]) -> T:
    """Returns what `work` returns; turns an error that it raises into a reason."""
    try:
        return work()
    except LoaderError as error:
        raise (Unavailable if error.retryable else FailedPrecondition)(str(error)) from error
    except OSError as error:
        raise FailedPrecondition(f"files cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FailedPrecondition("there is not enough memory for the version") from error


def open_version(
    candidate: Candidate, request: ProbeRequest, result: ProbeResult, prepared: Session | None = None
) -> Loaded:
    """Returns the version that was probed with that result, in this process; its session has run.

    `prepared` is the session of its prepared form, if there is one.

    Raises: GatewayError.
    """
    session = prepared or session_of(request, result.facts)
    config = complete(
        candidate.source,
        candidate.model,
        inputs=session.inputs,
        outputs=served_outputs(session.outputs, result.answers, session.inputs),
        overridable=session.overridable,
        # Before IR version 4 every weight had to be listed as an input: that says nothing about what may be sent.
        offers_overridable=result.facts is not None and result.facts.ir_version >= 4,
        read_file=candidate.folder.read,
        may_batch=result.batches and result.rows_independent is not False,
        row_dependence="" if result.facts is None else result.facts.row_dependence,
        rows_independent=result.rows_independent,
        chance=_chance(result),
        providers=session.providers,
    )
    warm_up = WarmUp(
        session, config.max_batch_size, request.warmups, allow_nan=request.policy.allow_nan, seed=request.seed
    )
    if prepared is None:
        times_us: Mapping[int, float] = warm_up.run().run_us
    else:  # what the other runs would show was seen when it was tried, and when it was prepared
        warm_up.once()
        times_us = result.run_us
    # From here on shapes are those that clients see; the warm-up used the model's own.
    session.reshape(config.input_reshapes, config.output_reshapes, batches=config.max_batch_size > 0)
    run_us = next((times_us[rows] for rows in (1, 0) if rows in times_us), 0.0)
    warnings = [*config.warnings, *result.warnings]
    if session.providers != (CPU,):
        logger.info("model %s version %s runs on %s", candidate.model, candidate.version, ", ".join(session.providers))
    if any(provider.name not in session.providers for provider in providers_of(candidate.source)):
        warnings.append("instance_group.kind: KIND_GPU runs on the CPU here: CUDAExecutionProvider is not installed")
    if candidate.source.sets("dynamic_batching") and not config.merges:
        warnings.append(f"requests are not merged: {config.merging.removeprefix('no: ')}")
    if config.merges and result.rows_independent is False:
        warnings.append("requests are merged, as configured, although rows of one run depend on each other")
    if result.empty_inputs:
        warnings.append(f"requests without rows or elements are refused: the model was {result.empty_inputs}")
    config = replace(config, refuses_empty=result.empty_inputs, warnings=tuple(warnings))
    return Loaded(session, config, request.local.digest, run_us, _identity(candidate, request), result.memory_bytes)


def _chance(result: ProbeResult) -> str:
    """Returns what makes the version answer by chance; "" if neither its graph nor its first runs show that."""
    if result.facts is not None and result.facts.chance:
        return result.facts.chance
    return "the same inputs got two answers" if result.repeatable is False else ""


def _identity(candidate: Candidate, request: ProbeRequest) -> str:
    source = candidate.source.message
    parts = [request.key("").encode(), source.SerializeToString(deterministic=True)]
    parts += [candidate.folder.read(output.label_filename) for output in source.output if output.label_filename]
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def reason_of(error: GatewayError) -> str:
    """Returns why a load failed, as text for an operator."""
    return "internal error, see the log" if isinstance(error, Internal) else str(error)[:1000]
