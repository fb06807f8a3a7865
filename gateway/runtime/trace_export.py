"""Traces on their way out: fetched from the workers, made into spans, sent by OTLP over HTTP.

It runs in the control process, so that neither the making of spans nor a collector that is away costs a request
anything. While one export is under way nothing more is fetched: what the workers have then waits there, bounded.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

import gateway
from gateway.errors import GatewayError
from gateway.runtime.otlp_settings import read_otlp_settings
from gateway.runtime.peers import Payload
from gateway.runtime.sections import TraceOptions
from gateway.runtime.trace_sender import TraceSender
from gateway.telemetry.finished_trace import MOST_WAITING, FinishedTrace
from gateway.telemetry.span_encoding import encode_request

POLL_SECONDS: Final = 1.0
_TRACES_AT_ONCE: Final = 512
_ANSWER_LIMIT_S: Final = 3.0
_LAST_LIMIT_S: Final = 1.5
_EXPORTED, _FAILED = "exported", "failed"
_log = logging.getLogger(__name__)
Fetch = Callable[[], Awaitable[Mapping[int, Payload | GatewayError]]]


class TraceExport:
    """Exports what the workers have sampled; `counts` says what became of the spans.

    `fetch` asks each worker for its traces. Nothing is delivered twice; what is lost on the way is not made again.
    """

    def __init__(
        self,
        sender: TraceSender,
        fetch: Fetch,
        resource: Mapping[str, str],
        *,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.counts: Counter[str] = Counter({_EXPORTED: 0, _FAILED: 0})
        self._sender = sender
        self._fetch = fetch
        self._resource = resource
        self._waiting: list[FinishedTrace] = []
        self._most_waiting = most_waiting
        self._trouble = False

    async def run(self) -> None:
        """Exports until it is cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.step()

    async def step(self) -> None:
        """Fetches once, and exports what there is."""
        for answer in (await self._fetch()).values():
            if not isinstance(answer, GatewayError):
                self.take(answer)
        waiting, self._waiting = self._waiting, []
        if waiting:
            await self._export(waiting)

    def take(self, answer: Payload) -> None:
        """Takes the traces of a worker, to be exported with the next step. A worker of another release says nothing."""
        try:
            traces = msgspec.convert(answer.get("traces", []), list[FinishedTrace])
        except msgspec.ValidationError:
            _log.warning("traces of a worker cannot be read: is it another release?")
            return
        self._waiting += traces[: max(0, self._most_waiting - len(self._waiting))]

    async def close(self) -> None:
        """Exports what workers told as they ended, if that can be done at once."""
        self._sender.hurry(_LAST_LIMIT_S)
        try:
            async with asyncio.timeout(_LAST_LIMIT_S):
                await self.step()
        except TimeoutError:
            pass
        self._sender.close()

    async def _export(self, traces: Sequence[FinishedTrace]) -> None:
        for first in range(0, len(traces), _TRACES_AT_ONCE):
            part = traces[first : first + _TRACES_AT_ONCE]
            spans, taken = await asyncio.to_thread(self._send, part)
            self.counts[_EXPORTED if taken else _FAILED] += spans
            self._tell(failed=not taken)

    def _send(self, traces: Sequence[FinishedTrace]) -> tuple[int, bool]:
        """Returns how many spans the traces have, and whether the collector took them. On a thread."""
        request, spans = encode_request(traces, self._resource, "gateway", gateway.__version__)
        return spans, self._sender.send(request)

    def _tell(self, *, failed: bool) -> None:
        """Logs that the collector takes no spans, and that it does again, once each."""
        if failed and not self._trouble:
            _log.warning("the collector does not take traces: they are lost")
        elif self._trouble and not failed:
            _log.info("the collector takes traces again")
        self._trouble = failed


def make_trace_export(options: TraceOptions, fetch: Fetch) -> TraceExport:
    """Returns the export that the options ask for, by OpenTelemetry's variables. Raises: InvalidArgument."""
    settings = read_otlp_settings()
    sender = TraceSender(options.otlp_endpoint, settings, limit_s=_ANSWER_LIMIT_S)
    return TraceExport(sender, fetch, settings.resource)
