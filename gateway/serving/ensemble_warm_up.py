"""The warm-up of an ensemble: requests of its configuration run through all steps before it serves.

They are calls of the lowest class, as those of a mirror: they count for nobody.
"""

import asyncio
import logging
from time import monotonic_ns
from typing import Final

import numpy as np

from gateway.errors import Cancelled, DeadlineExceeded, FailedPrecondition, GatewayError
from gateway.serving.call import UNCACHED, Call
from gateway.serving.ensemble_queue import EnsembleQueue, StepHost
from gateway.serving.mirroring import LAST_CLASS
from gateway.serving.model_config import ModelConfig, Warmup
from gateway.serving.version import Version
from gateway.serving.warm_up import given_data

logger = logging.getLogger(__name__)

_LIMIT_S: Final = 60.0  # of one request


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

    Raises: FailedPrecondition naming the request and why it failed. One that may succeed when it is repeated, as a step
            has no version at the moment, is told in the log alone.
    """
    if not config.warmups:
        return
    version = Version(model, "warm-up")
    version.equip(None, config, digest="", run_us=0.0)
    queue = EnsembleQueue(version, host)
    random = np.random.default_rng(0)
    try:
        for warmup in config.warmups:
            for _ in range(warmup.count):
                error = await _run(queue, _call(version, warmup, random))
                if error is not None and not error.retryable:
                    raise FailedPrecondition(f"model_warmup {warmup.name!r}: {error}")
                if error is not None:
                    logger.warning("warm-up failed: model=%s name=%s reason=%s", model, warmup.name, error)
    finally:
        queue.end()


def _call(version: Version, warmup: Warmup, random: np.random.Generator) -> Call:
    call = Call(version.model, "", "warm-up", WarmUpEnd(), deadline_ns=monotonic_ns() + int(_LIMIT_S * 1e9))
    call.version, call.level, call.cache_key = version, LAST_CLASS, UNCACHED
    arrays = [
        given_data(warmup.inputs[spec.name], warmup.batch_size, random) if spec.name in warmup.inputs else None
        for spec in version.inputs
    ]
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
