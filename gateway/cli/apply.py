"""gateway routes apply: documents of files become the active routes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.applied_change import (
    COLUMNS,
    applied_row,
    applied_value,
    change_by_me,
    change_value,
    complain,
    wait_for,
    warn,
)
from gateway.cli.change_options import CHANGING, Changing
from gateway.cli.client import control
from gateway.cli.documents import Document, File, read_documents
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import show
from gateway.cli.route_summary import in_force
from gateway.page.message_values import Value
from gateway.pb import control_pb2, control_pb2_grpc


def apply(
    file: File,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when every live worker follows.")] = True,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the routes of models that the directory has no document for.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Prune without asking.")] = False,
    override: Annotated[
        bool, typer.Option("--override", help="Also where that ends a rollout of the model that is running.")
    ] = False,
) -> None:
    """Commit the routes of a file or a directory.

    Each document is taken whole or refused whole; of several, all are checked before the first is committed.
    """
    if prune and not file.is_dir():
        raise Failure(Exit.USAGE, f"--prune: {file} is no directory; what it does not name would be deleted")
    commit(file, CHANGING.get(), wait=wait, prune=prune, yes=yes, override=override)


def commit(
    file: Path,
    options: Changing,
    *,
    wait: bool,
    reason: str = "",
    prune: bool = False,
    yes: bool = False,
    override: bool = False,
) -> None:
    """Commits every document of the file, and shows the outcome; `reason` is the one where the user gave none."""
    dry_run, expected, timeout = options.dry_run, options.expect_revision, options.timeout
    why = options.reason or reason
    documents = read_documents(file)
    if expected is not None and len(documents) != 1:
        raise Failure(Exit.USAGE, f"--expect-revision: it is of one model, {file} has {len(documents)} documents")
    results: list[Value] = []
    rows: list[list[Value]] = []
    late: list[str] = []
    active: list[str] = []
    with control(options.server) as stub:
        surplus = _surplus(stub, documents) if prune else []
        if surplus and not dry_run and not yes:
            _ask(surplus)
        if len(documents) > 1 and not dry_run:
            for document in documents:
                _commit(stub, document, control_pb2.ApplyRequest(dry_run=True, override=override), timeout)
        for document in documents:
            request = control_pb2.ApplyRequest(
                expected_revision=expected,
                change=change_by_me(why),
                wait=wait_for(timeout, applied=wait),
                dry_run=dry_run,
                override=override,
            )
            answer = _commit(stub, document, request, timeout)
            results.append(applied_value(answer))
            rows.append(applied_row(answer, dry_run=dry_run))
            late += answer.change.laggards
            warn(answer.change.warnings, document.model)
            active.append(in_force(answer.route, dry_run=dry_run))
        for route in surplus:
            change = _delete(stub, route, why or f"not in {file}", timeout, dry_run=dry_run, override=override)
            results.append(change_value(change) | {"deleted": not dry_run})
            fate = "would be deleted" if dry_run else "deleted"
            rows.append([route.model, change.revision, fate, f"{change.moved_buckets / 10_000:g} %", ""])
            late += change.laggards
    show(results, options.output, columns=COLUMNS, rows=rows, note=active)
    complain(late)


def _commit(
    stub: control_pb2_grpc.ControlStub, document: Document, request: control_pb2.ApplyRequest, timeout: float
) -> control_pb2.ApplyResponse:
    request.document_json = document.text
    answer: control_pb2.ApplyResponse = stub.Apply(request, timeout=timeout + 10)
    return answer


def _surplus(stub: control_pb2_grpc.ControlStub, documents: Sequence[Document]) -> list[control_pb2.Route]:
    """Returns the routes of models without a document. Raises: Failure if the routes cannot be listed."""
    listed = stub.ListRoutes(control_pb2.ListRoutesRequest(), timeout=10)
    if listed.stale:
        raise Failure(Exit.REFUSED, "--prune: the store is away, so nobody can tell which routes there are")
    wanted = {document.model for document in documents}
    return [route for route in listed.routes if route.model not in wanted]


def _delete(
    stub: control_pb2_grpc.ControlStub,
    route: control_pb2.Route,
    reason: str,
    timeout: float,
    *,
    dry_run: bool,
    override: bool,
) -> control_pb2.ChangeResponse:
    """Deletes the route as it was listed, but not if it has changed since."""
    request = control_pb2.DeleteRouteRequest(
        model=route.model,
        expected_revision=route.revision,
        change=change_by_me(reason),
        wait=wait_for(timeout),
        dry_run=dry_run,
        override=override,
    )
    answer: control_pb2.ChangeResponse = stub.DeleteRoute(request, timeout=timeout + 10)
    return answer


def _ask(surplus: Sequence[control_pb2.Route]) -> None:
    names = ", ".join(route.model for route in surplus)
    try:
        agreed = typer.confirm(f"Delete the routes of {names}?", err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise Failure(Exit.USAGE, f"nothing was changed: --prune would delete the routes of {names}; say --yes")
