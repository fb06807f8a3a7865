"""Tries a version before it is published: it runs in processes of its own, beside the version that serves now.

PATH (a model file, or a directory of a version's files) ── links ──> a repository of its own ── copy ──> content store
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from gateway.errors import FailedPrecondition, GatewayError, InvalidArgument
from gateway.publish.checklist import (
    Check,
    Checklist,
    CheckState,
    CostBudget,
    GoldenOutcome,
    Measured,
    contract_check,
    golden_check,
    latency_check,
    load_check,
    memory_check,
    quantile,
    rows_check,
)
from gateway.publish.declared_trial import ComparedVersion, declared_checks
from gateway.publish.golden_requests import GoldenRequest
from gateway.publish.trial_runs import measured
from gateway.replay.run_files import EnsembleFiles, LookUpFiles, RunFiles, VersionFiles
from gateway.replay.version_runner import RunnerGone
from gateway.replay.version_source import files_beside, version_files
from gateway.serving.config_source import MAX_BYTES, parse_text
from gateway.serving.model_config import check_model_name, is_version_name
from gateway.serving.model_kind import kind_of
from gateway.serving.repository import CONFIG_FILENAME, ModelRepository
from loaders.errors import LoaderError, SourceNotFound
from loaders.filesystem import FilesystemLoader
from loaders.loader import Loader, LocalVersion
from loaders.model_signature import TrustedKeys
from loaders.store import ContentStore

MODEL_FILENAME: Final = "model.onnx"
_TRIED: Final = "1"  # the version's name while it is tried
_NO_REPOSITORY: Final = "no repository is known, so nobody can tell whether callers are broken: name --model-repository"


@dataclass(frozen=True, slots=True)
class TrialQuestion:
    """What is to be checked.

    `against` is the version to compare with: "" the newest one of the repository, if there is any.
    """

    path: Path
    model: str
    golden: tuple[GoldenRequest, ...] | None = None
    against: str = ""
    budget: CostBudget = field(default_factory=CostBudget)
    may_break: bool = False
    trusted_keys: TrustedKeys | None = None


@dataclass(frozen=True, slots=True)
class TriedVersion:
    """The outcome, and what was tried: the verified copy, which goes with the trial, or of a version without a model
    file the files beside its directory, by name. One that must not be published has neither.
    """

    checklist: Checklist
    local: LocalVersion | None
    beside: Mapping[str, bytes] = field(default_factory=dict)


@contextmanager
def laid_out(path: Path, model: str, beside: Path | None, allowed: Sequence[Path] = ()) -> Iterator[FilesystemLoader]:
    """Yields the loader of a repository that holds `path` as the only version of the model, until the block ends.

    `beside` is the model's directory in the repository to publish to: its configuration and labels are tried, too. Of a
    version without a model file `path` is its configuration, or the directory that holds it.
    Links may lead to what is below `path`, and to the directories `allowed`.

    Raises: InvalidArgument (there is nothing at `path`).
    """
    check_model_name(model)
    path = path.absolute()
    with TemporaryDirectory(prefix="gateway-publish-") as work:
        directory = Path(work, "repository", model)
        directory.mkdir(parents=True)
        configuration = declared_configuration(path)
        if configuration is not None:
            (directory / _TRIED).mkdir()
            beside = configuration.parent
        elif path.is_dir():
            (directory / _TRIED).symlink_to(path)
        elif path.is_file():
            (directory / _TRIED).mkdir()
            (directory / _TRIED / MODEL_FILENAME).symlink_to(path)
        else:
            raise InvalidArgument(
                f"{str(path)!r} is no file and no directory: name a model.onnx, a version's directory, or the "
                f"{CONFIG_FILENAME} of an ensemble"
            )
        links_to = [path if path.is_dir() else path.parent, *(one.absolute() for one in allowed)]
        if beside is not None and beside.is_dir():
            links_to.append(beside)
            for entry in beside.iterdir():
                if entry.name != _TRIED and (entry.is_file() or entry.name == "warmup"):
                    (directory / entry.name).symlink_to(entry.absolute())
        store = ContentStore(Path(work, "content"))
        yield FilesystemLoader(Path(work, "repository"), store, links_to=links_to)


def declared_configuration(path: Path) -> Path | None:
    """Returns the configuration that a path means, where it is of a kind without a model file; None of all others."""
    configuration = path / CONFIG_FILENAME if path.is_dir() else path
    if configuration.name != CONFIG_FILENAME or not configuration.is_file():
        return None
    try:
        with configuration.open("rb") as file:
            source = parse_text(file.read(MAX_BYTES + 1))
        return None if kind_of(source).has_file else configuration
    except (OSError, GatewayError):
        return None if path.is_dir() else configuration  # the trial says what is wrong with it


def newest_version(loader: Loader, model: str) -> str:
    """Returns the highest numbered version of a model in a repository; "" where it has none.

    Raises: SourceNotFound, SourceUnreadable (there is no repository, or it cannot be read: what it has is not known).
    """
    if model not in loader.models().names:
        return ""
    try:
        names = loader.versions(model).names
    except SourceNotFound:
        return ""
    return max((name for name in names if name.isdigit() and is_version_name(name)), key=int, default="")


async def try_version(
    question: TrialQuestion, tried: Loader, repository: Loader | None, steps: Loader | None = None
) -> TriedVersion:
    """Returns how the version does, beside the active one of the repository; `steps` has those of an ensemble.

    Raises: LoaderError (the repository cannot be read), UnknownVersion (there is no version `against`).
    """
    model = question.model
    declares = declared_configuration(question.path) is not None
    try:
        files = version_files(tried, model, _TRIED, steps=steps)
        if question.trusted_keys is not None:
            for version in files.versions():
                question.trusted_keys.check(version.probe.local)
    except (GatewayError, LoaderError) as error:
        return _refused(question, str(error))
    if not isinstance(files, VersionFiles):
        if not declares:
            return _refused(question, _of_other_kind(files))
        return await _try_declared(question, files, repository)
    local = files.probe.local
    against, active, notes = await _compared(question, files, repository)
    outcome: GoldenOutcome | None = None
    try:
        new, outcome = await measured(files, question.golden)
    except (FailedPrecondition, RunnerGone) as error:
        return _refused(question, str(error), local)
    budget = question.budget
    checks = (
        Check("files", CheckState.PASS, f"{len(local.files)} files, {local.size} bytes, SHA-256 {local.digest}"),
        *notes,
        load_check(new),
        contract_check(new, active, against, may_break=question.may_break),
        golden_check(outcome),
        latency_check(new, active, budget, against),
        memory_check(new, active, budget, against),
        rows_check(new, active),
    )
    return TriedVersion(Checklist(model, local.digest, local.size, against, checks, facts=facts_of(new)), local)


async def _compared(
    question: TrialQuestion, files: RunFiles, repository: Loader | None
) -> tuple[str, Measured | None, list[Check]]:
    """Returns the version to compare with, what it has shown, and what is to be said of it.

    Raises: LoaderError (the repository cannot be read), UnknownVersion (there is no version `against`).
    """
    against = question.against or ("" if repository is None else newest_version(repository, question.model))
    notes: list[Check] = []
    if repository is None:
        notes.append(Check("active", CheckState.WARN, _NO_REPOSITORY))
    if not against or repository is None:
        return against, None, notes
    try:
        before = version_files(repository, question.model, against)
        if before.digest == files.digest:
            notes.append(Check("content", CheckState.WARN, f"it has exactly the content of version {against}"))
        if isinstance(before, LookUpFiles):
            return against, Measured(before.config.inputs, before.config.outputs), notes
        active, _ = await measured(before, question.golden)
    except (FailedPrecondition, RunnerGone) as error:
        notes.append(Check("active", CheckState.WARN, f"version {against} cannot be compared with: {error}"))
        return against, None, notes
    return against, active, notes


async def _try_declared(
    question: TrialQuestion, files: EnsembleFiles | LookUpFiles, repository: Loader | None
) -> TriedVersion:
    """Returns how a version does that has no model file. Raises: as `try_version`."""
    folder = files.candidate.folder
    beside = {CONFIG_FILENAME: folder.read(CONFIG_FILENAME)} | files_beside(folder, files.candidate.source)
    size = sum(map(len, beside.values()))
    there = None if repository is None else ModelRepository(repository).look(question.model)
    if there is not None and kind_of(there.source) is not files.candidate.kind:
        kind = kind_of(there.source).shown
        return _refused(question, f"the repository has model {question.model!r} of {kind!r}: take another name")
    against, active, notes = await _compared(question, files, repository)
    try:
        new, outcome = Measured(files.config.inputs, files.config.outputs), None
        if isinstance(files, EnsembleFiles):
            new, outcome = await measured(files, question.golden)
        checks = declared_checks(
            files,
            size,
            new,
            outcome,
            ComparedVersion(active, against, notes, may_break=question.may_break),
            question.budget,
            asks_golden=question.golden is not None,
        )
    except (FailedPrecondition, RunnerGone) as error:
        return _refused(question, str(error))
    checklist = Checklist(question.model, files.digest, size, against, checks, facts=facts_of(new))
    return TriedVersion(checklist, None, beside)


def _of_other_kind(files: EnsembleFiles | LookUpFiles) -> str:
    candidate = files.candidate
    return (
        f"the repository has model {candidate.model!r} with a {CONFIG_FILENAME} of {candidate.kind.shown!r}, which has "
        f"no model file: publish the file under another name, or name a {CONFIG_FILENAME}"
    )


def _refused(question: TrialQuestion, reason: str, local: LocalVersion | None = None) -> TriedVersion:
    check = Check("load", CheckState.FAIL, reason)
    digest, size = ("", 0) if local is None else (local.digest, local.size)
    return TriedVersion(Checklist(question.model, digest, size, question.against, (check,)), None)


def facts_of(new: Measured) -> dict[str, float]:
    """Returns what was measured, for the record; nothing of what did not run."""
    if not new.run_us and not new.peak_bytes:
        return {}
    return {
        "run_us_p50": round(quantile(new.run_us, 0.5), 1),
        "run_us_p99": round(quantile(new.run_us, 0.99), 1),
        "peak_bytes": float(new.peak_bytes),
        "load_ms": round(new.load_ms, 1),
    }


def with_publication(checklist: Checklist, version: str) -> Checklist:
    """Returns the outcome of a version that was published under this name."""
    return replace(checklist, published=version)


def effective_user() -> str:
    """Returns who runs this, for the record of a publication."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
