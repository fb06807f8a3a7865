"""Drafts over a running server: who may do what, what an edit undoes, and when a draft becomes a route."""

import asyncio

import grpc
import grpc.aio
import pytest

from gateway.pb import control_pb2 as pb
from gateway.routing.document.document import RouteDocument
from tests.api.operated import Operated
from tests.api.routes import ab, blue_green, route

pytestmark = pytest.mark.asyncio(loop_scope="session")


def by(actor: str, reason: str = "") -> pb.Change:
    return pb.Change(actor=actor, reason=reason, source="cli")


async def written(op: Operated, document: RouteDocument, **given: object) -> pb.DraftState:
    request = pb.DraftRequest(document_json=document.to_json(), change=by("ann", "canary of 2"), **given)  # type: ignore[arg-type]
    draft: pb.DraftState = await op.stub.Draft(request)
    return draft


async def approved(op: Operated, draft: pb.DraftState, actor: str, edit: int = 0) -> pb.ApproveResponse:
    answer: pb.ApproveResponse = await op.stub.Approve(pb.ApproveRequest(id=draft.id, edit=edit, change=by(actor)))
    return answer


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, str(caught.value.details())


async def test_the_last_approval_applies_the_draft(op: Operated) -> None:
    base = await op.apply(ab(90, 10))
    draft = await written(op, ab(50, 50), approvals=2)
    assert (draft.edit, draft.base_revision, draft.author, draft.state) == (1, base, "ann", "open")
    first = await approved(op, draft, "bob")
    assert not first.HasField("applied")
    assert (await approved(op, draft, "bob")).draft.approvals == ["bob"]
    assert await op.document() == ab(90, 10).to_json()
    last = await approved(op, draft, "cy")
    assert (last.draft.state, last.draft.revision) == ("applied", base + 1)
    assert last.applied.moved_buckets == 400_000
    assert last.applied.change.applied_by == ["w0"]
    entry = (await op.stub.History(pb.HistoryRequest(model="affine", limit=1))).entries[0]
    assert (entry.operation, entry.actor) == ("approve", "cy")
    assert entry.reason == f"canary of 2 (draft {draft.id} by ann, approved by bob, cy)"
    code, said = await refusal(op.stub.Approve(pb.ApproveRequest(id=draft.id, change=by("dan"))))
    assert (code, "is applied already" in said) == ("FAILED_PRECONDITION", True)


async def test_a_dry_run_of_an_approval_tells_what_it_would_come_to(op: Operated) -> None:
    base = await op.apply(ab(90, 10))
    draft = await written(op, ab(50, 50), approvals=2)
    tried = pb.ApproveRequest(id=draft.id, change=by("bob"), dry_run=True, expected_revision=base)
    answer = await op.stub.Approve(tried)
    assert (answer.applied.moved_buckets, list(answer.draft.approvals)) == (400_000, [])
    assert (await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))).revision == base
    wrong = pb.ApproveRequest(id=draft.id, change=by("bob"), expected_revision=base + 1)
    code, said = await refusal(op.stub.Approve(wrong))
    assert (code, f"was written for revision {base}, not {base + 1}" in said) == ("FAILED_PRECONDITION", True)
    right = pb.ApproveRequest(id=draft.id, change=by("bob"), expected_revision=base)
    assert list((await op.stub.Approve(right)).draft.approvals) == ["bob"]


async def test_nobody_approves_his_own_or_edits_anothers(op: Operated) -> None:
    draft = await written(op, ab())
    code, said = await refusal(op.stub.Approve(pb.ApproveRequest(id=draft.id, change=by("ann"))))
    assert (code, "somebody else" in said) == ("PERMISSION_DENIED", True)
    edit = pb.DraftRequest(id=draft.id, document_json=blue_green().to_json(), change=by("bob"))
    code, said = await refusal(op.stub.Draft(edit))
    assert (code, "of 'ann'" in said) == ("PERMISSION_DENIED", True)
    assert (await op.stub.GetDraft(pb.GetDraftRequest(id=draft.id))).document_json == ab().to_json()


async def test_an_edit_takes_the_approvals_away(op: Operated) -> None:
    draft = await written(op, ab(), approvals=2)
    await approved(op, draft, "bob")
    again = await written(op, ab(60, 40), id=draft.id, approvals=2)
    assert (again.id, again.edit, list(again.approvals)) == (draft.id, 2, [])
    code, said = await refusal(op.stub.Approve(pb.ApproveRequest(id=draft.id, edit=1, change=by("bob"))))
    assert (code, "at edit 2, not 1" in said) == ("FAILED_PRECONDITION", True)


async def test_a_draft_of_an_older_route_is_not_applied_until_it_is_written_again(op: Operated) -> None:
    await op.apply(ab(90, 10))
    draft = await written(op, ab(50, 50))
    newer = await op.apply(ab(80, 20))
    code, said = await refusal(op.stub.Approve(pb.ApproveRequest(id=draft.id, change=by("bob"))))
    assert (code, f"at revision {newer}" in said) == ("ABORTED", True)
    assert await op.document() == ab(80, 20).to_json()
    await written(op, ab(50, 50), id=draft.id)
    assert (await approved(op, draft, "bob")).draft.state == "applied"


async def test_a_version_that_is_not_there_is_refused_at_the_approval(op: Operated) -> None:
    draft = await written(op, route({"a": {"version": "9"}}, {"pinned": {"arm": "a"}}))
    code, said = await refusal(op.stub.Approve(pb.ApproveRequest(id=draft.id, change=by("bob"))))
    assert (code, "'9'" in said) == ("FAILED_PRECONDITION", True)
    assert (await op.stub.GetDraft(pb.GetDraftRequest(id=draft.id))).state == "open"


async def test_a_rejected_draft_stays_so(op: Operated) -> None:
    draft = await written(op, ab())
    code, said = await refusal(op.stub.Reject(pb.RejectRequest(id=draft.id, change=by("bob"))))
    assert (code, "needs a reason" in said) == ("INVALID_ARGUMENT", True)
    rejected = await op.stub.Reject(pb.RejectRequest(id=draft.id, change=by("bob", "not on Friday")))
    assert (rejected.state, rejected.decided_by, rejected.decision_reason) == ("rejected", "bob", "not on Friday")
    code, said = await refusal(op.stub.Approve(pb.ApproveRequest(id=draft.id, change=by("cy"))))
    assert (code, "is rejected already" in said) == ("FAILED_PRECONDITION", True)
    code, _ = await refusal(op.stub.Reject(pb.RejectRequest(id=draft.id, change=by("bob", "again"))))
    assert code == "FAILED_PRECONDITION"
    listed = await op.stub.ListDrafts(pb.ListDraftsRequest())
    assert (listed.drafts[0].id, listed.drafts[0].state) == (draft.id, "rejected")


async def test_racing_approvals_commit_once(op: Operated) -> None:
    base = await op.apply(ab(90, 10))
    draft = await written(op, ab(50, 50))
    calls = [op.stub.Approve(pb.ApproveRequest(id=draft.id, change=by(f"p{number}"))) for number in range(8)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    done = [answer for answer in answers if isinstance(answer, pb.ApproveResponse)]
    assert done
    assert {answer.draft.revision for answer in done} == {base + 1}
    assert (await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))).revision == base + 1


async def test_drafts_are_forgotten_in_the_end(op: Operated) -> None:
    draft = await written(op, ab())
    left_ms = await op.store.link.call("PTTL", op.store.keys.draft(draft.id))
    assert isinstance(left_ms, int)
    assert 6.9 * 86_400_000 < left_ms <= 7 * 86_400_000
    await op.store.link.call("DEL", op.store.keys.draft(draft.id))
    assert draft.id not in {one.id for one in (await op.stub.ListDrafts(pb.ListDraftsRequest())).drafts}


@pytest.mark.parametrize(
    ("method", "request_", "code", "said"),
    [
        ("GetDraft", pb.GetDraftRequest(id="0" * 12), "NOT_FOUND", "no draft"),
        ("GetDraft", pb.GetDraftRequest(id="../x"), "INVALID_ARGUMENT", "'../x' is not an id"),
        ("Approve", pb.ApproveRequest(id="0" * 12, change=by("bob")), "NOT_FOUND", "no draft"),
        ("Approve", pb.ApproveRequest(id="0" * 12), "INVALID_ARGUMENT", "change.actor: empty"),
        ("Approve", pb.ApproveRequest(id="0" * 12, edit=-1, change=by("bob")), "INVALID_ARGUMENT", "edit is -1"),
        ("Reject", pb.RejectRequest(id="0" * 12, change=by("bob", "x")), "NOT_FOUND", "no draft"),
        ("Draft", pb.DraftRequest(document_json=ab().to_json()), "INVALID_ARGUMENT", "change.actor: empty"),
        (
            "Draft",
            pb.DraftRequest(document_json=ab().to_json(), change=by("ann"), approvals=11),
            "INVALID_ARGUMENT",
            "11 is not 1 to 10",
        ),
        (
            "Draft",
            pb.DraftRequest(id="0" * 12, document_json=ab().to_json(), change=by("ann")),
            "NOT_FOUND",
            "no draft",
        ),
        ("Draft", pb.DraftRequest(document_json="{}", change=by("ann")), "INVALID_ARGUMENT", "apiVersion"),
    ],
)
async def test_what_is_refused(op: Operated, method: str, request_: object, code: str, said: str) -> None:
    refused, details = await refusal(getattr(op.stub, method)(request_))
    assert (refused, said in details) == (code, True), details
