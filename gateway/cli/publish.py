"""gateway validate and gateway publish: what must hold before a version may serve, and its way into the repository."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, say, show
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DataDir, Output
from gateway.cli.written_file import check_place, write_file
from gateway.errors import GatewayError, InvalidArgument
from gateway.page.message_values import Value
from gateway.replay.served_repository import served_repository

if TYPE_CHECKING:
    from gateway.publish.checklist import Checklist
    from gateway.publish.version_trial import TriedVersion

Candidate = Annotated[
    Path,
    typer.Argument(
        help="A model file (.onnx), the directory of a version's files, or the config.pbtxt of an ensemble."
    ),
]
ModelName = Annotated[str, typer.Argument(help="The model that it is a version of.")]
Repository = Annotated[
    str, typer.Option("--model-repository", help="Its URI; else that of the gateway that runs on the data directory.")
]
Against = Annotated[
    str, typer.Option("--against", help="Compare with this version of the repository; else with the newest one.")
]
Golden = Annotated[
    Path | None, typer.Option("--golden", help="Requests with the expected answers: JSON, one in each line.")
]
LatencyMs = Annotated[
    float, typer.Option("--latency-ms", help="Fail if a run takes longer at the 99th percentile; 0: no limit.", min=0.0)
]
MemoryMb = Annotated[
    int, typer.Option("--memory-mb", help="Fail if it holds more MiB at its highest; 0: no limit.", min=0)
]
MayBreak = Annotated[bool, typer.Option("--may-break-callers", help="A changed contract is a warning, no failure.")]
Keys = Annotated[
    Path | None,
    typer.Option("--require-signature", help="File of public keys (PEM); one must have signed it."),
]
LinksTo = Annotated[
    list[Path] | None, typer.Option("--allow-links-to", help="A directory outside PATH to which its links may lead.")
]
Html = Annotated[Path | None, typer.Option("--html", help="Write the checklist as one HTML file.")]


def validate(
    path: Candidate,
    model: ModelName,
    repository: Repository = "",
    against: Against = "",
    golden: Golden = None,
    latency_ms: LatencyMs = 0.0,
    memory_mb: MemoryMb = 0,
    may_break: MayBreak = False,
    keys: Keys = None,
    links_to: LinksTo = None,
    html: Html = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Try a version on this machine, and print whether it may serve; publish nothing. Ends with 1 if it may not."""
    check_place("--html", html)
    place = repository or served_repository(data_dir).uri
    with _tried(path, model, place, against, golden, latency_ms, memory_mb, may_break, keys, links_to) as tried:
        _tell(tried.checklist, html, output)


def publish(
    path: Candidate,
    model: ModelName,
    version: Annotated[str, typer.Option("--version", help="Its name; else the next number.")] = "",
    publisher: Annotated[str, typer.Option("--publisher", help="Who publishes it; else this process's user.")] = "",
    lineage: Annotated[
        list[str] | None, typer.Option("--lineage", help="NAME=VALUE of where it comes from: data, code, run.")
    ] = None,
    repository: Repository = "",
    against: Against = "",
    golden: Golden = None,
    latency_ms: LatencyMs = 0.0,
    memory_mb: MemoryMb = 0,
    may_break: MayBreak = False,
    keys: Keys = None,
    links_to: LinksTo = None,
    html: Html = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Try a version as validate does, and put it into the repository if nothing fails. Its number is then fixed.

    The repository must be a directory of this machine. A new version of a model that has a route serves when the route
    names it; without a route the newest version serves.
    """
    from gateway.publish.publication_record import lineage_of
    from gateway.publish.publication_record import publish as placed
    from gateway.publish.version_trial import effective_user, with_publication

    check_place("--html", html)
    place = repository or served_repository(data_dir).uri
    directory = directory_of(repository, data_dir, "publish")
    try:
        origins = lineage_of(lineage or [])
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    with _tried(path, model, place, against, golden, latency_ms, memory_mb, may_break, keys, links_to) as tried:
        checklist = tried.checklist
        content = tried.local or tried.beside
        if checklist.passes and content:
            try:
                name = placed(
                    content,
                    directory,
                    checklist,
                    version=version,
                    publisher=publisher or effective_user(),
                    now_s=time(),
                    lineage=origins,
                )
            except GatewayError as error:
                raise Failure(Exit.REFUSED, str(error)) from None
            checklist = with_publication(checklist, name)
        _tell(checklist, html, output)


@contextmanager
def _tried(
    path: Path,
    model: str,
    repository: str,
    against: str,
    golden: Path | None,
    latency_ms: float,
    memory_mb: int,
    may_break: bool,
    keys: Path | None,
    links_to: list[Path] | None,
) -> "Iterator[TriedVersion]":
    """Yields the outcome; the copy that was tried is there until the block ends."""
    from gateway.publish.checklist import CostBudget
    from gateway.publish.golden_requests import read_golden
    from gateway.publish.version_trial import TrialQuestion, declared_configuration, laid_out, try_version
    from loaders.errors import LoaderError
    from loaders.model_signature import TrustedKeys
    from loaders.schemes import LoaderSettings, canonical, open_loader
    from loaders.store import ContentStore

    if against and not repository:
        raise Failure(Exit.USAGE, f"--against {against!r} is a version of a repository: name it by --model-repository")
    beside = _directory(repository)
    try:
        requests = None if golden is None else read_golden(golden)
        trusted = None if keys is None else TrustedKeys(keys)
        question = TrialQuestion(
            path,
            model,
            requests,
            against,
            CostBudget(latency_ms * 1000, memory_mb << 20),
            may_break,
            trusted,
        )
        with (
            laid_out(path, model, beside / model if beside is not None else None, links_to or ()) as tried,
            TemporaryDirectory(prefix="gateway-publish-") as copies,
        ):
            store = ContentStore(Path(copies))
            there = open_loader(LoaderSettings(canonical(repository), store)) if repository else None
            steps, configuration = there, declared_configuration(path.absolute())
            if steps is None and configuration is not None:
                steps = open_loader(LoaderSettings(canonical(str(configuration.parent.parent)), store))
            yield asyncio.run(try_version(question, tried, there, steps))
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    except (GatewayError, LoaderError) as error:
        raise Failure(Exit.REFUSED, str(error)) from None


def directory_of(repository: str, data_dir: Path, verb: str) -> Path:
    """Returns the repository into which a command writes. Raises: Failure (it is not one directory of this machine)."""
    from loaders.directory_layout import holds_versions

    place = repository or served_repository(data_dir).uri
    if not place:
        raise Failure(
            Exit.USAGE,
            f"--model-repository is empty, and no gateway has run on {str(data_dir)!r} (--data-dir): name the "
            f"repository into which {verb} writes, a directory of this machine",
        )
    directory = _directory(place)
    if directory is None or "," in place or not directory.is_dir():
        raise Failure(
            Exit.USAGE,
            f"--model-repository {place!r}: {verb} writes into one directory of this machine; name it. Versions that "
            f"lie elsewhere are changed by the tools of that place (before an upload, gateway validate tries them)",
        )
    if holds_versions(directory):
        raise Failure(
            Exit.USAGE,
            f"--model-repository {place!r} holds the versions of one model: {verb} needs the repository of which it is "
            f"a model, {str(directory.parent)!r}",
        )
    return directory


def _directory(repository: str) -> Path | None:
    """Returns the directory of a repository that is one of this machine; None of others."""
    from loaders.errors import UnsupportedUri
    from loaders.uri import local_path

    try:
        return Path(local_path(repository)) if repository else None
    except UnsupportedUri:
        return None


def _tell(checklist: "Checklist", html: Path | None, output: Format) -> None:
    """Prints the outcome. Raises: Failure (a check fails)."""
    if html is not None:
        from gateway.publish.checklist_page import render_checklist

        write_file("--html", html, render_checklist(checklist))
    value: Value = msgspec.to_builtins(checklist) | {"passes": checklist.passes}
    show(
        value,
        output,
        columns=("CHECK", "STATE", "WHAT WAS SEEN"),
        rows=[[check.name, check.state.value, check.text] for check in checklist.checks],
    )
    if not checklist.passes:
        failed = ", ".join(check.name for check in checklist.checks if check.state.value == "fail")
        raise Failure(Exit.REFUSED, f"the version must not be published as {checklist.model}: {failed}")
    if checklist.published:
        say(f"published: {checklist.model} version {checklist.published}")
