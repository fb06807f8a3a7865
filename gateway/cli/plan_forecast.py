"""What `gateway plan` says of a canary that moves by itself: what each step can find out, and how long it takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep

import grpc

from gateway.page.message_values import Value
from gateway.pb import inference_pb2, inference_pb2_grpc
from gateway.rollout.forecast import StepForecast, total_seconds
from gateway.routing.document.quantity import percent_text

FORECAST_COLUMNS = ("STEP", "SHARE", "TAKES", "FINDS", "HARMED UNTIL THEN")
WATCHED_S = 1.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests per second of a model, and the share of them that fails."""

    requests_per_s: float
    error_rate: float
    assumed: str = ""  # where the error rate is not what was seen or given: why it is what it is


def measured(channel: grpc.Channel, model: str) -> Traffic | None:
    """Returns the traffic of the answering host in one second, its errors since the start; None where there is none.

    Raises: grpc.RpcError (the server has no statistics on this port, or refuses them).
    """
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]

    def counted() -> tuple[int, int]:
        answer = stub.ModelStatistics(inference_pb2.ModelStatisticsRequest(name=model), timeout=10)
        stats = [one.inference_stats for one in answer.model_stats]
        return sum(one.success.count for one in stats), sum(one.fail.count for one in stats)

    began_s, (good, bad) = monotonic(), counted()
    sleep(WATCHED_S)
    later_good, later_bad = counted()
    requests = later_good + later_bad - good - bad
    if requests <= 0:
        return None
    per_s, calls = requests / (monotonic() - began_s), later_good + later_bad
    if later_bad:
        return Traffic(per_s, min(0.5, later_bad / calls))
    return Traffic(per_s, min(0.5, 3 / (calls + 3)), f"none of {calls} failed, which leaves so much open")


def forecast_rows(steps: Sequence[StepForecast]) -> list[list[Value]]:
    """Returns a line of the table for each step."""
    return [
        [
            index,
            percent_text(step.weight),
            _takes(step.seconds),
            _finds(step),
            f"{step.harmed:.0f}" if step.harmed else "",
        ]
        for index, step in enumerate(steps, start=1)
    ]


def forecast_notes(steps: Sequence[StepForecast], traffic: Traffic) -> list[str]:
    """Returns the lines under the table."""
    fails = f"{traffic.error_rate:.2%} fail" + (f" ({traffic.assumed})" if traffic.assumed else "")
    lines = [f"at {traffic.requests_per_s:.3g} requests a second, of which {fails}"]
    whole = total_seconds(steps)
    lines.append("a step waits for somebody" if whole is None else f"the rollout takes {_takes(whole)} at least")
    blind = [str(index) for index, step in enumerate(steps, start=1) if step.is_blind]
    if blind:
        lines.append(f"step {', '.join(blind)} finds nothing in its time: hold longer, or give it a larger share")
    return lines


def forecast_value(steps: Sequence[StepForecast], traffic: Traffic) -> Value:
    """Returns the forecast for machines."""
    return {
        "requests_per_second": traffic.requests_per_s,
        "error_rate": traffic.error_rate,
        "assumed": traffic.assumed,
        "steps": [
            {
                "share": percent_text(step.weight),
                "seconds": step.seconds,
                "detects": step.detects,
                "harmed": step.harmed,
                "blind": step.is_blind,
            }
            for step in steps
        ],
    }


def _takes(seconds: float | None) -> str:
    if seconds is None:
        return "until promoted"
    if math.isinf(seconds):
        return "for ever"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{rest} s" if rest else ""]
    return " ".join(part for part in parts if part) or "0 s"


def _finds(step: StepForecast) -> str:
    if step.detects is None:
        return "compares nothing"
    return "nothing" if step.is_blind else f"{step.detects:.3g} times the error rate"
