"""Who is served by which arm while the weights go up, down and up again, as a client with thousands of keys sees it.

For each step every key asks once and every answer is checked. Then: the share of arm b is its weight within 4 sigma; no
more keys have moved than the change of that share needs; at a weight that was there before, the same keys are on b
again; and a canary that becomes an A/B test of the same weight moves nobody.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import grpc

from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from loadtests import budgets, documents, samples
from loadtests.samples import Sample
from loadtests.verdict import Violation, answer_of, check_answer, share_text

# The kind of route and the weight of arm b. A canary goes up, down and up, becomes an A/B test, and goes both ways.
KEYED: Final = {"canary": documents.keyed_canary, "ab": documents.keyed_ab}
STEPS: Final = (
    *(("canary", weight) for weight in (0.01, 0.05, 0.25, 0.5, 0.25, 0.05, 0.25, 0.5)),
    *(("ab", weight) for weight in (0.5, 0.3, 0.7, 0.5, 0.25)),
)
CONNECTIONS: Final = 8
IN_FLIGHT: Final = 16  # of each connection
_CHANGE: Final = pb.Change(actor="loadtests", reason="movement", source="api")
_WAIT: Final = pb.WaitFor(applied=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One weight, and the keys that were on arm b then."""

    kind: str
    weight: float
    revision: int
    on_b: frozenset[str]


@dataclass(slots=True)
class Movement:
    """The steps of a run in their order, and what is wrong with them."""

    keys: int
    steps: list[Step] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, step: Step) -> str:
        """One line about the step, which is judged against those before it."""
        hits = len(step.on_b)
        moved = least = 0
        trouble = [share_text(hits, self.keys, step.weight)]
        if self.steps:
            before = self.steps[-1]
            moved, least = len(step.on_b ^ before.on_b), abs(hits - len(before.on_b))
            if moved != least:
                trouble.append(f"{moved} keys moved, {least} had to")
        same = [one for one in self.steps if one.weight == step.weight]
        if same and same[-1].on_b != step.on_b:
            trouble.append(f"{len(same[-1].on_b ^ step.on_b)} keys are not where they were at this weight before")
        name = f"{step.kind} {step.weight:.0%}, revision {step.revision}"
        self.problems += [f"{name}: {text}" for text in trouble if text]
        self.steps.append(step)
        back = f", the same {hits} keys as before" if same and same[-1].on_b == step.on_b else ""
        return f"{name}: {hits} of {self.keys} on b ({hits / self.keys:.2%}), {moved} moved (least: {least}){back}"


def run(options: Any) -> int:
    """The exit code: 0 if every step was as it had to be."""
    rows = samples.load(Path(options.samples), options.model)
    keys = [f"user-{number}" for number in range(options.keys)]
    movement = Movement(len(keys))
    calls, began = 0, perf_counter()
    with ExitStack() as stack:
        channels = [stack.enter_context(_connected(options.server)) for _ in range(CONNECTIONS)]
        control = ControlStub(channels[0])  # type: ignore[no-untyped-call]
        stack.enter_context(_route_kept(control, options.model))
        for kind, weight in STEPS:
            revision = _apply(control, KEYED[kind](options.model, weight))
            try:
                arms = ask(channels, options.model, keys, rows, revision)
            except (grpc.RpcError, Violation) as error:
                movement.problems.append(f"{kind} {weight:.0%}: {error}")
                break
            calls += len(arms)
            on_b = frozenset(key for key, arm in arms.items() if arm == "b")
            print(movement.add(Step(kind, weight, revision, on_b)), flush=True)
    print(f"{calls} answers in {perf_counter() - began:.0f} s")
    for text in movement.problems:
        print(f"FAILED: {text}")
    print(dumps({"requests": calls, "failures": len(movement.problems), "found": movement.problems}))
    sys.stdout.flush()
    return 1 if movement.problems else 0


def ask(
    channels: Sequence[grpc.Channel], model: str, keys: Sequence[str], rows: Sequence[Sample], revision: int
) -> Mapping[str, str]:
    """The arm of each key, asked once. Raises: RpcError; Violation (a wrong answer, or one by another revision)."""
    stubs = [GRPCInferenceServiceStub(channel) for channel in channels]  # type: ignore[no-untyped-call]
    arms: dict[str, str] = {}
    in_flight: list[tuple[str, Sample, Any]] = []
    width = IN_FLIGHT * len(stubs)
    for number, key in enumerate(keys):
        sample = rows[number % len(rows)]
        call = stubs[number % len(stubs)].ModelInfer.future(
            samples.request(model, sample, key), timeout=budgets.DEADLINE_S, metadata=((documents.KEY, key),)
        )
        in_flight.append((key, sample, call))
        if len(in_flight) == width:
            arms.update(_taken(in_flight, revision))
    arms.update(_taken(in_flight, revision))
    return arms


def _taken(in_flight: list[tuple[str, Sample, Any]], revision: int) -> Iterator[tuple[str, str]]:
    """Key and arm of each call; none is in flight afterwards."""
    for key, sample, call in in_flight:
        answer = answer_of(call.result(), call.trailing_metadata())
        check_answer(answer, sample, key)
        by = answer.said.get("x-gateway-revision")
        if by != str(revision):
            raise Violation(f"an answer by revision {by} after {revision} was in force everywhere")
        yield key, answer.arm
    in_flight.clear()


def _apply(control: ControlStub, document: str) -> int:
    """The revision that every live worker follows. Raises: RpcError, Violation."""
    request = pb.ApplyRequest(document_json=document, change=_CHANGE, wait=_WAIT)
    change = control.Apply(request, timeout=budgets.FLIP_DEADLINE_S + 5).change
    if change.laggards:
        raise Violation(f"workers that did not follow in time: {', '.join(change.laggards)}")
    return int(change.revision)


@contextmanager
def _connected(server: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


@contextmanager
def _route_kept(control: ControlStub, model: str) -> Iterator[None]:
    """The model begins without a route, and has its former one again at the end."""
    former = ""
    try:
        former = control.GetRoute(pb.GetRouteRequest(model=model), timeout=budgets.DEADLINE_S).document_json
        _delete(control, model)
    except grpc.RpcError as error:
        if not (isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND):
            raise
    try:
        yield
    finally:
        if former:
            _apply(control, former)
        else:
            _delete(control, model)


def _delete(control: ControlStub, model: str) -> None:
    request = pb.DeleteRouteRequest(model=model, change=_CHANGE, wait=_WAIT)
    control.DeleteRoute(request, timeout=budgets.FLIP_DEADLINE_S + 5)
