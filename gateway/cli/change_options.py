"""Options of every command that changes a route or the store."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import typer

from gateway.cli.option_set import OptionSet
from gateway.cli.printing import Format
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Reason, Server, Timeout
from gateway.cli.tls import ServerCommand


@dataclass(frozen=True, slots=True)
class Changing:
    """Holds how a change is made, and where. Units: `timeout` in seconds."""

    dry_run: bool
    expect_revision: int | None
    reason: str
    timeout: float
    server: str
    output: Format


def changing(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and say what would change; commit nothing.")
    ] = False,
    expect_revision: Annotated[
        int | None,
        typer.Option("--expect-revision", help="Refuse if another revision is the active one (0: there is none)."),
    ] = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> Changing:
    """Returns how a change is made."""
    return Changing(dry_run, expect_revision, reason, timeout, server, output)


CHANGING: Final = OptionSet(changing)


class ChangeCommand(ServerCommand):
    """Adds the options of a change, and those of a connection."""

    sets: ClassVar[tuple[OptionSet[Any], ...]] = (CHANGING, *ServerCommand.sets)
