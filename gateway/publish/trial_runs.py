"""The runs of a version on trial: golden requests, and as many as show what it costs."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.publish.checklist import GoldenOutcome, Measured
from gateway.publish.golden_requests import GoldenRequest, difference
from gateway.replay.ensemble_runner import runner_of
from gateway.replay.run_files import EnsembleFiles, VersionFiles
from gateway.replay.run_message import SentTensor, sent
from gateway.serving.warm_up import made_up
from gateway.tensor import TensorSpec

_RUNS: Final = 100  # for the latency, and fewer of a version that takes long
_RUNS_US: Final = 20e6  # after so long
_ROWS: Final = 1


async def measured(
    files: VersionFiles | EnsembleFiles, golden: Sequence[GoldenRequest] | None
) -> tuple[Measured, GoldenOutcome | None]:
    """Returns what runs of the version have shown; of an ensemble with look-ups only what it takes and answers.

    Raises: FailedPrecondition, RunnerGone.
    """
    async with runner_of(files) as runner:
        contract = runner.contract
        if isinstance(files, EnsembleFiles) and files.look_up():
            return Measured(contract.inputs, contract.outputs, warnings=tuple(runner.probed.warnings)), None
        failures: list[str] = []
        for request in golden or ():
            answer = await runner.run(request.inputs)
            wrong = answer.error or difference(request.outputs, answer.outputs, request.tolerance)
            if wrong:
                failures.append(f"{request.name}: {wrong}")
        feed = golden[0].inputs if golden else _made_up(contract.inputs, batches=contract.batches)
        run_us: list[float] = []
        while len(run_us) < _RUNS and sum(run_us) < _RUNS_US:
            answer = await runner.run(feed)
            if answer.error:
                run_us = []
                break
            run_us.append(answer.run_ns / 1000)
        probed = runner.probed
        new = Measured(
            contract.inputs,
            contract.outputs,
            tuple(run_us),
            max(runner.peak_bytes, 0),
            probed.load_ms,
            probed.rows_independent,
            tuple(probed.warnings),
        )
        outcome = None if golden is None else GoldenOutcome(len(golden), tuple(failures))
        return new, outcome


def _made_up(specs: Sequence[TensorSpec], *, batches: bool) -> tuple[SentTensor, ...]:
    random = np.random.default_rng(0)
    feed = []
    for spec in specs:
        if not spec.optional:
            shape = tuple(_ROWS if size < 0 else size for size in spec.shape)
            feed.append(sent(spec.name, spec.datatype, made_up(spec.datatype, shape, "random", random)))
    return tuple(feed)
