"""Runs an ensemble: each version that its steps name in a process of its own, one step after another."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

import msgspec

from gateway.errors import FailedPrecondition
from gateway.replay.run_files import EnsembleFiles, LookUpFiles, VersionFiles
from gateway.replay.run_message import RunAnswer, RunContract, SentTensor
from gateway.replay.version_runner import RunLimits, Runner, VersionRunner
from gateway.serving.ensemble_contract import StepContract, check_contracts
from gateway.serving.ensemble_loads import logs_steps
from gateway.serving.probe import Prober, ProbeResult


class EnsembleRunner(Runner[EnsembleFiles]):
    """One ensemble that can be run, as a `VersionRunner` is a version. Use it as a context.

    Steps that name the same version share its process. One with a step that looks its answers up can be opened, which
    checks that all fits together, and not be run. Times and memory are the sums of the steps': nothing runs side
    by side here, and nothing is merged.
    """

    def __init__(self, files: EnsembleFiles, limits: RunLimits | None = None, prober: Prober | None = None) -> None:
        super().__init__(files, limits, prober)
        self._stack = AsyncExitStack()
        self._runners: dict[tuple[str, str, str], AnyRunner] = {}
        self._steps: tuple[AnyRunner | LookUpFiles, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """Returns the most memory that the steps' versions held, added up."""
        return sum(runner.peak_bytes for runner in self._runners.values())

    async def __aenter__(self) -> Self:
        """Raises: FailedPrecondition naming the step that cannot be run, or what does not fit."""
        files = self._files
        logs_steps(files.config)
        async with AsyncExitStack() as stack:
            self._steps = tuple([await self._opened(place, stack) for place in range(len(files.steps))])
            config = files.config
            limit = config.max_request_rows if config.max_batch_size else 0
            contracts = [_contract_of(step) for step in self._steps]
            check_contracts(files.graph, config.inputs, config.outputs, limit, contracts)
            self.contract = RunContract(config.inputs, config.outputs, config.max_batch_size > 0, limit)
            self.probed = self._together()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self, tensors: Sequence[SentTensor]) -> RunAnswer:
        """Returns the answer to these inputs; where a step fails, its error with the step before it.

        Raises: RunnerGone, FailedPrecondition (a step looks its answers up).
        """
        graph = self._files.graph
        numbers = {name: number for number, name in enumerate(graph.tensors)}
        known = {numbers[tensor.name]: tensor for tensor in tensors if tensor.name in numbers}
        run_ns = 0
        for place in graph.order:
            step = graph.steps[place]
            feed = [_named(known[number], own) for own, number in step.inputs.items() if number in known]
            runner = self._steps[place]
            if isinstance(runner, LookUpFiles):
                raise FailedPrecondition(self._files.look_up())
            answer = await runner.run(feed)
            if answer.error:
                return RunAnswer(error=f"{step.label}: {answer.error}")
            run_ns += answer.run_ns
            known |= {step.outputs[one.name]: one for one in answer.outputs if one.name in step.outputs}
        specs = zip(graph.answers, self._files.config.outputs, strict=True)
        return RunAnswer(tuple(_named(known[number], spec.name) for number, spec in specs), run_ns=run_ns)

    async def _opened(self, place: int, stack: AsyncExitStack) -> "AnyRunner | LookUpFiles":
        step, files = self._files.graph.steps[place], self._files.steps[place]
        if isinstance(files, LookUpFiles):
            return files
        key = (step.model, files.candidate.version, files.digest)
        runner = self._runners.get(key)
        if runner is None:
            runner = runner_of(files, self._limits, self._prober)
            try:
                await stack.enter_async_context(runner)
            except FailedPrecondition as error:
                raise FailedPrecondition(f"{step.label}: {error}") from error
            self._runners[key] = runner
        return runner

    def _together(self) -> ProbeResult:
        """Returns what the first runs of all steps have shown."""
        independent = {runner.probed.rows_independent for runner in self._runners.values()}
        own = self._files.config.warnings
        return ProbeResult(
            ok=True,
            load_ms=sum(runner.probed.load_ms for runner in self._runners.values()),
            rows_independent=False if False in independent else None if None in independent else True,
            warnings=tuple(
                dict.fromkeys([*own, *(text for runner in self._runners.values() for text in runner.probed.warnings)])
            ),
        )


AnyRunner = VersionRunner | EnsembleRunner


def runner_of(
    files: VersionFiles | EnsembleFiles, limits: RunLimits | None = None, prober: Prober | None = None
) -> AnyRunner:
    """Returns what runs these files, to be used as a context."""
    if isinstance(files, EnsembleFiles):
        return EnsembleRunner(files, limits, prober)
    return VersionRunner(files, limits, prober)


def _contract_of(step: AnyRunner | LookUpFiles) -> StepContract:
    """Returns what the version takes and answers, as a step."""
    if isinstance(step, LookUpFiles):
        config = step.config
        most = config.max_request_rows if config.max_batch_size else 0
        return StepContract(step.candidate.version, config.inputs, config.outputs, most)
    contract = step.contract
    return StepContract(step.version, contract.inputs, contract.outputs, contract.max_rows if contract.batches else 0)


def _named(tensor: SentTensor, name: str) -> SentTensor:
    return tensor if tensor.name == name else msgspec.structs.replace(tensor, name=name)
