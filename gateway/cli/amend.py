"""gateway flip, weights, pin, kill, unkill, promote: one thing of the active route changed."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from gateway.cli.applied_change import DryRun, ExpectRevision, change_by_me, show_applied, wait_for
from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.output import Format
from gateway.cli.shared_options import DEFAULT_SERVER, Model, Output, Reason, Server, Timeout
from gateway.cli.signature import Command, extended, option
from gateway.pb import control_pb2

_SHARED: Final = (
    option("dry_run", DryRun, False),
    option("expect_revision", ExpectRevision, None),
    option("reason", Reason, ""),
    option("timeout", Timeout, 10.0),
    option("server", Server, DEFAULT_SERVER),
    option("output", Output, Format.TABLE),
)


@dataclass(frozen=True, slots=True)
class Edit:
    """What every verb can be told beside the thing that it changes."""

    dry_run: bool
    expect_revision: int | None
    reason: str
    timeout: float
    server: str
    output: Format

    def ask(self, verb: str, request: Any, reason: str) -> None:
        """The change is made and shown; `reason` is kept where none was given. Raises: Failure."""
        if self.expect_revision is not None:
            request.expected_revision = self.expect_revision
        request.change.CopyFrom(change_by_me(self.reason or reason))
        request.wait.CopyFrom(wait_for(self.timeout))
        request.dry_run = self.dry_run
        with control(self.server) as stub:
            answer = getattr(stub, verb)(request, timeout=self.timeout + 10)
        show_applied([answer], self.output, dry_run=self.dry_run)


def _verb(command: Command) -> Command:
    """The command, given the options of all verbs as its `edit`."""
    return extended(command, _SHARED, lambda own, common: command(Edit(**common), **own), inner=["edit"])


@_verb
def flip(
    edit: Edit,
    model: Model,
    arm: Annotated[str, typer.Option("--arm", help="The arm to make active instead of the preview.")] = "",
) -> None:
    """Make the preview of a blue-green route active; the active arm becomes the preview."""
    edit.ask("Flip", control_pb2.FlipRequest(model=model, arm=arm), "flip")


@_verb
def weights(
    edit: Edit,
    model: Model,
    shares: Annotated[list[str], typer.Argument(help="ARM=PERCENT, for each arm; a canary's own will do.")],
) -> None:
    """Set the weights of an A/B test, or the share of a canary; as few users as possible move."""
    request = control_pb2.SetWeightsRequest(model=model, weights=_pairs(shares))
    edit.ask("SetWeights", request, f"weights {' '.join(shares)}")


@_verb
def pin(
    edit: Edit,
    model: Model,
    arm: Annotated[str, typer.Argument(help="The arm that everybody gets.")],
) -> None:
    """Send everybody to one arm; rules and clients' pins hold beside it."""
    edit.ask("Pin", control_pb2.PinRequest(model=model, arm=arm), f"pin {arm}")


@_verb
def kill(
    edit: Edit,
    model: Model,
    reason: Annotated[str, typer.Option("--reason", help="Why; required, and kept in the document and the history.")],
    arm: Annotated[str, typer.Option("--arm", help="The arm that serves everybody; by default the stable one.")] = "",
) -> None:
    """Switch everybody to one arm, past rules and pins, whatever else is wrong with the route."""
    if not reason.strip():
        raise Failure(Exit.USAGE, "--reason is empty: a kill switch needs a reason")
    edit.ask("Kill", control_pb2.KillRequest(model=model, arm=arm), reason)


@_verb
def unkill(edit: Edit, model: Model) -> None:
    """Switch the kill switch off: everybody is back where they were."""
    edit.ask("Unkill", control_pb2.UnkillRequest(model=model), "unkill")


@_verb
def promote(
    edit: Edit,
    model: Model,
    full: Annotated[bool, typer.Option("--full", help="Make the canary's version the stable one.")] = False,
) -> None:
    """Take a canary to its next step, or all the way; make a blue-green route's preview active."""
    edit.ask("Promote", control_pb2.PromoteRequest(model=model, full=full), "promote --full" if full else "promote")


def _pairs(shares: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for share in shares:
        arm, equals, percent = share.partition("=")
        if not (arm and equals and percent):
            raise Failure(Exit.USAGE, f"{share!r} is not ARM=PERCENT")
        if arm in pairs:
            raise Failure(Exit.USAGE, f"arm {arm!r} is named twice")
        pairs[arm] = percent
    return pairs
