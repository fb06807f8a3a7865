"""A client whose calls begin by a schedule, whether earlier ones were answered or not.

A closed loop slows down with the server and so hides what overload does. Here latency counts from the moment at which a
call was to be sent: what the client itself was late counts too.

Source: Tene, "How not to measure latency" (coordinated omission).
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any, Final, cast

import ngh2

from loadtests.bench.body import METHOD

OK: Final = "0"
CANCELLED: Final = "1"  # the stream was reset when the deadline had passed
NO_ANSWER: Final = "none"  # the client's own deadline passed, and a little more
# Of output that is handed to the socket at a time, and that the kernel holds: little, so that a refused call's body is
# not on its way yet, and the next call's head does not wait behind it.
_CHUNK_BYTES: Final = 1 << 16
_WINDOW_BYTES: Final = 1 << 24
_SETTLE_S: Final = 0.25  # how long after their deadline answers are waited for


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one caller sends: a framed message at a rate. `deadline_s` is what it tells the server."""

    body: bytes
    per_second: float
    deadline_s: float
    headers: tuple[tuple[bytes, bytes], ...] = ()
    connections: int = 4


@dataclass(slots=True)
class Outcome:
    """What became of the calls of one caller over `seconds`.

    Units: seconds. `latencies_s` count from the scheduled moment, `refusals_s` from the sending, which was at the
           moments `refused_at_s`, on the clock of the load.
    """

    seconds: float
    codes: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    refusals_s: list[float] = field(default_factory=list)  # from the sending: what the server took to refuse
    late: int = 0  # answers with status OK that came after the deadline
    late_by_s: float = 0.0
    lag_s: float = 0.0  # the most by which a call was sent after its time
    refused_at_s: list[float] = field(default_factory=list)

    @property
    def offered(self) -> int:
        return sum(self.codes.values())

    @property
    def goodput(self) -> float:
        """Right answers within their deadline, per second."""
        return (self.codes[OK] - self.late) / self.seconds

    def latency_s(self, share: float) -> float:
        return _percentile(self.latencies_s, share)

    def refusal_s(self, share: float, *, after_s: float = 0.0) -> float:
        """Returns what so many of the refusals took at most, of those sent so long after the first one or later."""
        begin_s = min(self.refused_at_s, default=0.0) + after_s
        later = [took for at_s, took in zip(self.refused_at_s, self.refusals_s, strict=True) if at_s >= begin_s]
        return _percentile(later, share)


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def arrivals(per_second: float, seconds: float, seed: int) -> list[float]:
    """Returns when calls begin: a Poisson process, the same for the same seed."""
    draw = Random(seed)
    moments = []
    now_s = draw.expovariate(per_second)
    while now_s < seconds:
        moments.append(now_s)
        now_s += draw.expovariate(per_second)
    return moments


class _Sent:
    """A call that is not answered yet."""

    __slots__ = ("code", "due_s", "sent_s")

    def __init__(self, due_s: float, sent_s: float) -> None:
        self.due_s = due_s
        self.sent_s = sent_s
        self.code = ""


class _Connection(asyncio.Protocol):
    """One connection of a caller. What the server does not take in time stays in ngh2, as with any client."""

    def __init__(self, traffic: Traffic, outcome: Outcome) -> None:
        self._traffic = traffic
        self._outcome = outcome
        self._h2 = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=True))
        self._calls: dict[int, _Sent] = {}
        self._paused = False
        self._transport: asyncio.Transport
        self._fields = (
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", METHOD.encode()), (b":authority", b"loadtests"),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"),
            (b"grpc-timeout", b"%dm" % int(traffic.deadline_s * 1000)), *traffic.headers,
        )  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_CHUNK_BYTES)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK_BYTES)
        self._h2.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
        self._h2.set_local_window_size(_WINDOW_BYTES)
        self._flush()

    @property
    def waiting(self) -> int:
        return len(self._calls)

    def send(self, due_s: float) -> None:
        now_s = monotonic()
        self._outcome.lag_s = max(self._outcome.lag_s, now_s - due_s)
        try:
            stream_id = self._h2.send_request(self._fields)
            self._h2.send_data(stream_id, self._traffic.body, end_stream=True)
        except ngh2.NGH2Error:
            self._outcome.codes["connection"] += 1
            return
        self._calls[stream_id] = _Sent(due_s, now_s)

    def expire(self, now_s: float) -> None:
        """Gives up calls that the server has not answered long after their deadline."""
        over = [
            stream_id
            for stream_id, call in self._calls.items()
            if now_s > call.sent_s + self._traffic.deadline_s + _SETTLE_S
        ]
        for stream_id in over:
            del self._calls[stream_id]
            self._h2.reset_stream(stream_id)
            self._outcome.codes[NO_ANSWER] += 1

    def flush(self) -> None:
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._h2.receive_data(data)
        now_s = monotonic()
        for event in cast(list[Any], self._h2.events()):
            kind = type(event)
            if kind is ngh2.ResponseReceived or kind is ngh2.TrailersReceived:
                call = self._calls.get(event.stream_id)
                status = dict(event.headers).get(b"grpc-status")
                if call is not None and status is not None:
                    call.code = status.decode()
                    self._count(call, now_s)
            elif kind is ngh2.StreamClosed:
                call = self._calls.pop(event.stream_id, None)
                if call is not None and not call.code:
                    over = now_s >= call.sent_s + self._traffic.deadline_s  # an answer that was not out in time
                    self._outcome.codes[CANCELLED if over else "reset"] += 1
            elif kind is ngh2.GoAwayReceived:
                self._outcome.codes["goaway"] += 1
        self._flush()

    def _count(self, call: _Sent, now_s: float) -> None:
        outcome = self._outcome
        outcome.codes[call.code] += 1
        if call.code == OK:
            outcome.latencies_s.append(now_s - call.due_s)
            over_s = now_s - call.sent_s - self._traffic.deadline_s
            if over_s > 0:
                outcome.late += 1
                outcome.late_by_s = max(outcome.late_by_s, over_s)
        elif call.code == "8":
            outcome.refusals_s.append(now_s - call.sent_s)
            outcome.refused_at_s.append(call.sent_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._calls:
            self._outcome.codes["connection"] += len(self._calls)
            self._calls.clear()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def _flush(self) -> None:
        while not self._paused and not self._transport.is_closing() and (data := self._h2.data_to_send(_CHUNK_BYTES)):
            self._transport.write(data)

    def close(self) -> None:
        self._transport.close()


async def drive(address: str, callers: Sequence[Traffic], seconds: float, *, seed: int = 1) -> list[Outcome]:
    """Sends what the callers send for that time, each on its own connections; returns what became of it."""
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    outcomes = [Outcome(seconds) for _ in callers]
    lines: list[list[_Connection]] = []
    for traffic, outcome in zip(callers, outcomes, strict=True):
        made = [
            await loop.create_connection(lambda t=traffic, o=outcome: _Connection(t, o), host, int(port))  # type: ignore[misc]
            for _ in range(traffic.connections)
        ]
        lines.append([connection for _, connection in made])
    due = sorted(
        (moment, number, place)
        for number, traffic in enumerate(callers)
        for place, moment in enumerate(arrivals(traffic.per_second, seconds, seed + number))
    )
    await asyncio.sleep(0.05)  # the settings of both sides are known
    start_s = monotonic()
    position = 0
    every = [connection for connections in lines for connection in connections]
    while position < len(due):
        now_s = monotonic() - start_s
        while position < len(due) and due[position][0] <= now_s:
            moment, number, place = due[position]
            connections = lines[number]
            connections[place % len(connections)].send(start_s + moment)
            position += 1
        for connection in every:
            connection.flush()
            connection.expire(start_s + now_s)
        ahead_s = due[position][0] - (monotonic() - start_s) if position < len(due) else 0.0
        await asyncio.sleep(max(0.0, min(ahead_s, 0.01)))
    while any(connection.waiting for connection in every):
        for connection in every:
            connection.expire(monotonic())
        await asyncio.sleep(0.01)
    for connection in every:
        connection.close()
    return outcomes
