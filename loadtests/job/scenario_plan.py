"""What a scenario says, as values: traffic, changes of routes under it, budgets. Read by `scenario_file`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from gateway.errors import InvalidArgument
from loadtests.job.arrivals import Arrivals, steady
from loadtests.job.budget import Budget

Protocol = Literal["grpc", "grpc-stream", "rest-json", "rest-binary"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("grpc", "grpc-stream", "rest-json", "rest-binary")


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How values of one input are drawn. Shapes: `shape` replaces what the metadata say, None leaves it."""

    shape: tuple[int, ...] | None = None
    low: float | None = None
    high: float | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PayloadPlan:
    """Where inputs come from: drawn by the model's metadata, a file, or the prediction log of a gateway.

    Units: `rows` of a request, `size_bytes` that its tensors have at least (0: as they are).
    """

    source: Literal["generate", "file", "log"] = "generate"
    path: str = ""
    rows: int = 1
    size_bytes: int = 0
    distinct: int = 16
    seed: int = 1
    inputs: Mapping[str, InputPlan] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """Routing keys: `metadata` carries one of `count` keys, drawn anew for each call."""

    metadata: str
    count: int


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """One kind of calls. `model` "" stands for each of the models that the command line names."""

    name: str
    arrivals: Arrivals = field(default_factory=lambda: steady(50.0))
    model: str = ""
    version: str = ""
    protocol: Protocol = "grpc"
    payload: PayloadPlan = field(default_factory=PayloadPlan)
    connections: int = 4
    deadline_s: float = 5.0
    key: KeyPlan | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlipPlan:
    """A blue-green route that goes from version to version. `versions` () are the newest two that are ready."""

    every_s: float
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """A canary between two shares of the run, and what may happen after it was taken back.

    Units: `weight`, `start`, `end` and `failures_after` are shares. `judged_within_s` above 0: the gateway itself has
    to take it back in that time, by its `errors` guardrail; else the load test does so at `end`.
    """

    weight: float
    start: float = 0.2
    end: float = 0.6
    versions: tuple[str, ...] = ()
    judged_within_s: float = 0.0
    failures_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load test as its file says it."""

    name: str
    description: str
    seconds: float
    warm_up_s: float
    traffic: tuple[TrafficPlan, ...]
    change: FlipPlan | CanaryPlan | None = None
    changed_model: str = ""
    budgets: tuple[Budget, ...] = ()

    @property
    def highest(self) -> float:
        """Returns the most calls per second that all traffic together may reach."""
        return sum(traffic.arrivals.highest for traffic in self.traffic)

    def for_models(self, models: Sequence[str]) -> "Scenario":
        """Returns the scenario with traffic that names no model sent to each of these, its rate shared among them.

        Raises: InvalidArgument where traffic has no model, or a model no traffic.
        """
        named = {traffic.model for traffic in self.traffic if traffic.model}
        open_ended = [traffic for traffic in self.traffic if not traffic.model]
        if open_ended and not models:
            raise InvalidArgument(f"traffic {open_ended[0].name!r} names no model: give --model NAME")
        if unused := [model for model in models if not open_ended and model not in named]:
            raise InvalidArgument(f"--model {unused[0]}: every traffic of {self.name!r} names its own model")
        made: list[TrafficPlan] = []
        for traffic in self.traffic:
            if traffic.model:
                made.append(traffic)
                continue
            for model in models:
                name = traffic.name if len(models) == 1 else f"{traffic.name} {model}"
                arrivals = traffic.arrivals.scaled(1 / len(models))
                made.append(replace(traffic, name=name, model=model, arrivals=arrivals))
        changed = self.changed_model or (made[0].model if self.change is not None else "")
        budgets = self.budgets
        if len(models) > 1:
            budgets = tuple(
                replace(budget, traffic=f"{budget.traffic} {model}") if budget.traffic in _names(open_ended) else budget
                for budget in budgets
                for model in (models if budget.traffic in _names(open_ended) else ("",))
            )
        return replace(self, traffic=tuple(made), changed_model=changed, budgets=budgets)

    def at_rate(self, per_second: float) -> "Scenario":
        """Returns the scenario with this highest rate, its course as it is."""
        factor = per_second / self.highest
        return replace(self, traffic=tuple(replace(one, arrivals=one.arrivals.scaled(factor)) for one in self.traffic))

    def job(self) -> dict[str, Any]:
        """Returns what makes a run comparable to another: all that is sent, not to whom, nor what is allowed."""
        return {
            "scenario": self.name,
            "seconds": self.seconds,
            "change": type(self.change).__name__ if self.change is not None else "",
            "traffic": {
                one.name: {
                    "rates": [list(point) for point in one.arrivals.line],
                    "spacing": one.arrivals.spacing,
                    "model": one.model,
                    "protocol": one.protocol,
                    "connections": one.connections,
                    "payload": [one.payload.source, one.payload.rows, one.payload.size_bytes],
                }
                for one in self.traffic
            },
        }


def _names(traffic: Sequence[TrafficPlan]) -> set[str]:
    return {one.name for one in traffic}
