"""gateway routes ... and gateway rollback: reading and changing what answers."""

import getpass
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.options import DEFAULT_SERVER, Output, Reason, Server, Timeout
from gateway.cli.output import Format, Value, moment, show
from gateway.errors import InvalidArgument
from gateway.pb import control_pb2
from gateway.routing.notation import parse_yaml

app = typer.Typer(no_args_is_help=True, help="Read and change the routes: which version of a model answers.")

Model = Annotated[str, typer.Argument(help="Name of the model.")]


@app.command(epilog="Example: gateway routes apply -f route.yaml --wait --reason 'canary at 5 %'")
def apply(
    file: Annotated[
        Path, typer.Option("-f", "--file", help="YAML or JSON, several documents allowed; - reads standard input.")
    ],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when every live worker follows.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and say what would change; commit nothing.")
    ] = False,
    expect_revision: Annotated[
        int | None,
        typer.Option("--expect-revision", help="Refuse if the route is not at this revision (0: there is none)."),
    ] = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Commit the routes of a file. Each document is taken whole or refused whole."""
    try:
        documents = parse_yaml(_read(file))
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, f"{file}: {error}") from None
    results: list[Value] = []
    lines: list[list[Value]] = []
    late: list[str] = []
    with control(server) as stub:
        for document in documents:
            answer = stub.Apply(
                control_pb2.ApplyRequest(
                    document_json=document.to_json(),
                    expected_revision=expect_revision,
                    change=_change(reason),
                    wait=control_pb2.WaitFor(applied=wait, timeout_ms=int(timeout * 1000)),
                    dry_run=dry_run,
                ),
                timeout=timeout + 10,
            )
            change = answer.change
            results.append(_change_value(change) | {"moved_percent": answer.moved_buckets / 10_000})
            moved = f"{answer.moved_buckets / 10_000:g} %"
            lines.append([change.model, change.revision or "", _verdict(change, dry_run), moved, _took(change)])
            late += change.laggards
    show(results, output, columns=("MODEL", "REVISION", "RESULT", "KEYS MOVED", "APPLIED AFTER"), rows=lines)
    _complain(late)


@app.command(epilog="Example: gateway routes get flights -o yaml")
def get(
    model: Model,
    revision: Annotated[int, typer.Option("--revision", help="An earlier revision; 0 is the active one.")] = 0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.YAML,
) -> None:
    """Print the route of a model: the document as it was applied, or what it comes to (-o table)."""
    with control(server) as stub:
        route = stub.GetRoute(control_pb2.GetRouteRequest(model=model, revision=revision), timeout=10)
    show(
        json.loads(route.document_json),
        output,
        columns=("ARM", "VERSION", "SHARE"),
        rows=_shares(route),
        note=f"revision {route.revision}, committed {moment(route.committed_at_us)}",
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
        "routes": [{"revision": r.revision, "document": json.loads(r.document_json)} for r in routes],
    }
    note = "" if routes else "no routes: every model serves its newest ready version"
    if answer.stale:
        note = "the store is away: these are the last known rules"
    rows = [[r.model, r.revision, _arms(r), moment(r.committed_at_us)] for r in routes]
    show(value, output, columns=("MODEL", "REVISION", "ARMS", "COMMITTED"), rows=rows, note=note)


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
    value: list[Value] = [
        {
            "revision": e.revision,
            "previous_revision": e.previous_revision,
            "operation": e.operation,
            "actor": e.actor,
            "source": e.source,
            "reason": e.reason,
            "committed_at": moment(e.committed_at_us),
            "document": json.loads(e.document_json) if e.document_json else None,
        }
        for e in answer.entries
    ]
    rows = [[e.revision, e.operation, e.actor, e.source, moment(e.committed_at_us), e.reason] for e in answer.entries]
    show(value, output, columns=("REVISION", "OPERATION", "ACTOR", "SOURCE", "COMMITTED", "REASON"), rows=rows)


@app.command(epilog="Example: gateway routes delete flights --reason 'back to the newest version'")
def delete(
    model: Model,
    expect_revision: Annotated[
        int | None, typer.Option("--expect-revision", help="Refuse if the route is not at this revision.")
    ] = None,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Remove a route: the model serves its newest ready version again."""
    request = control_pb2.DeleteRouteRequest(
        model=model,
        expected_revision=expect_revision,
        change=_change(reason),
        wait=control_pb2.WaitFor(applied=True, timeout_ms=int(timeout * 1000)),
    )
    with control(server) as stub:
        change = stub.DeleteRoute(request, timeout=timeout + 10)
    show(_change_value(change), output, note=f"{model}: no route since revision {change.revision}, {_took(change)}")
    _complain(change.laggards)


def rollback(
    model: Model,
    to_revision: Annotated[int, typer.Option("--to-revision", help="0: the one before the active one.")] = 0,
    reason: Reason = "",
    timeout: Timeout = 10.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Flip a model back to its previous revision, and return when every live worker follows."""
    request = control_pb2.RollbackRequest(
        model=model,
        to_revision=to_revision,
        change=_change(reason or "rollback"),
        wait=control_pb2.WaitFor(applied=True, timeout_ms=int(timeout * 1000)),
    )
    with control(server) as stub:
        change = stub.Rollback(request, timeout=timeout + 10)
    note = (
        f"{model}: revision {change.restored_revision} is active again as revision {change.revision}; "
        f"{len(change.applied_by)} workers follow after {change.applied_us / 1000:.1f} ms"
    )
    show(_change_value(change), output, note=note)
    _complain(change.laggards)


def _read(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error}") from None


def _change(reason: str) -> control_pb2.Change:
    return control_pb2.Change(actor=getpass.getuser(), reason=reason, source="cli", idempotency_key=uuid.uuid4().hex)


def _change_value(change: control_pb2.ChangeResponse) -> dict[str, Value]:
    return {
        "model": change.model,
        "revision": change.revision,
        "previous_revision": change.previous_revision,
        "restored_revision": change.restored_revision,
        "unchanged": change.unchanged,
        "commit_ms": change.commit_us / 1000,
        "applied_ms": change.applied_us / 1000,
        "applied_by": list(change.applied_by),
        "laggards": list(change.laggards),
    }


def _verdict(change: control_pb2.ChangeResponse, dry_run: bool) -> str:
    if change.unchanged:
        return "unchanged"
    return "would be committed" if dry_run else "committed"


def _took(change: control_pb2.ChangeResponse) -> str:
    if not change.applied_us:
        return ""
    return f"{change.applied_us / 1000:.1f} ms by {len(change.applied_by)} workers"


def _shares(route: control_pb2.Route) -> list[list[Value]]:
    """Arm, share and version of each arm that a route names, in the document's order."""
    width: dict[str, int] = {}
    for interval in route.table:
        width[interval.arm] = width.get(interval.arm, 0) + interval.end - interval.start
    arms = json.loads(route.document_json)["spec"]["arms"]
    return [[arm, arms[arm]["version"], f"{width.get(arm, 0) / 10_000:g} %"] for arm in arms]


def _arms(route: control_pb2.Route) -> str:
    return ", ".join(f"{arm}={share} (version {version})" for arm, version, share in _shares(route))


def _complain(laggards: Sequence[str]) -> None:
    if laggards:
        raise Failure(Exit.TIMED_OUT, f"committed, but these workers had not followed in time: {', '.join(laggards)}")
