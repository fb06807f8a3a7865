"""Tries a version before it is published: it runs in processes of its own, beside the version that serves now.

PATH (a model file, or a directory of a version's files) ── links ──> a repository of its own ── copy ──> content store
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

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
from gateway.publish.golden_requests import GoldenRequest, difference
from gateway.replay.run_message import SentTensor, sent
from gateway.replay.version_runner import RunnerGone, VersionRunner
from gateway.replay.version_source import VersionFiles, version_files
from gateway.serving.model_config import check_model_name, is_version_name
from gateway.serving.warm_up import made_up
from gateway.tensor import TensorSpec
from loaders.errors import LoaderError, SourceNotFound
from loaders.filesystem import FilesystemLoader
from loaders.loader import Loader, LocalVersion
from loaders.model_signature import TrustedKeys
from loaders.store import ContentStore

MODEL_FILENAME: Final = "model.onnx"
_RUNS: Final = 100  # for the latency, and fewer of a version that takes long
_RUNS_US: Final = 20e6  # after so long
_ROWS: Final = 1
_TRIED: Final = "1"  # the version's name while it is tried


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
    """The outcome, and the verified copy that was tried; it goes with the trial."""

    checklist: Checklist
    local: LocalVersion | None


@contextmanager
def laid_out(path: Path, model: str, beside: Path | None, allowed: Sequence[Path] = ()) -> Iterator[FilesystemLoader]:
    """Yields the loader of a repository that holds `path` as the only version of the model, until the block ends.

    `beside` is the model's directory in the repository to publish to: its configuration and labels are tried, too.
    Links may lead to what is below `path`, and to the directories `allowed`.

    Raises: InvalidArgument (there is nothing at `path`).
    """
    check_model_name(model)
    path = path.absolute()
    with TemporaryDirectory(prefix="gateway-publish-") as work:
        directory = Path(work, "repository", model)
        directory.mkdir(parents=True)
        if path.is_dir():
            (directory / _TRIED).symlink_to(path)
        elif path.is_file():
            (directory / _TRIED).mkdir()
            (directory / _TRIED / MODEL_FILENAME).symlink_to(path)
        else:
            raise InvalidArgument(
                f"{str(path)!r} is no file and no directory: name a model.onnx, or a version's directory"
            )
        links_to = [path if path.is_dir() else path.parent, *(one.absolute() for one in allowed)]
        if beside is not None and beside.is_dir():
            links_to.append(beside)
            for entry in beside.iterdir():
                if entry.name != _TRIED and (entry.is_file() or entry.name == "warmup"):
                    (directory / entry.name).symlink_to(entry.absolute())
        store = ContentStore(Path(work, "content"))
        yield FilesystemLoader(Path(work, "repository"), store, links_to=links_to)


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


async def try_version(question: TrialQuestion, tried: Loader, repository: Loader | None) -> TriedVersion:
    """Returns how the version does, beside the active one of the repository.

    Raises: LoaderError (the repository cannot be read), UnknownVersion (there is no version `against`).
    """
    model = question.model
    try:
        files = version_files(tried, model, _TRIED)
        if question.trusted_keys is not None:
            question.trusted_keys.check(files.probe.local)
    except (GatewayError, LoaderError) as error:
        return _refused(question, str(error))
    local = files.probe.local
    against = question.against or ("" if repository is None else newest_version(repository, model))
    active: Measured | None = None
    outcome: GoldenOutcome | None = None
    notes: list[Check] = []
    if against and repository is not None:
        before = version_files(repository, model, against)
        if before.digest == files.digest:
            notes.append(Check("content", CheckState.WARN, f"it has exactly the content of version {against}"))
        try:
            active, _ = await _measured(before, question.golden)
        except (FailedPrecondition, RunnerGone) as error:
            notes.append(Check("active", CheckState.WARN, f"version {against} cannot be compared with: {error}"))
    try:
        new, outcome = await _measured(files, question.golden)
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
    facts = {
        "run_us_p50": round(quantile(new.run_us, 0.5), 1),
        "run_us_p99": round(quantile(new.run_us, 0.99), 1),
        "peak_bytes": float(new.peak_bytes),
        "load_ms": round(new.load_ms, 1),
    }
    return TriedVersion(Checklist(model, local.digest, local.size, against, checks, facts=facts), local)


def _refused(question: TrialQuestion, reason: str, local: LocalVersion | None = None) -> TriedVersion:
    check = Check("load", CheckState.FAIL, reason)
    digest, size = ("", 0) if local is None else (local.digest, local.size)
    return TriedVersion(Checklist(question.model, digest, size, question.against, (check,)), None)


async def _measured(
    files: VersionFiles, golden: Sequence[GoldenRequest] | None
) -> tuple[Measured, GoldenOutcome | None]:
    """Returns what runs of the version have shown. Raises: FailedPrecondition, RunnerGone."""
    async with VersionRunner(files) as runner:
        failures: list[str] = []
        for request in golden or ():
            answer = await runner.run(request.inputs)
            wrong = answer.error or difference(request.outputs, answer.outputs, request.tolerance)
            if wrong:
                failures.append(f"{request.name}: {wrong}")
        feed = golden[0].inputs if golden else _made_up(runner.contract.inputs, batches=runner.contract.batches)
        run_us: list[float] = []
        while len(run_us) < _RUNS and sum(run_us) < _RUNS_US:
            answer = await runner.run(feed)
            if answer.error:
                run_us = []
                break
            run_us.append(answer.run_ns / 1000)
        probed = runner.probed
        measured = Measured(
            runner.contract.inputs,
            runner.contract.outputs,
            tuple(run_us),
            max(runner.peak_bytes, 0),
            probed.load_ms,
            probed.rows_independent,
            tuple(probed.warnings),
        )
        outcome = None if golden is None else GoldenOutcome(len(golden), tuple(failures))
        return measured, outcome


def _made_up(specs: Sequence[TensorSpec], *, batches: bool) -> tuple[SentTensor, ...]:
    random = np.random.default_rng(0)
    feed = []
    for spec in specs:
        if not spec.optional:
            shape = tuple(_ROWS if size < 0 else size for size in spec.shape)
            feed.append(sent(spec.name, spec.datatype, made_up(spec.datatype, shape, "random", random)))
    return tuple(feed)


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
