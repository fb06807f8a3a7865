"""Metrics of bounded number, and a report that has everything."""

import json
from collections import Counter

from gateway.drift.online.assessment import ArmAssessment
from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.drift_publication import (
    MAX_ARMS,
    MAX_FEATURES,
    MAX_SAMPLES,
    Assessments,
    MonitorHealth,
    report,
    samples,
    window_text,
)
from gateway.drift.statistics.verdict import DriftState, Evidence, Verdict

HEALTH = MonitorHealth(1.0, 5, {"disk": 2}, 1, 0)


def arm(number: int, features: int) -> ArmAssessment:
    """An arm whose last features are the worst, a little worse in arms of higher numbers."""
    verdicts = []
    for index in range(features):
        state = DriftState.CRIT if index >= features - 10 else DriftState.OK
        value = index + number / 1000
        evidence = (Evidence("psi", value, 0.1, "higher", 0.0, state),)
        verdicts.append(Verdict(f"x_{index}", state, "psi", "higher", value, 0.1, 500.0, 0.0, 3, evidence))
    shares = {f"x_{index}": {"missing": 0.0, "out_of_range": 0.0} for index in range(features)}
    return ArmAssessment(
        "m", LoggedArm("1", f"a{number}", False), 1, 0, 3600, 500, tuple(verdicts), frozenset(), shares, {}, None, None
    )


def test_the_worst_features_of_a_model_are_metrics_and_all_are_in_the_report() -> None:
    assessments = Assessments([arm(number, 300) for number in range(3)], [], [])
    made = list(samples(assessments, HEALTH, 3600))
    states = [sample for sample in made if sample.metric.name == "gateway_drift_state"]
    assert len(states) == 3 * MAX_FEATURES
    assert {sample.labels["feature"] for sample in states} == {f"x_{index}" for index in range(250, 300)}
    for sample in made:
        assert set(sample.labels) == set(sample.metric.labels)
    whole = report(assessments, HEALTH, 3600)
    assert [len(one["features"]) for one in whole["arms"]] == [300] * 3
    assert whole["arms"][0]["features"][0]["feature"] == "x_299"
    json.dumps(whole, allow_nan=False)


def test_however_many_arms_there_are_the_number_of_series_is_bounded() -> None:
    assessments = Assessments([arm(number, 40) for number in range(MAX_ARMS + 50)], [], [])
    counts = Counter(sample.metric.name for sample in samples(assessments, HEALTH, 3600))
    assert counts["gateway_drift_arm_state"] == MAX_ARMS
    assert MAX_SAMPLES - 300 < sum(counts.values()) - 3 * MAX_ARMS < MAX_SAMPLES + 20


def test_windows_are_named_as_people_write_them() -> None:
    assert [window_text(seconds) for seconds in (60, 900, 3600, 21600, 86400, 90)] == [
        "1m",
        "15m",
        "1h",
        "6h",
        "1d",
        "90s",
    ]
