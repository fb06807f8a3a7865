"""What of an answer a caller of few models is shown."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from gateway.access.permissions import RPCS, Scope
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

    async def Models(self, request: pb.ModelsRequest, context: object) -> pb.ModelsResponse:
        mine = pb.StepPin(model="mine", version="1", ensemble="hers", step=1, source="uri")
        hers = pb.StepPin(model="hers", version="2", ensemble="e", step=1, source="uri")
        return pb.ModelsResponse(pins=[mine, hers], trouble="hers is away")

    def __getattr__(self, name: str) -> object:
        return self.Workers  # whatever else the table names is not called here


class Health:
    """Tells how a model is."""

    async def Watch(self, request: object, context: object) -> AsyncIterator[int]:
        for state in range(3):
            yield state

    async def Check(self, request: object, context: object) -> int:
        return 0


class Revocable:
    """A context that finds out anew who calls."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    def prove(self) -> Principal:
        return self.principal


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


async def test_a_stream_of_one_model_ends_with_the_right_to_it() -> None:
    health = Health()
    ModelGuard(no_draft).guard(health, "grpc.health.v1.Health")
    caller = Revocable(FEW.principal)
    told = [told async for told in health.Watch(SimpleNamespace(service=""), caller)]
    assert told == [0, 1, 2]  # of the server: to everybody
    begun = health.Watch(SimpleNamespace(service="model/mine"), caller)
    assert await anext(begun) == 0
    caller.principal = NOBODY  # what everybody may ask is told to a caller whose token is good no more
    with pytest.raises(UnknownModel):
        await anext(begun)


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
    """Each list of things that have a model has to be filtered, also where a request may name one."""
    service = pb.DESCRIPTOR.services_by_name["Control"]
    unfiltered = [
        f"{method.name}.{field.name}"
        for method in service.methods
        for field in method.output_type.fields
        if field.is_repeated
        and field.message_type is not None
        and "model" in field.message_type.fields_by_name
        and RPCS[f"/gateway.v1.Control/{method.name}"].scope is not Scope.EVERYWHERE
        and (field.name, "model") not in RPCS[f"/gateway.v1.Control/{method.name}"].listed
    ]
    assert unfiltered == ["History.entries", "Plan.versions"]  # of the one model that the request has to name


async def test_who_reads_few_models_learns_nothing_of_the_ensembles_of_others(guarded: Control) -> None:
    for caller, shown in ((FEW, [("mine", HIDDEN, HIDDEN)]), (ALL, [("mine", "hers", "uri"), ("hers", "e", "uri")])):
        answer = await guarded.Models(pb.ModelsRequest(), caller)
        assert [(pin.model, pin.ensemble, pin.source) for pin in answer.pins] == shown
        assert [pin.version for pin in answer.pins] == ["1", "2"][: len(shown)]
        assert answer.trouble == (HIDDEN if caller is FEW else "hers is away")
