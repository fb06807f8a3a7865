"""gateway retire and gateway delete: taking a version out of the repository, never one that rules or ensembles use."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Annotated

import msgspec
import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, say, show
from gateway.cli.publish import Repository, directory_of
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DEFAULT_SERVER, DataDir, Model, Output, Reason, Server
from gateway.cli.version_use import check_unused, read_rules
from gateway.errors import GatewayError, InvalidArgument
from gateway.page.message_values import moment

MayBreak = Annotated[
    bool,
    typer.Option("--may-break-routes", help="Also where no gateway can tell whether a route or a rollback needs it."),
]


def retire(
    model: Model,
    version: Annotated[str, typer.Argument(help="The version; without it the retired ones are listed.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Bring a retired version back.")] = False,
    reason: Reason = "",
    may_break: MayBreak = False,
    repository: Repository = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Move a version aside within the repository, so that no gateway serves it; --undo brings it back.

    Refused while a route, a rollout, a draft or a rollback could need it, while an ensemble pins it, and while it
    answers everybody. The repository must be a directory of this machine. Its files stay, in .retired beside the
    versions, until gateway delete.
    """
    from gateway.publish.retirement import Retirement, bring_back
    from gateway.publish.retirement import retire as put_aside
    from gateway.publish.version_trial import effective_user

    place = directory_of(repository, data_dir, "retire")
    with _told():
        if undo:
            if not version:
                raise Failure(Exit.USAGE, "--undo needs the VERSION that is to come back")
            bring_back(place, model, version)
            say(f"{model}: version {version} is back; a gateway serves it as any version that is copied there")
        elif version:
            retirement = Retirement(version, effective_user(), time(), reason)
            put_aside(place, model, retirement, lambda: _check(server, place, model, version, may_break=may_break))
            say(f"{model}: version {version} is retired; gateway retire {model} {version} --undo brings it back")
        _list(place, model, output)


def delete(
    model: Model,
    version: Annotated[str, typer.Argument(help="A version that was retired.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    may_break: MayBreak = False,
    repository: Repository = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Remove the files of a retired version for good. Its name is never given to another version.

    Refused as gateway retire is; a version must be retired first.
    """
    from gateway.publish.retirement import check_retired, delete_retired
    from gateway.publish.version_trial import effective_user

    place = directory_of(repository, data_dir, "delete")
    with _told():
        check_retired(place, model, version)
        _check(server, place, model, version, may_break=may_break)
        if not yes and not _agreed(model, version):
            raise Failure(Exit.REFUSED, "nothing was deleted: --yes deletes without asking")
        delete_retired(place, model, version, deleter=effective_user(), now_s=time())
        say(f"{model}: version {version} is deleted")
        _list(place, model, output)


@contextmanager
def _told() -> Iterator[None]:
    """Turns errors into failures that begin with their code, as a server's do."""
    try:
        yield
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    except GatewayError as error:
        raise Failure(Exit.REFUSED, f"{error.code.name}: {error}") from None


def _check(server: str, place: Path, model: str, version: str, *, may_break: bool) -> None:
    """Checks by the repository's ensembles and the rules of a gateway that nothing uses the version.

    Raises: Failure, FailedPrecondition.
    """
    from gateway.publish.step_pins import check_unpinned

    check_unpinned(place, model, version)
    try:
        rules = read_rules(server, model)
    except Failure as failure:
        if not may_break:
            raise Failure(
                failure.exit_code,
                f"{failure}. Nobody can tell whether a route or a rollback needs version {version!r}, so nothing was "
                f"done; --may-break-routes goes on all the same",
            ) from None
        say(f"{failure}; going on without its rules")
        return
    check_unused(rules, version)


def _agreed(model: str, version: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return typer.confirm(f"Delete the files of version {version} of model {model} for good?", err=True)


def _list(place: Path, model: str, output: Format) -> None:
    from gateway.publish.retirement import retirements

    listed = retirements(place, model)
    show(
        [msgspec.to_builtins(one) for one in listed],
        output,
        columns=("VERSION", "RETIRED", "BY", "REASON", "DELETED"),
        rows=[
            [
                one.version,
                moment(int(one.retired_at * 1e6)),
                one.retired_by,
                one.reason,
                f"{_moment(one.deleted_at)} {one.deleted_by}".strip(),
            ]
            for one in listed
        ],
        note="" if listed else f"no version of model {model} is retired",
    )


def _moment(at_s: float) -> str:
    return moment(int(at_s * 1e6))
