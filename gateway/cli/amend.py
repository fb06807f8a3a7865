"""gateway flip, weights, pin, kill, unkill, promote: one thing of the active route changed."""

from typing import Annotated

import typer

from gateway.cli.change import DryRun, ExpectRevision, change_by_me, show_applied, wait_for
from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.options import DEFAULT_SERVER, Model, Output, Reason, Server, Timeout
from gateway.cli.output import Format
from gateway.pb import control_pb2


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
    request = control_pb2.FlipRequest(
        model=model,
        expected_revision=expect_revision,
        change=change_by_me(reason or "flip"),
        wait=wait_for(timeout),
        dry_run=dry_run,
        arm=arm,
    )
    with control(server) as stub:
        answer = stub.Flip(request, timeout=timeout + 10)
    show_applied([answer], output, dry_run=dry_run)


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
    request = control_pb2.SetWeightsRequest(
        model=model,
        expected_revision=expect_revision,
        change=change_by_me(reason or f"weights {' '.join(shares)}"),
        wait=wait_for(timeout),
        dry_run=dry_run,
        weights=_pairs(shares),
    )
    with control(server) as stub:
        answer = stub.SetWeights(request, timeout=timeout + 10)
    show_applied([answer], output, dry_run=dry_run)


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
    request = control_pb2.PinRequest(
        model=model,
        expected_revision=expect_revision,
        change=change_by_me(reason or f"pin {arm}"),
        wait=wait_for(timeout),
        dry_run=dry_run,
        arm=arm,
    )
    with control(server) as stub:
        answer = stub.Pin(request, timeout=timeout + 10)
    show_applied([answer], output, dry_run=dry_run)


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
    request = control_pb2.KillRequest(
        model=model,
        expected_revision=expect_revision,
        change=change_by_me(reason),
        wait=wait_for(timeout),
        dry_run=dry_run,
        arm=arm,
    )
    with control(server) as stub:
        answer = stub.Kill(request, timeout=timeout + 10)
    show_applied([answer], output, dry_run=dry_run)


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
    request = control_pb2.UnkillRequest(
        model=model,
        expected_revision=expect_revision,
        change=change_by_me(reason or "unkill"),
        wait=wait_for(timeout),
        dry_run=dry_run,
    )
    with control(server) as stub:
        answer = stub.Unkill(request, timeout=timeout + 10)
    show_applied([answer], output, dry_run=dry_run)


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
    request = control_pb2.PromoteRequest(
        model=model,
        expected_revision=expect_revision,
        change=change_by_me(reason or ("promote --full" if full else "promote")),
        wait=wait_for(timeout),
        dry_run=dry_run,
        full=full,
    )
    with control(server) as stub:
        answer = stub.Promote(request, timeout=timeout + 10)
    show_applied([answer], output, dry_run=dry_run)


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
