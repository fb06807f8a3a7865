"""What can be run: the files of a version, or of each version that the steps of an ensemble name. Values."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from gateway.errors import FailedPrecondition, GatewayError
from gateway.serving.candidate import Candidate
from gateway.serving.declaration import declared, declared_digest
from gateway.serving.ensemble_graph import MOST_CALLS, EnsembleGraph, EnsembleStep, read_graph
from gateway.serving.ensemble_loads import MOST_LEVELS
from gateway.serving.model_config import ModelConfig
from gateway.serving.probe import ProbeRequest

NEWEST: Final = ""  # as the version that a step needs: its rules decide, which only the gateway has
IN_A_STORE: Final = "looks its answers up in a feature store"


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """A version that can be run: what to run, and the files beside its versions that the configuration names."""

    candidate: Candidate
    probe: ProbeRequest
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Returns the digest of the content."""
        return self.probe.local.digest

    def versions(self) -> "Iterator[VersionFiles]":
        """Yields itself."""
        yield self

    def limited(self, memory_bytes: int) -> "VersionFiles":
        """Returns the same, to be run within so much memory; 0: as when it is loaded."""
        return replace(self, probe=replace(self.probe, memory_bytes=memory_bytes)) if memory_bytes else self


@dataclass(frozen=True, slots=True)
class LookUpFiles:
    """A version that looks its answers up: what it takes and answers is known, and it cannot be run here."""

    candidate: Candidate
    config: ModelConfig
    digest: str

    def versions(self) -> Iterator[VersionFiles]:
        """Returns nothing: it has no files."""
        return iter(())

    def limited(self, memory_bytes: int) -> "LookUpFiles":
        """Returns itself: nothing of it runs."""
        return self


@dataclass(frozen=True, slots=True)
class EnsembleFiles:
    """A version of an ensemble: its graph, what it declares, and what each step runs, in the order of the steps.

    `calls` are those of one request, here and within.
    """

    candidate: Candidate
    config: ModelConfig
    graph: EnsembleGraph
    steps: "tuple[RunFiles, ...]"
    digest: str
    calls: int

    def limited(self, memory_bytes: int) -> "EnsembleFiles":
        """Returns the same, each step to be run within so much memory; 0: as when it is loaded."""
        return replace(self, steps=tuple(step.limited(memory_bytes) for step in self.steps))

    def look_up(self) -> str:
        """Returns the first step, here or within, that cannot be run because it looks its answers up; "" if all run."""
        for step, files in zip(self.graph.steps, self.steps, strict=True):
            if isinstance(files, LookUpFiles):
                return f"{step.label} {IN_A_STORE}"
            if isinstance(files, EnsembleFiles) and (within := files.look_up()):
                return f"{step.label}: {within}"
        return ""

    @property
    def models(self) -> frozenset[str]:
        """Returns the models of all steps, here and within."""
        within = [step.models for step in self.steps if isinstance(step, EnsembleFiles)]
        return frozenset(step.model for step in self.graph.steps).union(*within)

    def versions(self) -> Iterator[VersionFiles]:
        """Yields each version that has files, here and within."""
        for step in self.steps:
            yield from step.versions()

    def chosen(self, but: Collection[str] = ()) -> tuple[str, ...]:
        """Returns what was taken where the rules of a step's model decide, here and within, `but` of these models."""
        told: list[str] = []
        for step, files in zip(self.graph.steps, self.steps, strict=True):
            if not step.version and step.model not in but:
                told.append(f"{step.label} is version {files.candidate.version!r}")
            if isinstance(files, EnsembleFiles):
                told += [f"{step.label}: {one}" for one in files.chosen(but)]
        return tuple(told)


RunFiles = VersionFiles | LookUpFiles | EnsembleFiles
# Returns what the version of a model is run from, NEWEST being the newest; `within` are the ensembles around it.
FindStep = Callable[[str, str, tuple[str, ...]], RunFiles]


def ensemble_files(candidate: Candidate, within: tuple[str, ...], find: FindStep) -> EnsembleFiles:
    """Returns an ensemble with all that its steps run.

    Raises: FailedPrecondition naming the step and what is missing, or wrong with it.
    """
    path = (*within, candidate.model)
    if candidate.model in within:
        raise FailedPrecondition(f"the ensemble is a step within itself: {' > '.join(path)}")
    if len(path) > MOST_LEVELS:
        raise FailedPrecondition(f"ensembles within ensembles are {MOST_LEVELS} deep at most: {' > '.join(path)}")
    config = declared(candidate.source, candidate.folder)
    graph = read_graph(candidate.source.message)
    steps: list[RunFiles] = []
    known: dict[tuple[str, str], RunFiles] = {}  # steps of one version are looked for once
    calls = 0
    for step in graph.steps:
        wanted = (step.model, step.version)
        files = known.get(wanted) or _step(step, path, find)
        known[wanted] = files
        calls += 1 + (files.calls if isinstance(files, EnsembleFiles) else 0)
        if calls > MOST_CALLS:  # looked at step by step: ensembles within ensembles multiply
            raise FailedPrecondition(
                f"one request would make more than {MOST_CALLS} calls, those of the ensembles within it included"
            )
        steps.append(files)
    digest = declared_digest(candidate.source, candidate.folder)
    return EnsembleFiles(candidate, config, graph, tuple(steps), digest, calls)


def look_up_files(candidate: Candidate) -> LookUpFiles:
    """Returns a version that looks its answers up. Raises: FailedPrecondition naming the tensor that is wrong."""
    config = declared(candidate.source, candidate.folder)
    return LookUpFiles(candidate, config, declared_digest(candidate.source, candidate.folder))


def _step(step: EnsembleStep, path: tuple[str, ...], find: FindStep) -> RunFiles:
    try:
        return find(step.model, step.version or NEWEST, path)
    except GatewayError as error:
        raise FailedPrecondition(f"{step.label}: {error}") from error
