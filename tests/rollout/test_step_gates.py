"""Who is asked whether a step may end: what is sent, which answers count, and that none is never a pass."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from gateway.rollout.evidence import no_evidence, with_answer
from gateway.rollout.guardrail_evidence import GateState, Verdict
from gateway.rollout.ramp import ASK_AGAIN_MS, Advance, Ask, Hold, RampState, Step, Stop, next_step
from gateway.rollout.step_gates import TRIES, GateQuestion, StepGates
from gateway.routing.document.guardrail import Guardrail
from gateway.routing.document.strategy import Canary
from gateway.telemetry.webhooks import signature
from tests.rollout.test_ramp import plan
from tests.routing.documents import Plain
from tests.routing.live import until
from tests.telemetry.test_webhooks import KEY, NOW_S, receiving

QUESTION = GateQuestion("r1", 2, 0)
SECOND = 1000


def gate(url: str = "http://gate.example/check", **options: str) -> Guardrail:
    analysis = plan(guardrails=[{"kind": "webhook", "url": url, **options}]).analysis
    assert analysis is not None
    return analysis.guardrails[0]


def answer(body: str, status: int = 200) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


CHUNKED = b'HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ver\r\n10\r\ndict": "fail"}  \r\n0\r\n\r\n'
ENDLESS = b"HTTP/1.1 200 X\r\nContent-Length: 99999999\r\n\r\n"


@asynccontextmanager
async def gates(key: bytes | None = KEY) -> AsyncIterator[StepGates]:
    made = StepGates(key, wall_s=lambda: NOW_S, pause_s=0.001)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()


async def told(made: StepGates, question: GateQuestion = QUESTION) -> GateState:
    states: list[GateState] = []

    def is_there() -> bool:
        state = made.take(question, 7)
        states.extend([state] if state is not None else [])
        return bool(states)

    await until(is_there)
    return states[0]


@pytest.mark.parametrize(
    ("answers", "verdict", "said", "tries"),
    [
        ([answer('{"verdict": "pass"}')], "pass", "", 1),
        ([answer('{"verdict": "fail", "reason": "sales day\\n"}')], "fail", "sales day", 1),
        ([answer('{"verdict": "inconclusive", "more": 1}', 201)], "inconclusive", "", 1),
        ([CHUNKED], "fail", "", 1),
        ([503, answer('{"verdict": "pass"}')], "pass", "", 2),
        ([503, b"", b"nonsense\r\n\r\n"], "nodata", "no answer (ValueError)", TRIES),
        ([404], "nodata", "answered 404", 1),
        ([302], "nodata", "answered 302", 1),
        ([answer("")], "nodata", "answered without a verdict", 1),
        ([answer('{"verdict": "pass", "more": ' + "[" * 9000 + "]" * 9000 + "}")], "nodata", "without a verdict", 1),
        ([answer('{"verdict": "nodata"}')], "nodata", "another verdict", 1),
        ([answer('{"verdict": true}')], "nodata", "answered without a verdict", 1),
        ([ENDLESS, ENDLESS, ENDLESS], "nodata", "no answer (ValueError)", TRIES),
        ([None, None, None], "nodata", "no answer within 0.1 s", TRIES),
    ],
)
async def test_only_a_verdict_is_one(
    answers: list[int | bytes | None], verdict: Verdict, said: str, tries: int
) -> None:
    async with receiving(*answers) as receiver, gates() as made:
        made.ask(QUESTION, gate(f"http://127.0.0.1:{receiver.port}/check?a=b", timeout="100ms"), {"model": "m"})
        state = await told(made)
        assert (state.verdict, state.asked_ms) == (verdict, 7)
        assert said in state.said
        assert len(receiver.taken) == tries
        headers, body = receiver.taken[0]
        assert headers["first"] == "POST /check?a=b HTTP/1.1"
        assert headers["webhook-signature"] == signature(KEY, "r1.2.0", int(NOW_S), body)
        assert json.loads(body) == {"model": "m"}


async def test_a_question_is_open_once_and_an_answer_is_taken_once() -> None:
    async with receiving(*[answer('{"verdict": "pass"}')] * 2) as receiver, gates(None) as made:
        asked = gate(f"http://127.0.0.1:{receiver.port}/")
        made.ask(QUESTION, asked, {})
        made.ask(QUESTION, asked, {})
        assert (await told(made)).verdict == "pass"
        assert made.take(QUESTION, 8) is None
        assert len(receiver.taken) == 1
        assert "webhook-signature" not in receiver.taken[0][0]
        made.ask(QUESTION, asked, {})
        assert (await told(made)).verdict == "pass"
        made.forget({"r2"})


async def test_a_slow_one_holds_up_nobody_else() -> None:
    async with receiving(None) as slow, receiving(answer('{"verdict": "fail"}')) as quick, gates() as made:
        other = GateQuestion("r2", 0, 1)
        made.ask(QUESTION, gate(f"http://127.0.0.1:{slow.port}/", timeout="1m"), {})
        made.ask(other, gate(f"http://127.0.0.1:{quick.port}/"), {})
        assert (await told(made, other)).verdict == "fail"
        assert made.take(QUESTION, 0) is None


# ---- what follows from an answer ----


def asked(action: str = "fail", **analysis: object) -> Canary:
    guardrails: list[Plain] = [{"kind": "webhook", "url": "http://gate.example/check", "action": action}]
    steps: list[Plain] = [{"weight": "0%", "hold": "60s"}, {"weight": "25%", "hold": "60s"}]
    return plan(steps, None, guardrails=guardrails, **analysis)


def after(canary: Canary, now_ms: int, gate_state: GateState | None = None) -> Step:
    assert canary.analysis is not None
    evidence = no_evidence(canary.analysis)
    if gate_state is not None:
        evidence = with_answer(evidence, 0, gate_state)
    evidence = msgspec.json.decode(msgspec.json.encode(evidence), type=type(evidence))
    return next_step(canary, RampState("ramping", 0, 0, evidence), now_ms)


def test_it_is_asked_at_the_end_of_the_step_and_not_before() -> None:
    assert isinstance(after(asked(), 59 * SECOND), Hold)
    assert after(asked(), 60 * SECOND) == Ask((0,), "waits for the answer to a webhook")


@pytest.mark.parametrize(
    ("verdict", "action", "analysis", "expected"),
    [
        ("pass", "fail", {}, Advance),
        ("fail", "fail", {}, Stop),
        ("fail", "fail", {"onFail": "hold"}, Hold),
        ("fail", "hold", {}, Hold),
        ("fail", "warn", {}, Advance),
        ("nodata", "fail", {}, Hold),
        ("nodata", "fail", {"onNoData": "rollback"}, Stop),
        ("nodata", "warn", {}, Advance),
        ("inconclusive", "fail", {}, Hold),
        ("inconclusive", "fail", {"onInconclusive": "advance"}, Advance),
        ("inconclusive", "fail", {"onInconclusive": "rollback"}, Stop),
    ],
)
def test_what_follows_from_a_verdict(
    verdict: Verdict, action: str, analysis: dict[str, object], expected: type[Step]
) -> None:
    given = GateState(verdict, "because", 61 * SECOND)
    step = after(asked(action, **analysis), 62 * SECOND, given)
    assert isinstance(step, expected)
    assert "webhook: gate.example " in step.reason
    assert "because" in step.reason
    later = after(asked(action, **analysis), 61 * SECOND + ASK_AGAIN_MS, given)
    settled = expected is not Hold or verdict == "fail"
    assert isinstance(later, expected if settled else Ask)


def test_what_settles_nothing_is_taken_back_after_the_longest_hold() -> None:
    canary, given = asked(maxHold="5m"), GateState("nodata", "no answer", 359 * SECOND)
    assert isinstance(after(canary, 359 * SECOND, given), Hold)
    step = after(canary, 360 * SECOND, given)
    assert isinstance(step, Stop)
    assert step.reason.startswith("held for 5m")
