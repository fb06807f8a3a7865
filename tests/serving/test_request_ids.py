"""Ids that are made for requests without one."""

from time import time
from uuid import RFC_4122, UUID

from gateway.serving.call import Call
from gateway.serving.request_ids import RequestIds


class Nobody:
    """A receiver that is told nothing."""

    def answered(self, call: Call) -> None: ...

    def submitted(self, call: Call) -> None: ...

    def withdrawn(self, call: Call) -> None: ...


def call(request_id: str = "") -> Call:
    return Call("m", "", request_id, Nobody())


def test_they_are_uuids_of_version_7_in_order_of_time_and_none_comes_twice() -> None:
    before_ms = int(time() * 1000)
    ids, others = RequestIds(), RequestIds()
    made = [ids.of(call()) for _ in range(20_000)]
    uuids = [UUID(one) for one in made]
    assert [str(one) for one in uuids] == made
    assert {(one.version, one.variant) for one in uuids} == {(7, RFC_4122)}
    assert made == sorted(made)
    assert len({*made, *(others.of(call()) for _ in range(20_000))}) == 40_000
    assert all(before_ms - 1 <= one.int >> 80 <= time() * 1000 + 1 for one in uuids)


def test_a_call_keeps_its_id() -> None:
    ids, own, unnamed = RequestIds(), call("mine"), call()
    assert ids.of(own) == "mine"
    assert ids.of(unnamed) == ids.of(unnamed)
