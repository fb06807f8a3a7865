"""The warm-up of an ensemble: requests of its configuration run through all steps before it serves.

1. They are calls of the lowest class, as those of a mirror: they count for nobody.
2. What may pass by itself (a quarantine, a route whose first arm failed, a busy step) keeps no ensemble from serving.
3. A version that is loaded on demand is loaded for who asks, and never for a warm-up: where the request would go to one
   that is not in memory, there is no warm-up.
"""

import asyncio
import logging
from time import monotonic_ns
from typing import Final

import numpy as np

from gateway.errors import Cancelled, Code, DeadlineExceeded, FailedPrecondition, GatewayError, VersionNotReady
from gateway.pb import inference_pb2
from gateway.serving.call import UNCACHED, Call
from gateway.serving.ensemble_graph import read_graph
from gateway.serving.ensemble_queue import EnsembleQueue, StepHost
from gateway.serving.mirroring import LAST_CLASS
from gateway.serving.model_config import ModelConfig, Warmup
from gateway.serving.model_kind import ModelKind
from gateway.serving.version import Version
from gateway.serving.warm_up import given_data
from gateway.tensor import Array

logger = logging.getLogger(__name__)

_LIMIT_S: Final = 60.0  # of one request
# Beside what clients may repeat: how a step's model is at the moment, and not how it fits.
_PASSING: Final = (VersionNotReady, DeadlineExceeded, Cancelled)


class WarmUpEnd:
    """The receiver of one request: `ended` is done once it is answered."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def submitted(self, call: Call) -> None:
        """Does nothing: the request waits as long as it takes."""

    def withdrawn(self, call: Call) -> None:
        """Does nothing: who withdraws it waits for no answer."""

    def answered(self, call: Call) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def warm_ensemble(host: StepHost, model: str, config: ModelConfig) -> None:
    """Runs each request that the configuration has, as often as it says, one after another.

    Raises: FailedPrecondition naming the request and why it failed. One that failed of what may pass is not repeated,
            and is told in the log alone.
    """
    if not config.warmups:
        return
    cold = _cold_step(host, config, set())
    if cold:
        logger.info("warm-up skipped: model=%s reason=%s", model, f"{cold} is not in memory")
        return
    version = Version(model, "warm-up")
    version.equip(None, config, digest="", run_us=0.0)
    queue = EnsembleQueue(version, host)
    try:
        for warmup in config.warmups:
            # Up to 2^26 elements are made for each input: not where requests are answered.
            arrays = await asyncio.to_thread(_arrays, version, warmup)
            for _ in range(warmup.count):
                error = await _run(queue, _call(version, warmup, arrays))
                if error is None:
                    continue
                if not error.retryable and not isinstance(error, _PASSING):
                    raise FailedPrecondition(f"model_warmup {warmup.name!r}: {error}")
                logger.warning("warm-up failed: model=%s name=%s reason=%s", model, warmup.name, error)
                break
    finally:
        queue.end()


def _cold_step(host: StepHost, config: ModelConfig, seen: set[Version]) -> str:
    """Returns the first version that a step, or one within it, would run and that is not in memory; "" if all are."""
    for step in read_graph(inference_pb2.ModelConfig.FromString(config.message)).steps:
        call = Call(step.model, step.version, "warm-up", WarmUpEnd())
        call.level = LAST_CLASS
        try:
            version = host.begin_step(call, call.attributes())
        except GatewayError:
            continue  # the warm-up will tell
        host.finish_step(call, Code.OK, logged=False)
        if version.is_cold:
            return f"version {version.name!r} of {step.label}"
        if version.config.kind is ModelKind.ENSEMBLE and version not in seen:
            seen.add(version)
            within = _cold_step(host, version.config, seen)
            if within:
                return within
    return ""


def _arrays(version: Version, warmup: Warmup) -> list[Array | None]:
    """Returns the inputs of the request, None for one that it leaves out."""
    random = np.random.default_rng(0)
    return [
        given_data(warmup.inputs[spec.name], warmup.batch_size, random) if spec.name in warmup.inputs else None
        for spec in version.inputs
    ]


def _call(version: Version, warmup: Warmup, arrays: list[Array | None]) -> Call:
    call = Call(version.model, "", "warm-up", WarmUpEnd(), deadline_ns=monotonic_ns() + int(_LIMIT_S * 1e9))
    call.version, call.level, call.cache_key = version, LAST_CLASS, UNCACHED
    call.inputs = arrays
    call.shapes = [None if array is None else array.shape for array in arrays]
    call.rows = max(1, warmup.batch_size)
    return call


async def _run(queue: EnsembleQueue, call: Call) -> GatewayError | None:
    """Returns the error of the call, None where it was answered. Order: nothing of it runs any more."""
    receiver = call.receiver
    assert isinstance(receiver, WarmUpEnd)
    try:
        async with asyncio.timeout(_LIMIT_S):
            queue.put(call)
            await receiver.ended
    except TimeoutError:
        call.fail(DeadlineExceeded(f"the steps took longer than {_LIMIT_S:g} s"))
    finally:
        if not call.answered:
            call.fail(Cancelled("the load ends"))
        queue.forget(call)
    return call.error
