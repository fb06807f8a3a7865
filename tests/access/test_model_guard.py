"""What of an answer a caller of few models is shown."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from gateway.access.permissions import RPCS
from gateway.access.principal import ANONYMOUS, NOBODY, Grant, Principal, Role
from gateway.api.model_guard import HIDDEN, ModelGuard
from gateway.api.route_messages import principal_of
from gateway.errors import UnknownModel
from gateway.pb import control_pb2 as pb

FEW = SimpleNamespace(principal=Principal("few", "", "token", (Grant(Role.READER, ("mine*",)),)))
ALL = SimpleNamespace(principal=Principal("all", "", "token", (Grant(Role.READER),)))


async def no_draft(draft_id: str) -> str:
    raise AssertionError(draft_id)


class Control:
    """Answers as the control service does: with everything."""

    async def Workers(self, request: pb.WorkersRequest, context: object) -> pb.WorkersResponse:
        return pb.WorkersResponse(workers=[pb.Worker(id="a", error="hers: oops"), pb.Worker(id="b")])

    async def Watch(self, request: pb.WatchRequest, context: object) -> AsyncIterator[pb.Event]:
        yield pb.Event(committed=pb.HistoryEntry(model="hers"))
        yield pb.Event(committed=pb.HistoryEntry(model="mine-1"))
        yield pb.Event(committed=pb.HistoryEntry(model=""))
        yield pb.Event(worker=pb.WorkerChange(worker=pb.Worker(id="a", error="hers: oops")))
        yield pb.Event(store_away="hers is gone")
        yield pb.Event(settled=True)

    async def Audit(self, request: pb.AuditRequest, context: object) -> pb.HistoryResponse:
        return pb.HistoryResponse(entries=[pb.HistoryEntry(model=model) for model in ("hers", "mine", "", "mine-2")])

    def __getattr__(self, name: str) -> object:
        return self.Workers  # whatever else the table names is not called here


@pytest.fixture(scope="module")
def guarded() -> Control:
    made = Control()
    ModelGuard(no_draft).guard(made, "gateway.v1.Control")
    return made


async def test_texts_that_may_name_any_model_are_for_who_reads_all(guarded: Control) -> None:
    for caller, shown in ((FEW, HIDDEN), (ALL, "hers: oops")):
        answer = await guarded.Workers(pb.WorkersRequest(), caller)
        assert [worker.error for worker in answer.workers] == [shown, ""]


async def test_a_stream_leaves_out_what_is_of_others(guarded: Control) -> None:
    few = [event async for event in guarded.Watch(pb.WatchRequest(), FEW)]
    assert [event.WhichOneof("event") for event in few] == ["committed", "worker", "store_away", "settled"]
    assert few[0].committed.model == "mine-1"
    assert few[1].worker.worker.error == few[2].store_away == HIDDEN
    assert len([event async for event in guarded.Watch(pb.WatchRequest(), ALL)]) == 6


async def test_what_is_of_no_model_concerns_all(guarded: Control) -> None:
    assert [one.model for one in (await guarded.Audit(pb.AuditRequest(), FEW)).entries] == ["mine", "mine-2"]
    assert len((await guarded.Audit(pb.AuditRequest(), ALL)).entries) == 4
    with pytest.raises(UnknownModel):
        await guarded.Audit(pb.AuditRequest(model="hers"), FEW)


async def test_a_context_that_does_not_say_who_calls_is_nobodys(guarded: Control) -> None:
    assert principal_of(object()) is NOBODY
    assert principal_of(SimpleNamespace(principal="admin")) is NOBODY
    assert principal_of(SimpleNamespace(principal=ANONYMOUS)) is ANONYMOUS
    assert not (await guarded.Audit(pb.AuditRequest(), object())).entries


def test_every_answer_with_many_models_says_where_they_are_named() -> None:
    """A method without a model of its own whose answer lists things by model has to be filtered."""
    service = pb.DESCRIPTOR.services_by_name["Control"]
    unfiltered = []
    for method in service.methods:
        permission = RPCS[f"/gateway.v1.Control/{method.name}"]
        named = permission.scope != "the server" or bool(permission.listed)
        listed = [field.message_type for field in method.output_type.fields if field.is_repeated]
        if not named and any(one is not None and "model" in one.fields_by_name for one in listed):
            unfiltered.append(method.name)
    assert not unfiltered
