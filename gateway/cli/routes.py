"""gateway routes ... and gateway rollback: reading and changing what answers."""

from typing import Annotated

import msgspec
import typer

from gateway.cli.applied_change import (
    change_by_me,
    change_value,
    complain,
    kept_by,
    took,
    wait_for,
    warn,
)
from gateway.cli.apply import apply
from gateway.cli.change_options import CHANGING, ChangeCommand
from gateway.cli.client import control
from gateway.cli.plan import diff, show_revision
from gateway.cli.printing import Format, counted, show
from gateway.cli.route_summary import in_force_of
from gateway.cli.shared_options import DEFAULT_SERVER, Model, Output, Server
from gateway.page.message_values import Value, document_value, entry_value, moment
from gateway.page.route_words import (
    also_decides,
    arms_text,
    document_shares,
    in_force_text,
    shares,
    state_value,
)
from gateway.pb import control_pb2

HISTORY_COLUMNS = ("REVISION", "OPERATION", "ACTOR", "SOURCE", "COMMITTED", "SHARES", "REASON")

app = typer.Typer(no_args_is_help=True, help="Read and change the routes: which version of a model answers.")
app.command(cls=ChangeCommand, epilog="Example: gateway routes apply -f route.yaml --wait --reason 'canary at 5 %'")(
    apply
)
app.command(epilog="Example: gateway routes diff flights 12 14")(diff)
app.command("show", epilog="Example: gateway routes show flights 12")(show_revision)


@app.command(epilog="Example: gateway routes get flights -o yaml")
def get(
    model: Model,
    revision: Annotated[int, typer.Option("--revision", help="An earlier revision; 0 is the active one.")] = 0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.YAML,
) -> None:
    """Print the route of a model: the document as it was applied, or what it comes to (-o table).

    With -o json it has a `status` beside it where a rollout moves it; whoever applies that again changes nothing.
    """
    with control(server) as stub:
        route = stub.GetRoute(control_pb2.GetRouteRequest(model=model, revision=revision), timeout=10)
    value: dict[str, Value] = msgspec.json.decode(route.document_json)
    state = state_value(route) if output is Format.JSON else None
    show(
        value if state is None else value | {"status": state},
        output,
        columns=("ARM", "VERSION", "SHARE"),
        rows=shares(route),
        note=[
            f"revision {route.revision}, committed {moment(route.committed_at_us)}",
            *also_decides(in_force_text(route)),
        ],
    )


@app.command("list", epilog="Example: gateway routes list")
def list_routes(server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Print every route, one line each."""
    with control(server) as stub:
        answer = stub.ListRoutes(control_pb2.ListRoutesRequest(), timeout=10)
    routes = sorted(answer.routes, key=lambda route: route.model)
    value: Value = {
        "epoch": answer.epoch,
        "revision": answer.revision,
        "stale": answer.stale,
        "routes": [
            {"revision": r.revision, "document": msgspec.json.decode(r.document_json), "state": state_value(r)}
            for r in routes
        ],
    }
    note = "" if routes else "no routes: every model serves its newest ready version"
    if answer.stale:
        note = "the store is away: these are the last known rules"
    rows = [[r.model, r.revision, arms_text(r), _also(r), moment(r.committed_at_us)] for r in routes]
    show(value, output, columns=("MODEL", "REVISION", "ARMS", "ALSO", "COMMITTED"), rows=rows, note=note)


@app.command(epilog="Example: gateway routes history flights --limit 5")
def history(
    model: Model,
    limit: Annotated[int, typer.Option("--limit", help="How many, newest first.", min=1, max=200)] = 20,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Print who changed a route, when and why; newest first."""
    with control(server) as stub:
        answer = stub.History(control_pb2.HistoryRequest(model=model, limit=limit), timeout=10)
    value: list[Value] = [{**entry_value(entry), **document_value(entry)} for entry in answer.entries]
    rows = [
        [
            *(e.revision, e.operation, e.actor, e.source, moment(e.committed_at_us)),
            document_shares(in_force_text(e)) or "no route",
            e.reason,
        ]
        for e in answer.entries
    ]
    show(value, output, columns=HISTORY_COLUMNS, rows=rows)


@app.command(cls=ChangeCommand, epilog="Example: gateway routes delete flights --reason 'back to the newest version'")
def delete(
    model: Model,
    override: Annotated[
        bool, typer.Option("--override", help="Also where that ends a rollout of the model that is running.")
    ] = False,
) -> None:
    """Remove a route: the model serves its newest ready version again, and you are told which one that is."""
    options = CHANGING.get()
    request = control_pb2.DeleteRouteRequest(
        model=model,
        expected_revision=options.expect_revision,
        change=change_by_me(options.reason),
        wait=wait_for(options.timeout),
        dry_run=options.dry_run,
        override=override,
    )
    with control(options.server) as stub:
        change = stub.DeleteRoute(request, timeout=options.timeout + 10)
    fate = (
        f"would lose its route of revision {change.revision}"
        if options.dry_run
        else f"no route since {change.revision}"
    )
    facts = [f"{model}: {fate}", _successor(change), "" if options.dry_run else took(change)]
    show(change_value(change), options.output, note="; ".join(filter(None, facts)))
    complain(change.laggards)


def rollback(
    model: Model,
    to_revision: Annotated[int, typer.Option("--to-revision", help="0: the one before the active one.")] = 0,
) -> None:
    """Flip a model back to its previous revision, and return when every live worker follows.

    Somebody else who did so at the same time is named, and nothing more is done.
    """
    options = CHANGING.get()
    request = control_pb2.RollbackRequest(
        model=model,
        to_revision=to_revision,
        expected_revision=options.expect_revision,
        change=change_by_me(options.reason or "rollback"),
        wait=wait_for(options.timeout),
        dry_run=options.dry_run,
    )
    with control(options.server) as stub:
        change = stub.Rollback(request, timeout=options.timeout + 10)
        active = [] if options.dry_run else [in_force_of(stub, model)]
    show(change_value(change), options.output, note=[_rolled_back(change, dry_run=options.dry_run), *active])
    warn(change.warnings, model)
    complain(change.laggards)


def _rolled_back(change: control_pb2.ChangeResponse, *, dry_run: bool) -> str:
    if change.HasField("already"):
        by = change.already
        return (
            f"{change.model}: already rolled back by {by.actor or 'nobody named'}, {change.already_ms_ago} ms ago: "
            f"revision {change.restored_revision} is active again as revision {change.revision}; "
            f"to go back further, say --expect-revision {change.revision}"
        )
    target = f"revision {change.restored_revision}"
    if change.unchanged:
        return f"{change.model}: {target} is active already, as revision {change.revision}"
    moves = f"{change.version_buckets / 10_000:g} % of the keys change their version"
    if dry_run:
        return f"{change.model}: revision {change.revision} would be left, {target} would be active again; {moves}"
    facts = [
        f"{change.model}: revision {change.previous_revision or 'none'} is left, {target} is active again "
        f"as revision {change.revision}",
        f"followed by {counted(len(change.applied_by), 'worker')} after {change.applied_us / 1000:.1f} ms",
        moves,
        kept_by(change.replicas),
    ]
    return "; ".join(filter(None, facts))


def _successor(change: control_pb2.ChangeResponse) -> str:
    """Returns which version answers without the route, as far as is known."""
    if not change.flows:
        return ""
    version = change.flows[0].to_version
    if not version:
        return "no version is ready to answer"
    return (
        f"version {version}, the newest ready one, answers everybody: "
        f"{change.version_buckets / 10_000:g} % of the keys change their version"
    )


def _also(route: control_pb2.Route) -> str:
    return "; ".join(also_decides(in_force_text(route)))
