"""Sends one sender's share of a scenario's calls, each at its time, and counts what becomes of them."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from os import getpid
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from gateway.errors import InvalidArgument
from loadtests.job.arrivals import merged, share_of, steady
from loadtests.job.call_book import Call, CallBook, Message
from loadtests.job.generated_inputs import generate, open_axes
from loadtests.job.grpc_line import GrpcPool
from loadtests.job.input_files import read_inputs
from loadtests.job.model_signature import ModelSignature, ask_signature
from loadtests.job.pacer import Pacer
from loadtests.job.request_body import grpc_body, is_rest, rest_body
from loadtests.job.request_tensor import Inputs
from loadtests.job.rest_line import RestPool
from loadtests.job.scenario_plan import TrafficPlan
from loadtests.job.tally import Tally
from loadtests.job.target import LoadTarget, TargetFailed

_EXPIRE_S: Final = 0.05
_WARM_UP_SEED: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SenderOrder:
    """What one of `count` senders is to do: its share of the calls of a scenario."""

    target: LoadTarget
    traffic: tuple[TrafficPlan, ...]
    seconds: float
    warm_up_s: float = 0.0
    index: int = 0
    count: int = 1
    seed: int = 1
    watching: bool = False


class Sender:
    """Order: `prepare`, then `run` once, `close` at the end."""

    def __init__(self, order: SenderOrder) -> None:
        self._order = order
        self.book = CallBook(epoch_s=time.time() - monotonic(), watching=order.watching)
        self.notes: list[str] = []
        self._messages: list[list[Message]] = []
        self._pools: list[GrpcPool | RestPool] = []

    async def prepare(self) -> None:
        """Every request is ready, and a connection is there. Raises: TargetFailed, InvalidArgument."""
        for plan in self._order.traffic:
            signature = await asyncio.to_thread(signature_for, self._order.target, plan)
            inputs = await asyncio.to_thread(inputs_for, plan, signature)
            if plan.payload.source == "generate" and self._order.index == 0:
                self.notes += [line for line in open_axes(signature, plan.payload) if line not in self.notes]
            self._messages.append([_message(plan, one) for one in inputs])
            self._pools.append(self._pool(plan))
        for plan, pool in zip(self._order.traffic, self._pools, strict=True):
            try:
                await pool.open()
            except OSError as error:
                host, port = self._order.target.address_of(plan.protocol)
                raise TargetFailed(f"{host}:{port} ({plan.protocol}): {error.strerror or error}") from None

    def _pool(self, plan: TrafficPlan) -> GrpcPool | RestPool:
        target = self._order.target
        made = RestPool if is_rest(plan.protocol) else GrpcPool
        tls = target.tls_context("http/1.1" if is_rest(plan.protocol) else "h2")
        return made(plan, self.book, target.address_of(plan.protocol), tls, target.name, target.authorization)

    async def run(self, start_s: float, tell: Callable[[Tally], None], stop: asyncio.Event) -> None:
        """Sends every call at its time, from the monotonic `start_s` on, and returns when each has ended.

        `tell` is given what was counted, about once a second and at the end.
        """
        pacer, calls = Pacer(), self._calls()
        cpu_s, began_s = time.process_time(), monotonic()
        told_s = expired_s = monotonic()
        due = next(calls, None)
        try:
            while (due is not None or self.book.under_way) and not stop.is_set():
                now_s = monotonic()
                while due is not None and start_s + due[0] <= now_s:
                    self._send(due[1], start_s + due[0], int(due[0] // 1), now_s)
                    due = next(calls, None)
                    now_s = monotonic()
                for pool in self._pools:
                    pool.flush()
                if now_s > expired_s + _EXPIRE_S:
                    expired_s = now_s
                    for pool in self._pools:
                        pool.expire(now_s)
                if now_s > told_s + 1:
                    told_s = now_s
                    tell(self.book.taken())
                await pacer.until(start_s + due[0] if due is not None else now_s + 0.01)
        finally:
            pacer.close()
        self.book.tally.busy_s = time.process_time() - cpu_s
        self.book.tally.senders_s = monotonic() - began_s
        tell(self.book.taken())

    async def close(self) -> None:
        for pool in self._pools:
            await pool.close()

    def _calls(self) -> Iterator[tuple[float, Call]]:
        """Yields (seconds from the start, the call) in their order; those of the warm-up have negative times."""
        order, numbers = self._order, count(1)
        draws = [Random((order.seed, place, order.index).__repr__()) for place in range(len(order.traffic))]
        for warm in (True, False):
            schedules = []
            for place, plan in enumerate(order.traffic):
                if warm:
                    rate = plan.arrivals.rate_at(0.0)
                    early = steady(rate, plan.arrivals.spacing) if rate and order.warm_up_s else None
                    seed = order.seed + place + _WARM_UP_SEED
                    moments = early.moments(order.warm_up_s, seed) if early is not None else iter(())
                    moments = (moment - order.warm_up_s for moment in moments)
                else:
                    moments = plan.arrivals.moments(order.seconds, order.seed + place)
                schedules.append(share_of(moments, order.index, order.count))
            for moment, place, number in merged(schedules):
                plan, messages = order.traffic[place], self._messages[place]
                request_id = b"load-%d-%d-%d" % (getpid(), order.index, next(numbers))
                yield moment, Call(plan, messages[number % len(messages)], request_id, _metadata(plan, draws[place]))

    def _send(self, call: Call, due_s: float, second: int, now_s: float) -> None:
        call.due_s, call.second = due_s, second
        self.book.begin(call, now_s)
        self._pools[self._order.traffic.index(call.plan)].send(call)


def signature_for(target: LoadTarget, plan: TrafficPlan) -> ModelSignature:
    """Returns what the traffic's model takes, asked by the traffic's own protocol. Raises: TargetFailed."""
    return ask_signature(target, plan.model, plan.version, rest=is_rest(plan.protocol))


def inputs_for(plan: TrafficPlan, signature: ModelSignature) -> Sequence[Inputs]:
    """Returns the inputs that the traffic sends in turn. Raises: InvalidArgument."""
    payload = plan.payload
    if payload.source == "file":
        return read_inputs(Path(payload.path), signature, payload.rows)
    if payload.source == "log":
        try:
            from loadtests.job.logged_inputs import read_logged  # by DuckDB, which nothing else here needs
        except ModuleNotFoundError as error:
            raise InvalidArgument(
                f"inputs from a prediction log need {error.name}: pip install 'model-serving-gateway[analysis]' has it"
            ) from None
        return read_logged(Path(payload.path), signature, payload.distinct)
    if not signature.inputs:
        raise InvalidArgument(
            f"model {signature.model!r} names no inputs in its metadata: give a file of requests (--inputs FILE.json)"
        )
    return generate(signature, payload)


def _message(plan: TrafficPlan, inputs: Inputs) -> Message:
    return Message(rest=rest_body(plan, inputs)) if is_rest(plan.protocol) else Message(grpc=grpc_body(plan, inputs))


def _metadata(plan: TrafficPlan, draw: Random) -> tuple[tuple[bytes, bytes], ...]:
    if plan.key is None:
        return ()
    return ((plan.key.metadata.lower().encode(), b"user-%d" % draw.randrange(plan.key.count)),)
