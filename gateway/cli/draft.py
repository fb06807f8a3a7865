"""gateway draft ...: routes that one person proposes and others approve."""

from typing import Annotated

import msgspec
import typer

from gateway.cli.applied_change import applied_value, change_by_me, complain, took, wait_for, warn
from gateway.cli.change_options import CHANGING, ChangeCommand
from gateway.cli.client import control
from gateway.cli.documents import File, read_document
from gateway.cli.exits import Exit, Failure
from gateway.cli.flows import moved_text
from gateway.cli.printing import Format, show
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Reason, Server
from gateway.page.message_values import Value, moment
from gateway.pb import control_pb2

app = typer.Typer(no_args_is_help=True, help="Propose routes, and approve those of others.")

DraftId = Annotated[str, typer.Argument(help="Id of the draft.")]
COLUMNS = ("DRAFT", "EDIT", "MODEL", "STATE", "AUTHOR", "APPROVALS", "EDITED", "REASON")


@app.command(epilog="Example: gateway draft write -f route.yaml --reason 'canary of 13'")
def write(
    file: File,
    draft_id: Annotated[str, typer.Option("--id", help="Edit this draft of yours: it loses its approvals.")] = "",
    approvals: Annotated[int, typer.Option("--approvals", help="How many it needs.", min=1, max=10)] = 1,
    reason: Reason = "",
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Propose the document of a file; nothing is committed before others have approved it."""
    document = read_document(file)
    request = control_pb2.DraftRequest(
        id=draft_id, document_json=document.text, change=change_by_me(reason), approvals=approvals
    )
    with control(server) as stub:
        draft = stub.Draft(request, timeout=10)
    show(draft_value(draft), output, columns=COLUMNS, rows=[_row(draft)])


@app.command("list", epilog="Example: gateway draft list")
def list_drafts(server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Print the drafts of the last week, the newest first."""
    with control(server) as stub:
        answer = stub.ListDrafts(control_pb2.ListDraftsRequest(), timeout=10)
    value: list[Value] = [draft_value(draft) for draft in answer.drafts]
    rows = [_row(draft) for draft in answer.drafts]
    show(value, output, columns=COLUMNS, rows=rows, note="" if rows else "no drafts")


@app.command("show", epilog="Example: gateway draft show 1f0c2a9be77d")
def show_draft(draft_id: DraftId, server: Server = DEFAULT_SERVER, output: Output = Format.YAML) -> None:
    """Print a draft with its document; give the latter to `gateway plan -f -` to see what it would do."""
    with control(server) as stub:
        draft = stub.GetDraft(control_pb2.GetDraftRequest(id=draft_id), timeout=10)
    show(draft_value(draft), output, columns=COLUMNS, rows=[_row(draft)])


@app.command(cls=ChangeCommand, epilog="Example: gateway draft approve 1f0c2a9be77d --edit 2")
def approve(
    draft_id: DraftId,
    edit: Annotated[int, typer.Option("--edit", help="The edit that you read; 0 is the newest.", min=0)] = 0,
    override: Annotated[
        bool, typer.Option("--override", help="Also where that ends a rollout of the model that is running.")
    ] = False,
) -> None:
    """Approve somebody else's draft; the last approval that it needs applies it."""
    options = CHANGING.get()
    request = control_pb2.ApproveRequest(
        id=draft_id,
        edit=edit,
        change=change_by_me(options.reason),
        wait=wait_for(options.timeout),
        dry_run=options.dry_run,
        expected_revision=options.expect_revision,
        override=override,
    )
    with control(options.server) as stub:
        answer = stub.Approve(request, timeout=options.timeout + 10)
    draft, applied = answer.draft, answer.applied
    missing = draft.approvals_needed - len(draft.approvals)
    note = f"approved by {len(draft.approvals)} of {draft.approvals_needed}: {missing} more are needed"
    value = draft_value(draft) | {"applied": None}
    if answer.HasField("applied"):
        change = applied.change
        note = f"{change.model}: applied as revision {change.revision} {took(change)}".rstrip()
        if options.dry_run:
            note = f"{change.model}: would be applied to revision {change.revision}, {moved_text(change)}"
        value["applied"] = applied_value(applied)
    show(value, options.output, columns=COLUMNS, rows=[_row(draft)], note=note)
    warn(applied.change.warnings, draft.model)
    complain(applied.change.laggards)


@app.command(epilog="Example: gateway draft reject 1f0c2a9be77d --reason 'not before Monday'")
def reject(
    draft_id: DraftId,
    reason: Annotated[str, typer.Option("--reason", help="Why; required, and kept with the draft.")],
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Reject a draft for good, or withdraw your own."""
    if not reason.strip():
        raise Failure(Exit.USAGE, "--reason is empty: a rejection needs a reason")
    with control(server) as stub:
        draft = stub.Reject(control_pb2.RejectRequest(id=draft_id, change=change_by_me(reason)), timeout=10)
    show(draft_value(draft), output, columns=COLUMNS, rows=[_row(draft)])


def draft_value(draft: control_pb2.DraftState) -> dict[str, Value]:
    """Returns a draft for machines."""
    return {
        "id": draft.id,
        "edit": draft.edit,
        "model": draft.model,
        "state": draft.state,
        "author": draft.author,
        "reason": draft.reason,
        "approvals": list(draft.approvals),
        "approvals_needed": draft.approvals_needed,
        "base_revision": draft.base_revision,
        "edited_at": moment(draft.edited_at_us),
        "decided_by": draft.decided_by,
        "decision_reason": draft.decision_reason,
        "revision": draft.revision,
        "document": msgspec.json.decode(draft.document_json),
    }


def _row(draft: control_pb2.DraftState) -> list[Value]:
    state = f"{draft.state} as revision {draft.revision}" if draft.revision else draft.state
    approvals = f"{len(draft.approvals)} of {draft.approvals_needed} {', '.join(draft.approvals)}".rstrip()
    reason = draft.decision_reason or draft.reason
    return [
        draft.id,
        draft.edit,
        draft.model,
        state,
        draft.author,
        approvals,
        moment(draft.edited_at_us),
        reason,
    ]
