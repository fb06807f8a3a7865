"""What a proven name does: it is the actor of history and audit, it cannot approve itself, and rules see it."""

from typing import Any, cast

import grpc
import grpc.aio
import pytest

from gateway.pb import control_pb2 as pb
from gateway.routing.store.change import OWN_SOURCES
from tests.access.guarded import Guarded, header
from tests.api.calls import good
from tests.api.operated import WAIT, Operated
from tests.api.routes import ab, pinned

pytestmark = pytest.mark.asyncio(loop_scope="session")


def claiming(actor: str, source: str = "cli") -> pb.Change:
    return pb.Change(actor=actor, reason="a reason", source=source)


async def test_the_proven_name_is_the_actor_and_another_one_is_told_as_a_claim(port: Guarded, worker: Operated) -> None:
    claims = {"": "cli", "operator": "cli", "the boss": "cli (claims the boss)", "x" * 200: "cli (claims xxx"}
    for share, (claim, told) in enumerate(claims.items(), 10):
        request = pb.ApplyRequest(document_json=ab(share, 100 - share).to_json(), change=claiming(claim), wait=WAIT)
        await port.control.Apply(request, metadata=header("operator"))
        history = await port.control.History(pb.HistoryRequest(model="affine", limit=1), metadata=header("operator"))
        [entry] = history.entries
        assert entry.actor == "operator"
        assert entry.source.startswith(told)
        assert len(entry.source) <= 64
        audit = await worker.stub.Audit(pb.AuditRequest(limit=1))
        assert [one.actor for one in audit.entries] == ["operator"]


async def test_who_drafts_cannot_approve_whatever_name_is_claimed(port: Guarded, worker: Operated) -> None:
    asked = pb.DraftRequest(document_json=ab(70, 30).to_json(), change=claiming("somebody"))
    draft: pb.DraftState = await port.control.Draft(asked, metadata=header("approver"))
    assert draft.author == "approver"
    for claim in ("", "somebody else"):
        approve = pb.ApproveRequest(id=draft.id, change=claiming(claim))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await port.control.Approve(approve, metadata=header("approver"))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "somebody else must approve it" in str(caught.value.details())
    approved: pb.ApproveResponse = await port.control.Approve(
        pb.ApproveRequest(id=draft.id, change=claiming("")), metadata=header("admin")
    )
    assert (approved.draft.state, list(approved.draft.approvals)) == ("applied", ["admin"])


async def test_an_idempotency_key_is_its_callers_own(port: Guarded, worker: Operated) -> None:
    async def applied(caller: str, share: int, key: str) -> int:
        change = pb.Change(reason="a reason", idempotency_key=key)
        asked = pb.ApplyRequest(document_json=ab(share, 100 - share).to_json(), change=change, wait=WAIT)
        answer: pb.ApplyResponse = await port.control.Apply(asked, metadata=header(caller))
        return answer.change.revision

    async def drafted(**edited: Any) -> pb.DraftState:
        asked = pb.DraftRequest(document_json=ab(66, 34).to_json(), change=claiming(""), **edited)
        return cast(pb.DraftState, await port.control.Draft(asked, metadata=header("approver")))

    first = await applied("operator", 62, "deploy-7")
    assert await applied("author", 63, "deploy-7") == first + 1  # not what somebody else did by that name
    assert await applied("operator", 64, "deploy-7") == first
    # Nor does anybody take the names that the gateway itself uses.
    draft = await drafted()
    await applied("operator", 65, f"draft:{draft.id}:{draft.edit + 1}")
    await drafted(id=draft.id, edit=draft.edit)
    approve = pb.ApproveRequest(id=draft.id, change=claiming(""))
    approved: pb.ApproveResponse = await port.control.Approve(approve, metadata=header("admin"))
    assert approved.draft.state == "applied"


@pytest.mark.parametrize("source", sorted(OWN_SOURCES))
async def test_nobody_passes_a_change_off_as_the_gateways_own(port: Guarded, worker: Operated, source: str) -> None:
    request = pb.ApplyRequest(document_json=ab(67, 33).to_json(), change=pb.Change(reason="a reason", source=source))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await port.control.Apply(request, metadata=header("operator"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"change.source is {source!r}, which only the gateway's own changes have"


async def test_rules_match_the_proven_tenant_and_identity(port: Guarded, worker: Operated) -> None:
    rules = [
        {"name": "ours", "match": {"tenant": {"exact": "acme"}}, "arm": "canary"},
        {"name": "hers", "match": {"identity": {"exact": "admin"}}, "arm": "canary"},
    ]
    await worker.apply(pinned("stable", rules=rules))
    for caller, reason in (("infer", "DEFAULT"), ("admin", "RULE:hers"), ("member", "RULE:ours")):
        # What a caller writes into its metadata proves nothing.
        metadata = (*header(caller), ("tenant", "acme"), ("identity", "admin"))
        call = port.inference.ModelInfer(good(version=""), metadata=metadata)
        await call
        assert dict(await call.trailing_metadata())["x-gateway-reason"] == reason
