"""The loads of ensembles: one can serve once all that its steps name can, and fits together.

1. An ensemble waits for the loads of its steps' models that are under way; one that is missing or has failed leaves it
   FAILED with that reason.
2. What failed so is tried again when one of these models gets a version that serves: nobody has to ask for it.
3. Ensembles may be steps of ensembles, `MOST_LEVELS` deep, as long as one request makes no more than `MOST_CALLS`
   calls; one within itself is refused.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from gateway.errors import FailedPrecondition, GatewayError, Unavailable
from gateway.pb import inference_pb2
from gateway.serving.config_source import ConfigSource
from gateway.serving.ensemble_contract import StepContract, check_contracts, contract_of
from gateway.serving.ensemble_graph import MOST_CALLS, EnsembleGraph, read_graph
from gateway.serving.model_config import ModelConfig
from gateway.serving.model_kind import ModelKind
from gateway.serving.version import Version, VersionState

MOST_LEVELS: Final = 8
LOG_STEPS: Final = "log_steps"  # the parameter that asks for records of the steps
# What a session does, or a batcher, has no meaning for what only calls others.
_IDLE: Final = ("instance_group", "optimization", "default_model_filename")
# What Triton does for an ensemble as a whole, and why it is done for its steps alone.
_OF_STEPS: Final = {
    "response_cache": (
        "which versions answer is decided for each step of each request, and an answer that is kept would not follow"
    ),
}


# Runs the warm-up of an ensemble that fits together. Raises: GatewayError, where it cannot serve.
Warm = Callable[[str, ModelConfig], Awaitable[None]]


class StepModels(Protocol):
    """The part of the catalog that ensembles need."""

    def version(self, model: str, name: str) -> Version: ...

    def newest(self, model: str) -> Version: ...

    def is_loading(self, model: str) -> bool:
        """Whether a load of one of the model's versions has begun, and has not ended."""

    def retry(self, model: str) -> None:
        """Loads the model's versions that failed again, now."""

    def subscribe(self, callback: Callable[[Version], None]) -> Callable[[], None]: ...


class EnsembleLoads:
    """Says of each ensemble whether it can serve. It is made and used on the loop."""

    def __init__(self, catalog: StepModels, warm: Warm | None = None) -> None:
        """With `warm` the requests of `model_warmup` run through an ensemble before it serves."""
        self._catalog = catalog
        self._warm = warm
        # The models of the steps of each ensemble that was looked at, and how many steps each of them has.
        self._steps: dict[str, Mapping[str, int]] = {}
        self._failed: set[str] = set()
        self._changed: list[asyncio.Future[None]] = []
        self._available: set[Version] = set()
        catalog.subscribe(self._note)

    async def describe(self, model: str, source: ConfigSource, config: ModelConfig) -> ModelConfig:
        """Returns the ensemble's configuration once its steps can serve.

        Raises: FailedPrecondition naming the step and the reason.
        """
        graph = read_graph(source.message)
        logs_steps(config)
        self._steps[model] = Counter(step.model for step in graph.steps)
        self._failed.discard(model)
        try:
            self._check_extent(model)
            contracts = [await self._contract(graph, place) for place in range(len(graph.steps))]
            # A step that was waited for last may have changed what the one before it was looked at for.
            contracts = [self._present(graph, place) for place in range(len(contracts))]
            limit = config.max_request_rows if config.max_batch_size else 0
            check_contracts(graph, config.inputs, config.outputs, limit, contracts)
            if self._warm is not None:
                await self._warm(model, config)
        except GatewayError:
            self._failed.add(model)
            raise
        return replace(config, caches=False, warnings=(*config.warnings, *_warnings(source, config)))

    async def _contract(self, graph: EnsembleGraph, place: int) -> StepContract:
        """Returns what the step's model takes and answers, once its load has ended."""
        step = graph.steps[place]
        while True:
            try:
                return self._present(graph, place)
            except FailedPrecondition:
                if not self._catalog.is_loading(step.model):
                    raise
            await self._change()

    def _present(self, graph: EnsembleGraph, place: int) -> StepContract:
        """Returns what the step's model takes and answers now. Raises: FailedPrecondition, if nothing of it serves."""
        step = graph.steps[place]
        try:
            version = self._catalog.version(step.model, step.version) if step.version else None
            return contract_of(version or self._catalog.newest(step.model))
        except GatewayError as error:
            raise FailedPrecondition(f"{step.label}: {error}") from error

    def _check_extent(self, model: str) -> None:
        """Raises: FailedPrecondition, if the ensemble is within itself, nested too deep, or makes too many calls."""
        _, calls = self._extent(model, (), {})
        if calls > MOST_CALLS:
            raise FailedPrecondition(
                f"one request would make {calls} calls, those of the ensembles within it included: {MOST_CALLS} at most"
            )

    def _extent(
        self, model: str, above: tuple[str, ...], known: dict[str, tuple[tuple[str, ...], int]]
    ) -> tuple[tuple[str, ...], int]:
        """Returns the longest way down from an ensemble, itself first, and the calls of one of its requests.

        `above` leads to it; `known` has what was returned of others, so that each is looked at once.
        """
        path = (*above, model)
        longest: tuple[str, ...] = ()
        calls = 0
        for step, times in self._steps[model].items():
            if step == path[0]:
                raise FailedPrecondition(f"the ensemble is a step within itself: {' > '.join((*path, step))}")
            calls += times
            if step not in self._steps or step in path:
                continue
            if step not in known and len(path) < MOST_LEVELS:
                known[step] = self._extent(step, path, known)
            below, within = known.get(step, ((step,), 0))
            if len(path) + len(below) > MOST_LEVELS:
                way = " > ".join((*path, *below))
                raise FailedPrecondition(f"ensembles within ensembles are {MOST_LEVELS} deep at most: {way}")
            longest = max(longest, below, key=len)
            calls += times * within
        return (model, *longest), calls

    async def _change(self) -> None:
        """Returns when the state of some version has changed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(future)
        await future

    def _note(self, version: Version) -> None:
        if version.config.kind is not ModelKind.ENSEMBLE and version.state is VersionState.AVAILABLE:
            self._steps.pop(version.model, None)  # it was one, perhaps
            self._failed.discard(version.model)
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        # One that has come into memory, or left it, is what it was.
        is_new = version.state is VersionState.AVAILABLE and version not in self._available
        if version.state is VersionState.AVAILABLE:
            self._available.add(version)
        else:
            self._available.discard(version)
        if is_new and self._failed:
            loop = asyncio.get_running_loop()
            for model in [model for model in self._failed if version.model in self._steps[model]]:
                loop.call_soon(self._catalog.retry, model)


def check_ready(catalog: StepModels, version: Version) -> None:
    """Checks that all steps of an ensemble, and theirs, have a version that serves now; of another version nothing.

    Raises: Unavailable naming the step.
    """
    _check_ready(catalog, version, set())


def shortfall(catalog: StepModels, version: Version) -> str:
    """Returns why a version that is AVAILABLE cannot serve now: a step of an ensemble has no version; "" if it can."""
    try:
        check_ready(catalog, version)
    except Unavailable as error:
        return f"not ready: {error}"
    return ""


def _check_ready(catalog: StepModels, version: Version, seen: set[Version]) -> None:
    """As `check_ready`, but for the versions that were `seen`: many steps may be of one ensemble."""
    if version.config.kind is not ModelKind.ENSEMBLE or version in seen:
        return
    seen.add(version)
    for step in read_graph(inference_pb2.ModelConfig.FromString(version.config.message)).steps:
        try:
            within = catalog.version(step.model, step.version) if step.version else catalog.newest(step.model)
            _check_ready(catalog, within, seen)
        except GatewayError as error:
            raise Unavailable(f"{step.label}: {error}") from error


def logs_steps(config: ModelConfig) -> bool:
    """Returns whether the steps of the ensemble are logged, too. Raises: FailedPrecondition, where that is no word."""
    text = config.parameters.get(LOG_STEPS, "false").strip().lower()
    if text not in ("true", "false"):
        raise FailedPrecondition(f"parameters.{LOG_STEPS}: {text[:40]!r} must be true or false")
    return text == "true"


def _warnings(source: ConfigSource, config: ModelConfig) -> list[str]:
    warnings = []
    idle = [field for field in _IDLE if source.sets(field)]
    if idle:
        warnings.append(f"fields without effect on an ensemble, set them on the models of its steps: {', '.join(idle)}")
    warnings += [
        f"{field} has no effect on an ensemble, set it on the models of its steps: {why}"
        for field, why in _OF_STEPS.items()
        if source.sets(field)
    ]
    unknown = sorted(config.parameters.keys() - {LOG_STEPS})
    if unknown:
        warnings.append(f"parameters without effect here: {', '.join(name[:80] for name in unknown)}")
    return warnings
