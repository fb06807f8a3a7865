"""Opens a version that was tried: its session, which has run, and its complete configuration."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from gateway.serving.candidate import Candidate, Loaded
from gateway.serving.contract import complete
from gateway.serving.execution_provider import CPU, providers_of
from gateway.serving.model_config import ModelConfig
from gateway.serving.probe import ProbeRequest, ProbeResult
from gateway.serving.session import Session, providers_with
from gateway.serving.version_session import session_of
from gateway.serving.warm_up import WarmUp, served_outputs

logger = logging.getLogger(__name__)


def open_version(
    candidate: Candidate, request: ProbeRequest, result: ProbeResult, prepared: Session | None = None
) -> Loaded:
    """Returns the version that was probed with that result, in this process; its session has run.

    `prepared` is the session of its prepared form, if there is one.

    Raises: GatewayError.
    """
    session = prepared or session_of(request, result.facts)
    config = _config(candidate, result, session, session.providers)
    warm_up = WarmUp(
        session, config.max_batch_size, request.warmups, allow_nan=request.policy.allow_nan, seed=request.seed
    )
    if session.providers == (CPU,):  # what other runs would show was seen when it was tried
        warm_up.once()
        times_us = result.run_us
    else:  # kernels are chosen, or built, by the first runs of each size
        times_us = warm_up.run().run_us
    # From here on shapes are those that clients see; the warm-up used the model's own.
    session.reshape(config.input_reshapes, config.output_reshapes, batches=config.max_batch_size > 0)
    if session.providers != (CPU,):
        logger.info("model %s version %s runs on %s", candidate.model, candidate.version, ", ".join(session.providers))
    return Loaded(
        session,
        config,
        request.local.digest,
        _run_us(times_us),
        identity_of(candidate, request),
        result.memory_bytes,
        load_ns=_load_ns(result),
    )


def describe_version(candidate: Candidate, request: ProbeRequest, result: ProbeResult) -> Loaded:
    """Returns the version that was probed with that result as it is before it is opened in this process.

    Raises: GatewayError.
    """
    return Loaded(
        None,
        _config(candidate, result, result, providers_with(request.options)),
        request.local.digest,
        _run_us(result.run_us),
        identity_of(candidate, request),
        result.memory_bytes,
        is_cold=True,
        load_ns=_load_ns(result),
    )


def _run_us(by_rows: Mapping[int, float]) -> float:
    return next((by_rows[rows] for rows in (1, 0) if rows in by_rows), 0.0)


def _load_ns(result: ProbeResult) -> int:
    """Returns what opening the version may take: its session on trial, and about as much for the first runs."""
    return int(2e6 * result.load_ms)


def _config(
    candidate: Candidate, result: ProbeResult, tensors: Session | ProbeResult, providers: Sequence[str]
) -> ModelConfig:
    """Returns the configuration of the version, completed by its tensors, with what is to be said of it.

    Raises: FailedPrecondition.
    """
    config = complete(
        candidate.source,
        candidate.model,
        inputs=tensors.inputs,
        outputs=served_outputs(tensors.outputs, result.answers, tensors.inputs),
        overridable=tensors.overridable,
        # Before IR version 4 every weight had to be listed as an input: that says nothing about what may be sent.
        offers_overridable=result.facts is not None and result.facts.ir_version >= 4,
        read_file=candidate.folder.read,
        may_batch=result.batches and result.rows_independent is not False,
        row_dependence="" if result.facts is None else result.facts.row_dependence,
        rows_independent=result.rows_independent,
        chance=_chance(result),
        providers=providers,
    )
    warnings = [*config.warnings, *result.warnings]
    if any(provider.name not in providers for provider in providers_of(candidate.source)):
        warnings.append("instance_group.kind: KIND_GPU runs on the CPU here: CUDAExecutionProvider is not installed")
    if candidate.source.sets("dynamic_batching") and not config.merges:
        warnings.append(f"requests are not merged: {config.merging.removeprefix('no: ')}")
    if config.merges and result.rows_independent is False:
        warnings.append("requests are merged, as configured, although rows of one run depend on each other")
    if result.empty_inputs:
        warnings.append(f"requests without rows or elements are refused: the model was {result.empty_inputs}")
    return replace(config, refuses_empty=result.empty_inputs, warnings=tuple(warnings))


def _chance(result: ProbeResult) -> str:
    """Returns what makes the version answer by chance; "" if neither its graph nor its first runs show that."""
    if result.facts is not None and result.facts.chance:
        return result.facts.chance
    return "the same inputs got two answers" if result.repeatable is False else ""


def identity_of(candidate: Candidate, request: ProbeRequest) -> str:
    source = candidate.source.message
    parts = [request.key("").encode(), source.SerializeToString(deterministic=True)]
    parts += [candidate.folder.read(output.label_filename) for output in source.output if output.label_filename]
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
