"""gateway flip, weights, pin, kill, unkill, promote, label: one thing of the active route changed."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from gateway.cli.applied_change import DryRun, ExpectRevision, change_by_me, show_applied, wait_for
from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format
from gateway.cli.shared_options import DEFAULT_SERVER, Model, Output, Reason, Server, Timeout
from gateway.pb import control_pb2


@dataclass(frozen=True, slots=True)
class Edit:
    """Holds the options that every verb takes beside the thing that it changes."""

    dry_run: bool
    expect_revision: int | None
    reason: str
    timeout: float
    server: str
    output: Format

    def ask(self, verb: str, request: Any, reason: str) -> None:
        """Makes the change and shows it; `reason` is the default where the user gave none. Raises: Failure."""
        if self.expect_revision is not None:
            request.expected_revision = self.expect_revision
        request.change.CopyFrom(change_by_me(self.reason or reason))
        request.wait.CopyFrom(wait_for(self.timeout))
        request.dry_run = self.dry_run
        with control(self.server) as stub:
            answer = getattr(stub, verb)(request, timeout=self.timeout + 10)
        show_applied([answer], self.output, dry_run=self.dry_run)


def flip(
    model: Model,
    arm: Annotated[str, typer.Option("--arm", help="The arm to make active instead of the preview.")] = "",
    dry_run: DryRun = False,
    expect_revision: ExpectRevision = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Make the preview of a blue-green route active; the active arm becomes the preview."""
    edit = Edit(dry_run, expect_revision, reason, timeout, server, output)
    edit.ask("Flip", control_pb2.FlipRequest(model=model, arm=arm), "flip")


def weights(
    model: Model,
    shares: Annotated[list[str], typer.Argument(help="ARM=PERCENT, for each arm; a canary's own will do.")],
    dry_run: DryRun = False,
    expect_revision: ExpectRevision = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Set the weights of an A/B test, or the share of a canary; as few users as possible move."""
    request = control_pb2.SetWeightsRequest(model=model, weights=_pairs(shares, "ARM=PERCENT"))
    edit = Edit(dry_run, expect_revision, reason, timeout, server, output)
    edit.ask("SetWeights", request, f"weights {' '.join(shares)}")


def pin(
    model: Model,
    arm: Annotated[str, typer.Argument(help="The arm that everybody gets.")],
    dry_run: DryRun = False,
    expect_revision: ExpectRevision = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Send everybody to one arm; rules and clients' pins hold beside it."""
    edit = Edit(dry_run, expect_revision, reason, timeout, server, output)
    edit.ask("Pin", control_pb2.PinRequest(model=model, arm=arm), f"pin {arm}")


def kill(
    model: Model,
    reason: Annotated[str, typer.Option("--reason", help="Why; required, and kept in the document and the history.")],
    arm: Annotated[str, typer.Option("--arm", help="The arm that serves everybody; by default the stable one.")] = "",
    dry_run: DryRun = False,
    expect_revision: ExpectRevision = None,
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Switch everybody to one arm, past rules and pins, whatever else is wrong with the route."""
    if not reason.strip():
        raise Failure(Exit.USAGE, "--reason is empty: a kill switch needs a reason")
    edit = Edit(dry_run, expect_revision, reason, timeout, server, output)
    edit.ask("Kill", control_pb2.KillRequest(model=model, arm=arm), reason)


def unkill(
    model: Model,
    dry_run: DryRun = False,
    expect_revision: ExpectRevision = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Switch the kill switch off: everybody is back where they were."""
    edit = Edit(dry_run, expect_revision, reason, timeout, server, output)
    edit.ask("Unkill", control_pb2.UnkillRequest(model=model), "unkill")


def promote(
    model: Model,
    full: Annotated[bool, typer.Option("--full", help="Make the canary's version the stable one.")] = False,
    dry_run: DryRun = False,
    expect_revision: ExpectRevision = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Take a canary to its next step, or all the way; make a blue-green route's preview active."""
    edit = Edit(dry_run, expect_revision, reason, timeout, server, output)
    edit.ask("Promote", control_pb2.PromoteRequest(model=model, full=full), "promote --full" if full else "promote")


def label(
    model: Model,
    labels: Annotated[list[str], typer.Argument(help="LABEL=VERSION, as many as needed; LABEL= takes one away.")],
    dry_run: DryRun = False,
    expect_revision: ExpectRevision = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Set the version labels of a route: arms that name a label get its version, clients may ask by it."""
    named = _pairs(labels, "LABEL=VERSION", empty=True)
    edit = Edit(dry_run, expect_revision, reason, timeout, server, output)
    edit.ask("SetLabels", control_pb2.SetLabelsRequest(model=model, labels=named), f"label {' '.join(labels)}")


def _pairs(texts: list[str], form: str, *, empty: bool = False) -> dict[str, str]:
    """Returns the texts before and after the equals signs. Raises: Failure for a text of another form."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and (value or empty)):
            raise Failure(Exit.USAGE, f"{text!r} is not {form}")
        if name in pairs:
            raise Failure(Exit.USAGE, f"{form.partition('=')[0].lower()} {name!r} is named twice")
        pairs[name] = value
    return pairs
