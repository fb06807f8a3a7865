"""Changes of a model's route under load, and which versions they make legal at which moment."""

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from gateway.pb import control_pb2 as pb
from gateway.pb import inference_pb2
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from loadtests.job.route_guard import CHANGE, DEADLINE_S, former_route
from loadtests.job.scenario_plan import CanaryPlan, FlipPlan, KeyPlan
from loadtests.job.tally import Sighting
from loadtests.job.target import LoadTarget, TargetFailed, call_text
from loadtests.legality import LegalVersions

_WAIT: Final = pb.WaitFor(applied=True, timeout_ms=10_000)
_LOOK_S: Final = 0.25
_SETTLED_S: Final = 1.0  # after the gateway's own change was seen: every worker has followed


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """Something that was done to the route. Units: seconds from the first measured call."""

    at_s: float
    text: str


@dataclass(slots=True)
class ChangeLog:
    """What was done, and what is wrong with it. `settled_s`: from then on a canary was gone."""

    events: list[ChangeEvent] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    applied_ms: list[float] = field(default_factory=list)
    settled_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        times = sorted(self.applied_ms)
        return {
            "events": [{"second": round(event.at_s, 3), "text": event.text} for event in self.events],
            "changes": len(times),
            "applied-ms": {"p50": times[len(times) // 2], "max": times[-1]} if times else {},
            "problems": self.problems,
        }


def two_versions(target: LoadTarget, model: str, given: tuple[str, ...]) -> tuple[str, str]:
    """Returns the older and the newer of the versions between which a route changes. Raises: TargetFailed."""
    with target.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            index = stub.RepositoryIndex(inference_pb2.RepositoryIndexRequest(ready=True), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            raise TargetFailed(f"versions of model {model!r}: {call_text(error)}") from None
    ready = sorted((one.version for one in index.models if one.name == model), key=_age)
    if missing := [version for version in given if version not in ready]:
        raise TargetFailed(
            f"version {missing[0]!r} of model {model!r} is not ready; ready are {', '.join(ready) or 'none'}"
        )
    if given:
        return given[0], given[1]
    if len(ready) < 2:
        raise TargetFailed(f"model {model!r} has {len(ready)} ready version, it takes two to change between them")
    return ready[-2], ready[-1]


def _age(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (1 << 62, version)


class RouteChanges:
    """Changes the route of one model while it is called: a thread of its own from `begin` to `end`.

    A change of somebody else, an operator's rollback for one, ends the changes: it is not written over.

    Order: a `RouteGuard` of the model is there before, and longer.
    """

    def __init__(
        self,
        target: LoadTarget,
        model: str,
        plan: FlipPlan | CanaryPlan,
        *,
        seconds: float,
        key: KeyPlan | None,
        owner: str,
    ) -> None:
        """Puts the first route in force; `owner` is the guard's. Raises: TargetFailed."""
        self._owner = owner
        self._revision = 0
        self.log = ChangeLog()
        self._target = target
        self._model = model
        self._plan = plan
        self._seconds = seconds
        self._key = key
        self._start_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
        self._older, self._newer = two_versions(target, model, plan.versions)
        try:
            with self._control() as control:
                former = former_route(control, model)
                self._revision = former.revision if former is not None else 0
                self._apply(control, self._first())
        except grpc.RpcError as error:
            raise TargetFailed(f"the route of {model!r}: {call_text(error)}") from None
        self._legal = LegalVersions([self._older], time.time())

    def begin(self, start_s: float) -> None:
        """Changes begin at that moment, in seconds since the epoch."""
        self._start_s = start_s
        self._thread.start()

    def end(self) -> None:
        """Nothing is changed any more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def judge(self, sightings: list[Sighting], slack_s: float = 0.001) -> list[str]:
        """Returns what is wrong: answers by versions that no moment of their call allowed, and what changes met."""
        wrong: dict[str, int] = {}
        for model, version, sent_s, received_s in sightings:
            if model == self._model and version not in self._legal.between(sent_s - slack_s, received_s + slack_s):
                wrong[version] = wrong.get(version, 0) + 1
        return [
            *(
                f"version {version} answered {count} calls while it was not in force"
                for version, count in wrong.items()
            ),
            *self.log.problems,
        ]

    # ---- the thread ----

    def _run(self) -> None:
        try:
            with self._control() as control:
                if isinstance(self._plan, FlipPlan):
                    self._flip(control, self._plan)
                else:
                    self._try_canary(control, self._plan)
        except grpc.RpcError as error:
            self.log.problems.append(f"a change of the route failed: {call_text(error)}")

    def _flip(self, control: ControlStub, plan: FlipPlan) -> None:
        versions, active, due_s = (self._older, self._newer), 0, self._start_s + plan.every_s
        while not self._sleep_until(due_s):
            before, active = versions[active], 1 - active
            after = versions[active]
            self._legal.allow([before, after], time.time())
            self._apply(control, self._blue_green(after))
            self._legal.allow([after], time.time())
            self._note(f"version {after} is in force")
            due_s = max(due_s + plan.every_s, time.time())

    def _try_canary(self, control: ControlStub, plan: CanaryPlan) -> None:
        if self._sleep_until(self._start_s + plan.start * self._seconds):
            return
        self._legal.allow([self._older, self._newer], time.time())
        self._apply(control, self._canary(plan))
        self._note(f"version {self._newer} gets {100 * plan.weight:g} % of the calls")
        end_s = self._start_s + plan.end * self._seconds
        if plan.judged_within_s:
            self._await_judge(control, plan, min(end_s, time.time() + plan.judged_within_s))
            return
        if self._sleep_until(end_s):
            return
        self._apply(control, self._first())
        self._settle(time.time())
        self._note(f"version {self._newer} is taken back")

    def _await_judge(self, control: ControlStub, plan: CanaryPlan, end_s: float) -> None:
        began_s = time.time()
        while time.time() < end_s:
            route = former_route(control, self._model)
            if route is None or _share_of_arm(route, "canary") == 0:
                self._note(f"the gateway took version {self._newer} back after {time.time() - began_s:.1f} s")
                if not self._sleep_until(time.time() + _SETTLED_S):
                    self._settle(time.time())
                return
            if self._sleep_until(time.time() + _LOOK_S):
                break
        self.log.problems.append(
            f"the gateway did not take version {self._newer} back within {time.time() - began_s:.1f} s "
            f"({plan.judged_within_s:g} s were allowed)"
        )

    def _settle(self, moment_s: float) -> None:
        self._legal.allow([self._older], moment_s)
        self.log.settled_s = moment_s - self._start_s

    def _sleep_until(self, moment_s: float) -> bool:
        """Returns whether it is all over."""
        return self._stop.wait(max(0.0, moment_s - time.time()))

    def _note(self, text: str) -> None:
        self.log.events.append(ChangeEvent(time.time() - self._start_s, text))

    # ---- the route ----

    def _control(self) -> "_Control":
        return _Control(self._target)

    def _apply(self, control: ControlStub, document: dict[str, Any]) -> None:
        answer: pb.ApplyResponse = control.Apply(
            pb.ApplyRequest(
                document_json=json.dumps(document), expected_revision=self._revision, change=CHANGE, wait=_WAIT
            ),
            timeout=DEADLINE_S,
        )
        self._revision = answer.change.revision
        if answer.change.laggards:
            self.log.problems.append(f"workers did not follow in time: {', '.join(answer.change.laggards)}")
        self.log.applied_ms.append(answer.change.applied_us / 1000)

    def _first(self) -> dict[str, Any]:
        if isinstance(self._plan, FlipPlan):
            return self._blue_green(self._older)
        return self._document({"stable": self._older}, {"pinned": {"arm": "stable"}})

    def _blue_green(self, version: str) -> dict[str, Any]:
        arms = {"a": self._older, "b": self._newer}
        [active] = [arm for arm, one in arms.items() if one == version]
        return self._document(arms, {"blueGreen": {"active": active}})

    def _canary(self, plan: CanaryPlan) -> dict[str, Any]:
        canary: dict[str, Any] = {"stable": "stable", "canary": "canary", "weight": f"{plan.weight:.4%}"}
        if plan.judged_within_s:
            canary = {
                "steps": [{"weight": f"{plan.weight:.4%}", "hold": "1h"}],
                "analysis": {"alpha": 0.01, "onFail": "rollback", "guardrails": [{"kind": "errors"}]},
            }
        return self._document({"stable": self._older, "canary": self._newer}, {"canary": canary})

    def _document(self, arms: dict[str, str], strategy: dict[str, Any]) -> dict[str, Any]:
        spec: dict[str, Any] = {"arms": {arm: {"version": one} for arm, one in arms.items()}, "strategy": strategy}
        if self._key is not None:
            spec["key"] = {"from": [f"metadata:{self._key.metadata}"]}
        metadata = {"model": self._model, "owner": self._owner}
        return {"apiVersion": "gateway/v1", "kind": "Route", "metadata": metadata, "spec": spec}


class _Control:
    """The control service, over a connection of its own."""

    def __init__(self, target: LoadTarget) -> None:
        self._channel = target.channel(target.control or target.server)

    def __enter__(self) -> ControlStub:
        return ControlStub(self._channel.__enter__())  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self._channel.__exit__(*error)


def _share_of_arm(route: pb.Route, arm: str) -> int:
    """Returns how many of the buckets the arm has; the whole table is one arm's where it is not listed."""
    return sum(interval.end - interval.start for interval in route.table if interval.arm == arm)
