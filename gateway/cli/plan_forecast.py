"""What `gateway plan` says of a canary that moves by itself: what each step can find out, and how long it takes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep

import grpc

from gateway.page.message_values import Value
from gateway.pb import inference_pb2, inference_pb2_grpc
from gateway.rollout.forecast import StepForecast, budget_traffic, cpu_shares, total_seconds, weight_within
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.quantity import duration_text, percent_text
from gateway.routing.document.strategy import Ab, Canary

FORECAST_COLUMNS = ("STEP", "SHARE", "TAKES", "FINDS", "HARMED UNTIL THEN", "IF ALL FAIL")
WATCHED_S = 1.0
WARN_SHARE = 0.75  # of the most load that is allowed


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests per second of a model, and the share of them that fails."""

    requests_per_s: float
    error_rate: float
    assumed: str = ""  # where the error rate is not what was seen or given: why it is what it is
    rows_per_s: float = 0.0
    row_seconds: Mapping[str, float] = field(default_factory=dict)  # of a run, by version


def measured(channel: grpc.Channel, model: str) -> Traffic | None:
    """Returns the traffic of the answering host in one second, its errors since the start; None where there is none.

    Raises: grpc.RpcError (the server has no statistics on this port, or refuses them).
    """
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]

    def counted() -> tuple[int, int, int, dict[str, float]]:
        answer = stub.ModelStatistics(inference_pb2.ModelStatisticsRequest(name=model), timeout=10)
        stats = [one.inference_stats for one in answer.model_stats]
        rows = sum(one.inference_count for one in answer.model_stats)
        costs = {one.version: cost for one in answer.model_stats if (cost := _row_seconds(one)) is not None}
        return sum(one.success.count for one in stats), sum(one.fail.count for one in stats), rows, costs

    began_s, (good, bad, rows, _) = monotonic(), counted()
    sleep(WATCHED_S)
    later_good, later_bad, later_rows, costs = counted()
    passed_s = monotonic() - began_s
    requests = later_good + later_bad - good - bad
    if requests <= 0:
        return None
    per_s, calls = requests / passed_s, later_good + later_bad
    rows_per_s = (later_rows - rows) / passed_s
    if later_bad:
        return Traffic(per_s, min(0.5, later_bad / calls), "", rows_per_s, costs)
    told = f"none of {calls} failed, which leaves so much open"
    return Traffic(per_s, min(0.5, 3 / (calls + 3)), told, rows_per_s, costs)


def _row_seconds(statistics: inference_pb2.ModelStatistics) -> float | None:
    """Returns how long a row took in runs of the version; None where it ran nothing."""
    rows = sum(one.batch_size * one.compute_infer.count for one in statistics.batch_stats)
    return sum(one.compute_infer.ns for one in statistics.batch_stats) / rows / 1e9 if rows else None


def forecast_rows(steps: Sequence[StepForecast]) -> list[list[Value]]:
    """Returns a line of the table for each step."""
    return [
        [
            index,
            percent_text(step.weight),
            _takes(step.seconds),
            _finds(step),
            f"{step.harmed:.0f}" if step.harmed else "",
            f"{step.at_worst:.0f}" if step.at_worst else "",
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


def budget_notes(canary: Canary, steps: Sequence[StepForecast], traffic: Traffic) -> list[str]:
    """Returns which steps may harm more than the document's budget, and which share would not."""
    budget = canary.analysis.max_harmed if canary.analysis is not None else 0
    compared = budget_traffic(canary, traffic.requests_per_s, traffic.error_rate)
    over = [str(index) for index, step in enumerate(steps, start=1) if budget and (step.at_worst or 0) > budget]
    if compared is None or not over:
        return []
    within = weight_within(budget, compared)
    share = f"at most {percent_text(within)} keeps within it" if within else "no share keeps within it"
    told = f"the {budget} of maxHarmed before a version that fails is stopped"
    return [f"step {', '.join(over)} may harm more than {told}: {share}"]


def cpu_notes(canary: Canary, document: RouteDocument, traffic: Traffic, cpus: float) -> list[str]:
    """Returns what runs take of the CPUs in each step, by what rows of the versions took so far."""
    most = (canary.analysis or Analysis()).max_load / BUCKETS
    stable, own = (traffic.row_seconds.get(document.version_of(arm)) for arm in (canary.stable, canary.canary))
    if stable is None:
        return ["what runs take of the CPUs is not known: the stable version ran nothing"]
    shares = cpu_shares(canary, traffic.rows_per_s, (stable, own if own is not None else stable), cpus)
    told = ", ".join(f"{share:.0%}" for share in shares)
    without = f"{traffic.rows_per_s * stable / cpus:.0%} with the stable version alone"
    lines = [f"of {cpus:g} CPUs runs take {told} in the steps and after them, {without}"]
    if own is None:
        lines.append("the canary's version ran nothing: its rows are taken to cost what the stable one's do")
    if max(shares) > most:
        lines.append(f"that is more than the {most:.0%} of maxLoad: the rollout would wait there")
    elif max(shares) > WARN_SHARE * most:
        lines.append("little of the CPUs is left")
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
                "at_worst": step.at_worst,
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


def bandit_notes(test: Ab, requests_per_s: float) -> list[str]:
    """Returns what a bandit does and needs, in words; [] where the test has none. `requests_per_s` 0: not known."""
    plan, arms = test.bandit, [arm for arm, weight in test.weights if weight]
    if plan is None:
        return []
    most = BUCKETS - plan.floor * (len(arms) - 1)
    needed = math.ceil(plan.least_events * BUCKETS / min(plan.floor, BUCKETS - test.holdout))
    told = [
        f"bandit: by {plan.metric} ({plan.better} is better, posterior {plan.posterior}) weights move every "
        f"{duration_text(plan.interval_ms)} at most; an arm has {percent_text(plan.floor)} to {percent_text(most)}",
        f"each arm needs {plan.least_events} rewards of the present weights before they move: about {needed} in all "
        f"where one has the floor",
    ]
    if requests_per_s:
        seconds = needed / (requests_per_s * (BUCKETS - test.holdout) / BUCKETS)
        told.append(
            f"at {requests_per_s:g} requests/s these are {seconds:.0f} s of traffic, if every answer is rewarded"
        )
    return told
