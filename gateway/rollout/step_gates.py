"""Those who are asked whether a step may end: one signed POST each, tried again a few times, beside the judge's ticks.

The body says what the judge knows; the answer is JSON with a `verdict`, and a `reason` if one likes. The signature is
that of events (`telemetry.webhooks`). Whoever judges next asks again: an answer that nobody kept was never given.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args
from urllib.parse import urlsplit

import msgspec

from gateway.rollout.guardrail_evidence import GateState, Verdict
from gateway.routing.document.guardrail import Guardrail
from gateway.telemetry.webhooks import post, signature

TRIES: Final = 3
_ANSWER_BYTES: Final = 64 << 10
_REASON_CHARACTERS: Final = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """Names a guardrail at a step of a rollout."""

    rollout: str
    step: int
    place: int


class _Answer(msgspec.Struct):
    verdict: str
    reason: str = ""


class StepGates:
    """Asks, and keeps the answers until the judge takes them. Without a `key` nothing is signed.

    Units:  `pause_s` in seconds, before the second try; longer before each later one.
    """

    def __init__(self, key: bytes | None, *, wall_s: Callable[[], float], pause_s: float = 1.0) -> None:
        self._pause_s = pause_s
        self._key = key
        self._wall_s = wall_s
        self._asked: asyncio.Queue[tuple[GateQuestion, Guardrail, dict[str, object]]] = asyncio.Queue()
        self._open: set[GateQuestion] = set()
        self._answers: dict[GateQuestion, tuple[Verdict, str]] = {}

    def ask(self, question: GateQuestion, guardrail: Guardrail, known: dict[str, object]) -> None:
        """Begins to ask, unless that is being done; returns at once."""
        if question not in self._open:
            self._open.add(question)
            self._asked.put_nowait((question, guardrail, known))

    def take(self, question: GateQuestion, now_ms: int) -> GateState | None:
        """Returns the answer, once; None while there is none."""
        answer = self._answers.pop(question, None)
        if answer is None:
            return None
        self._open.discard(question)
        return GateState(answer[0], answer[1], now_ms)

    def forget(self, rollouts: set[str]) -> None:
        """Keeps no answers of rollouts that are not among these."""
        for question in [question for question in self._answers if question.rollout not in rollouts]:
            del self._answers[question]
            self._open.discard(question)

    async def run(self) -> None:
        """Asks for ever, all at the same time: a slow one holds up nobody else."""
        async with asyncio.TaskGroup() as group:
            while True:
                question, guardrail, known = await self._asked.get()
                group.create_task(self._ask(question, guardrail, known))

    async def _ask(self, question: GateQuestion, guardrail: Guardrail, known: dict[str, object]) -> None:
        url, timeout_s = str(guardrail.options["url"]), guardrail.number("timeout") / 1000
        body, why = msgspec.json.encode(known), ""
        for attempt in range(1, TRIES + 1):
            verdict, why, again = await self._attempt(url, question, body, timeout_s)
            if verdict is not None or not again:
                break
            if attempt < TRIES:
                await asyncio.sleep(self._pause_s * attempt)
        if verdict is None:
            _log.warning("the webhook at %s gave no verdict on a step: %s", urlsplit(url).hostname, why)
        self._answers[question] = (verdict or "nodata", why)

    async def _attempt(
        self, url: str, question: GateQuestion, body: bytes, timeout_s: float
    ) -> tuple[Verdict | None, str, bool]:
        """Returns the verdict (None for none), its reason or why there is none, and whether another try may help."""
        now_s = int(self._wall_s())
        name = f"{question.rollout}.{question.step}.{question.place}"
        headers = {"Content-Type": "application/json", "webhook-id": name, "webhook-timestamp": str(now_s)}
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, name, now_s, body)
        parts = urlsplit(url)
        context = ssl.create_default_context() if parts.scheme == "https" else None
        try:
            async with asyncio.timeout(timeout_s):
                status, answer = await post(parts, headers, body, context, answer_bytes=_ANSWER_BYTES)
        except TimeoutError:
            return None, f"no answer within {timeout_s:g} s", True
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            return None, f"no answer ({type(error).__name__})", True
        if not 200 <= status < 300:
            return None, f"answered {status}", status >= 500
        return *_verdict(answer), False


def _verdict(answer: bytes) -> tuple[Verdict | None, str]:
    try:
        told = msgspec.json.decode(answer, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, "answered without a verdict"
    reason = "".join(char for char in told.reason[:_REASON_CHARACTERS] if char.isprintable())
    for verdict in get_args(Verdict):
        if told.verdict == verdict and verdict != "nodata":
            return verdict, reason
    return None, "answered with another verdict than pass, fail and inconclusive"
