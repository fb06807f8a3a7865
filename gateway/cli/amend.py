"""gateway flip, weights, pin, kill, unkill, promote, label: one thing of the active route changed."""

from typing import Annotated, Any

import typer

from gateway.cli.applied_change import change_by_me, show_applied, wait_for
from gateway.cli.change_options import CHANGING
from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.shared_options import Model
from gateway.pb import control_pb2

Override = Annotated[
    bool,
    typer.Option("--override", help="Blue-green: skip what the preview waits for; the audit trail says what."),
]


def flip(
    model: Model,
    arm: Annotated[str, typer.Option("--arm", help="The arm to make active instead of the preview.")] = "",
    override: Override = False,
) -> None:
    """Make the preview of a blue-green route active; the active arm becomes the preview."""
    _ask("Flip", control_pb2.FlipRequest(model=model, arm=arm, override=override), "flip")


def weights(
    model: Model,
    shares: Annotated[list[str], typer.Argument(help="ARM=PERCENT, for each arm; a canary's own will do.")],
) -> None:
    """Set the weights of an A/B test, or the share of a canary; as few users as possible move."""
    request = control_pb2.SetWeightsRequest(model=model, weights=_pairs(shares, "ARM=PERCENT"))
    _ask("SetWeights", request, f"weights {' '.join(shares)}")


def pin(
    model: Model,
    arm: Annotated[str, typer.Argument(help="The arm that everybody gets.")],
) -> None:
    """Send everybody to one arm; rules and clients' pins hold beside it."""
    _ask("Pin", control_pb2.PinRequest(model=model, arm=arm), f"pin {arm}")


def kill(
    model: Model,
    arm: Annotated[str, typer.Option("--arm", help="The arm that serves everybody; by default the stable one.")] = "",
) -> None:
    """Switch everybody to one arm, past rules and pins, whatever else is wrong with the route."""
    if not CHANGING.get().reason.strip():
        raise Failure(Exit.USAGE, "--reason is empty: a kill switch needs a reason, for the document and the history")
    _ask("Kill", control_pb2.KillRequest(model=model, arm=arm))


def unkill(
    model: Model,
) -> None:
    """Switch the kill switch off: everybody is back where they were."""
    _ask("Unkill", control_pb2.UnkillRequest(model=model), "unkill")


def promote(
    model: Model,
    full: Annotated[bool, typer.Option("--full", help="Make the canary's version the stable one.")] = False,
    override: Override = False,
) -> None:
    """Take a canary to its next step, or all the way; make a blue-green route's preview active."""
    request = control_pb2.PromoteRequest(model=model, full=full, override=override)
    _ask("Promote", request, "promote --full" if full else "promote")


def label(
    model: Model,
    labels: Annotated[list[str], typer.Argument(help="LABEL=VERSION, as many as needed; LABEL= takes one away.")],
    override: Annotated[
        bool, typer.Option("--override", help="Also where that ends a rollout of the model that is running.")
    ] = False,
) -> None:
    """Set the version labels of a route: arms that name a label get its version, clients may ask by it."""
    named = _pairs(labels, "LABEL=VERSION", empty=True)
    request = control_pb2.SetLabelsRequest(model=model, labels=named, override=override)
    _ask("SetLabels", request, f"label {' '.join(labels)}")


def _ask(verb: str, request: Any, reason: str = "") -> None:
    """Makes the change and shows it; `reason` is the one where the user gave none. Raises: Failure."""
    options = CHANGING.get()
    if options.expect_revision is not None:
        request.expected_revision = options.expect_revision
    request.change.CopyFrom(change_by_me(options.reason or reason))
    request.wait.CopyFrom(wait_for(options.timeout))
    request.dry_run = options.dry_run
    with control(options.server) as stub:
        answer = getattr(stub, verb)(request, timeout=options.timeout + 10)
    show_applied([answer], options.output, dry_run=options.dry_run)


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
