"""The settings of a worker's prediction log, as configuration and routes have them."""

from collections.abc import Mapping

from gateway.records.worker.back_pressure import LossPolicy
from gateway.records.worker.prediction_log import LogLimits, PredictionLog
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import InputMode
from gateway.records.worker.sampling import Sampling
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.log_policy import LogPolicy
from gateway.runtime.child import Settings
from gateway.runtime.redaction_config import RedactionConfig
from gateway.runtime.sections import LogOptions
from gateway.runtime.worker_registration import host_name


def make_prediction_log(settings: Settings) -> PredictionLog:
    """Returns the log of a worker, not running yet."""
    config = settings.config
    return PredictionLog(
        config.wal_dir,
        worker=f"worker-{settings.slot}",
        gateway=host_name(),
        boot=settings.boot,
        limits=prediction_log_limits(config.log),
        sampling=Sampling(rate=config.log.rate),
        redaction=redaction_of(config.redaction),
    )


def prediction_log_limits(config: LogOptions) -> LogLimits:
    return LogLimits(
        max_bytes=config.buffer_bytes, policy=LossPolicy(config.policy), block_s=config.block_milliseconds / 1000
    )


def redaction_of(config: RedactionConfig) -> Redaction:
    """Returns the rules of the configuration, to be carried out."""
    value = config.value()
    listed = value.get("listed", {})
    return Redaction(
        rules=config.rules,
        inputs=InputMode(value.get("inputs", "all")),
        listed=frozenset((model, tensor) for model, tensors in listed.items() for tensor in tensors),
        key=bytes.fromhex(config.key),
        key_id=value.get("key-id", "1"),
        revision=value.get("revision", 0),
    )


def samplings(snapshot: Snapshot, rate: float) -> Mapping[str, Sampling]:
    """Returns how records are sampled, by model, where its route says so; `rate` where the route gives none."""
    policies = ((model, compiled.route.document.log) for model, compiled in snapshot.routes.items())
    return {model: _sampling(policy, rate) for model, policy in policies if policy is not None}


def _sampling(policy: LogPolicy, rate: float) -> Sampling:
    return Sampling(
        rate=rate if policy.rate is None else policy.rate / BUCKETS,
        by_arm={arm: share / BUCKETS for arm, share in policy.arms},
        keep_errors=policy.keep_errors,
        keep_first=policy.keep_first,
        keep_score_below=policy.keep_score_below,
        keep_disagreement=policy.keep_disagreement,
    )
