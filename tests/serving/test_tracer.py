"""Which calls are sampled, and what finds no room."""

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import Code
from gateway.serving.call import Call
from gateway.serving.call_trace import CallTrace, parent_of
from gateway.serving.tracer import Tracer
from gateway.telemetry.finished_trace import MOST_WAITING

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Nobody:
    """Is told nothing."""

    def submitted(self, call: Call) -> None: ...

    def answered(self, call: Call) -> None: ...

    def withdrawn(self, call: Call) -> None: ...


def ended(tracer: Tracer, trace: CallTrace | None) -> None:
    call = Call("m", "", "r", Nobody())
    call.trace = trace
    tracer.finish(call, Code.OK, "r")


@pytest.mark.parametrize(
    ("value", "parent"),
    [
        (f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", (TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", (TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what.the.future.brings", (TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("", None),
    ],
)
def test_a_parent_is_read_as_the_specification_says(value: str, parent: tuple[str, str, bool] | None) -> None:
    assert parent_of(value) == parent


@given(st.text())
@example(f"00-{TRACE}-{SPAN}-0g")
def test_what_is_no_traceparent_is_as_none(text: str) -> None:
    assert parent_of(text) is None
    trace = Tracer(1.0, Random(1)).begin(text)
    assert trace is not None
    assert trace.parent_id == ""


@given(st.integers())
@example(0)
def test_a_share_of_the_roots_is_sampled_and_every_id_is_its_own(seed: int) -> None:
    tracer = Tracer(0.25, Random(seed))
    traces = [trace for trace in (tracer.begin(None) for _ in range(2000)) if trace is not None]
    assert 350 < len(traces) < 650
    assert len({trace.trace_id for trace in traces}) == len({trace.span_id for trace in traces}) == len(traces)
    assert {(len(trace.trace_id), len(trace.span_id)) for trace in traces} == {(32, 16)}


def test_nothing_is_sampled_at_no_share_and_everything_at_the_whole() -> None:
    assert Tracer(0.0, Random(1)).begin(None) is None
    assert all(Tracer(1.0, Random(seed)).begin(None) for seed in range(100))


def test_what_finds_no_room_is_counted() -> None:
    tracer = Tracer(1.0, Random(1))
    for _ in range(MOST_WAITING + 3):
        ended(tracer, tracer.begin(None))
    assert tracer.counts() == {"sampled": MOST_WAITING + 3, "dropped": 3}
    assert len(tracer.take()) == MOST_WAITING
    assert tracer.take() == []
    ended(tracer, None)
    assert tracer.counts() == {"sampled": MOST_WAITING + 3, "dropped": 3}
