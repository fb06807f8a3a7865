"""What a run puts in force before the first call, what all its users share, and what it measured."""

from collections.abc import Set
from typing import Any

import grpc

from gateway.pb import control_pb2 as pb
from loadtests import budgets, documents
from loadtests.arms import Arms
from loadtests.client import Client
from loadtests.flipper import Flips
from loadtests.verdict import share_text

_CHANGE = pb.Change(actor="loadtests", reason="load test", source="api")
_WAIT = pb.WaitFor(applied=True)


class Scenario:
    """The shared part of one run: the route of its users, and the model's route before it."""

    def __init__(self, environment: Any, users: Set[str]) -> None:
        """Puts the users' route in force in every live worker. Raises: RpcError, Violation, ValueError."""
        kinds = users - {"Flipper"}
        if len(kinds) != 1:
            raise ValueError(f"users are {sorted(users)}: name one of FlipCaller, StickyCaller, CanaryCaller")
        [self.kind] = kinds
        self.model: str = environment.parsed_options.model
        self.arms = Arms()
        self.flips: Flips | None = None
        self._client = Client(environment, environment.host)
        self._former = self._route()
        if self.kind == "FlipCaller":
            self.flips = Flips(self.model, self._client.control)
        elif self.kind == "StickyCaller":
            self._apply(documents.ab(self.model, budgets.STICKY_WEIGHT))
        else:
            self._apply(documents.canary(self.model, budgets.CANARY_WEIGHT))

    @property
    def flipping(self) -> Flips:
        """Raises: ValueError in a scenario without flips."""
        if self.flips is None:
            raise ValueError(f"{self.kind} is not made for flips")
        return self.flips

    def end(self) -> None:
        """The model has the route that it had before the run."""
        if self._former:
            self._apply(self._former)
        else:
            self._client.control.DeleteRoute(
                pb.DeleteRouteRequest(model=self.model, change=_CHANGE, wait=_WAIT), timeout=budgets.FLIP_DEADLINE_S
            )
        self._client.close()

    def findings(self, flips: int) -> list[str]:
        """What is wrong with the run as a whole; `flips` is how many there had to be."""
        problems = []
        if self.flips is not None and self.flips.done < flips:
            problems.append(f"{self.flips.done} flips were done, {flips} had to be")
        if self.kind == "StickyCaller":
            arms = list(self.arms.by_key.values())
            problems.append(share_text(arms.count("b"), len(arms), budgets.STICKY_WEIGHT))
        if self.kind == "CanaryCaller":
            drawn = self.arms.drawn
            problems.append(share_text(drawn["b"], drawn.total(), budgets.CANARY_WEIGHT))
        return [text for text in problems if text]

    def measured(self) -> str:
        """What the run found out, on one line."""
        if self.flips is not None:
            times = sorted(self.flips.applied_us) or [0]
            return (
                f"flips: {self.flips.done}, in force everywhere after {times[len(times) // 2] / 1000:.1f} ms (median), "
                f"{times[-1] / 1000:.1f} ms (longest)"
            )
        if self.kind == "StickyCaller":
            return f"keys: {len(self.arms.by_key)}, on arm b: {list(self.arms.by_key.values()).count('b')}"
        return f"answers by arm: {dict(sorted(self.arms.drawn.items()))}"

    def _route(self) -> str:
        try:
            route: pb.Route = self._client.control.GetRoute(
                pb.GetRouteRequest(model=self.model), timeout=budgets.DEADLINE_S
            )
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
                return ""
            raise
        return route.document_json

    def _apply(self, document: str) -> None:
        self._client.control.Apply(
            pb.ApplyRequest(document_json=document, change=_CHANGE, wait=_WAIT), timeout=budgets.FLIP_DEADLINE_S
        )


class _Run:
    """Where the users of this process find their scenario: locust gives them nothing of ours."""

    scenario: Scenario | None = None


def begin(environment: Any, users: Set[str]) -> None:
    """Makes the scenario of this run."""
    _Run.scenario = Scenario(environment, users)


def running() -> Scenario:
    """The scenario of this run. Raises: RuntimeError if it did not start."""
    if _Run.scenario is None:
        raise RuntimeError("the scenario did not start")
    return _Run.scenario


def started() -> bool:
    return _Run.scenario is not None
