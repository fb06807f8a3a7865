"""Every kind of guardrail, on counts that are made up: what proves harm, what passes, what is said of nothing."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.arm_counts import NOTHING, ArmCounts, total
from gateway.rollout.evidence import (
    CanaryEvidence,
    after_tick,
    findings,
    harm_log_e,
    new_step,
    no_evidence,
    verdict_of,
)
from gateway.rollout.guardrail_judges import JUDGES
from gateway.rollout.ramp import Advance, Hold, RampState, Stop, next_step
from gateway.rollout.shifted_predictions import deciles
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.guardrail import GUARDRAILS
from gateway.routing.document.strategy import Canary
from tests.rollout.test_ramp import PAIR, plan
from tests.routing.documents import Plain, document

GIVEN: dict[str, Plain] = {"reward": {"metric": "reward"}, "webhook": {"url": "http://gate.example/check"}}


def analysis_of(*guardrails: Plain, alpha: float = 0.01) -> Analysis:
    analysis = plan(guardrails=list(guardrails), alpha=alpha).analysis
    assert analysis is not None
    return analysis


def ticks(analysis: Analysis, canary: ArmCounts, stable: ArmCounts, seconds: int = 60) -> CanaryEvidence:
    evidence = no_evidence(analysis)
    for _ in range(seconds):
        evidence = after_tick(evidence, analysis, canary, stable)
    return evidence


def scores(rng: np.random.Generator, size: int, shift: float) -> dict[int, int]:
    places, counts = np.unique(np.rint(rng.normal(100 + shift, 20, size)).astype(int), return_counts=True)
    return dict(zip(places.tolist(), counts.tolist(), strict=True))


def test_every_kind_has_a_judge() -> None:
    assert set(JUDGES) == set(GUARDRAILS)


@pytest.mark.parametrize("name", sorted(GUARDRAILS))
def test_nothing_known_is_no_data_and_no_harm(name: str) -> None:
    analysis = analysis_of({"kind": name, "action": "fail", **GIVEN.get(name, {})})
    for evidence in (
        no_evidence(analysis),
        new_step(no_evidence(analysis), analysis),
        ticks(analysis, NOTHING, NOTHING),
    ):
        [finding] = findings(evidence, analysis)
        assert finding.verdict == "nodata"
        assert harm_log_e(evidence, analysis) <= math.log(1.5)
        # Who is asked at the end of a step is no part of what lets it end (`test_step_gates`).
        expected = "pass" if GUARDRAILS[name].asked else "nodata"
        assert verdict_of(evidence, analysis, compares=False) == expected
        again = msgspec.json.decode(msgspec.json.encode(evidence), type=CanaryEvidence)
        assert findings(again, analysis) == (finding,)


BAD: dict[str, tuple[ArmCounts, ArmCounts]] = {
    "errors": (ArmCounts(25, 3), ArmCounts(475)),
    "outputs": (ArmCounts(25, unsound=3), ArmCounts(475)),
    "drift": (ArmCounts(25, classes={1: 25}), ArmCounts(475, classes={0: 475})),
    "shadow": (ArmCounts(mirrored=25, disagreement=12.5, mirrored_rows=50, differing_rows=25), ArmCounts(475)),
}
GOOD: dict[str, tuple[ArmCounts, ArmCounts]] = {
    "errors": (ArmCounts(25), ArmCounts(475)),
    "outputs": (ArmCounts(25), ArmCounts(475)),
    "drift": (ArmCounts(25, classes={1: 10, 0: 15}), ArmCounts(475, classes={0: 285, 1: 190})),
    "shadow": (ArmCounts(25, mirrored=25, mirrored_rows=50), ArmCounts(475)),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_is_bad_stops_and_what_is_good_passes(name: str) -> None:
    analysis = analysis_of({"kind": name, "action": "fail", **GIVEN.get(name, {})})
    bad, good = ticks(analysis, *BAD[name]), ticks(analysis, *GOOD[name])
    assert findings(bad, analysis)[0].verdict == "fail"
    assert verdict_of(bad, analysis, compares=False) == "fail"
    assert findings(good, analysis)[0].verdict == "pass"
    assert name in str(findings(bad, analysis)[0])


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_holds_stays_at_its_step_and_what_warns_goes_on(name: str) -> None:
    for action, expected in (("fail", Stop), ("hold", Hold), ("warn", Advance)):
        guardrails: list[Plain] = [{"kind": name, "action": action, **GIVEN.get(name, {})}]
        if name != "errors":
            guardrails.append({"kind": "errors", "passBelow": "5%"})
        canary = plan([{"weight": "5%", "hold": "60s"}, {"weight": "50%", "hold": "60s"}], guardrails=guardrails)
        if name == "errors" and action == "warn":
            continue  # nothing else would judge it
        assert canary.analysis is not None
        bad = [msgspec.structs.replace(arm, completed=max(arm.completed, 25)) for arm in BAD[name]]
        state = RampState("ramping", 0, 0, ticks(canary.analysis, bad[0], bad[1]))
        step = next_step(canary, state, 60_000)
        assert isinstance(step, expected), step
        if action == "hold":
            assert step.reason.startswith(f"held: {name}: ")


def test_what_holds_is_taken_back_after_the_longest_hold() -> None:
    canary = plan(guardrails=[{"kind": "errors", "action": "hold"}], maxHold="1m")
    assert canary.analysis is not None
    state = RampState("ramping", 0, 0, ticks(canary.analysis, *BAD["errors"]))
    assert isinstance(next_step(canary, state, 100_000), Hold)
    step = next_step(canary, state, 121_000)
    assert isinstance(step, Stop)
    assert "maxHold" in step.reason


def test_a_mirror_is_judged_while_the_canary_has_no_share() -> None:
    strategy = document(
        arms=PAIR,
        strategy={
            "canary": {
                "steps": [{"weight": "0%", "hold": "10s"}, {"weight": "5%", "hold": "10s"}],
                "analysis": {"guardrails": [{"kind": "shadow"}, {"kind": "errors"}]},
            }
        },
    ).strategy
    assert isinstance(strategy, Canary)
    assert strategy.analysis is not None
    for seconds, expected in ((0, "no data: shadow: nothing was mirrored"), (200, "step 1 of 2 (0%) is over")):
        state = RampState("ramping", 0, 0, ticks(strategy.analysis, GOOD["shadow"][0], ArmCounts(500), seconds))
        assert next_step(strategy, state, 10_000).reason.startswith(expected)


def test_scores_are_compared_in_bins_of_the_stable_arm() -> None:
    rng = np.random.default_rng(7)
    analysis = analysis_of({"kind": "drift", "action": "fail"})
    for shift, verdict in ((0.0, "pass"), (20.0, "fail")):
        evidence = no_evidence(analysis)
        for _ in range(60):
            canary, stable = ArmCounts(25, scores=scores(rng, 25, shift)), ArmCounts(475, scores=scores(rng, 475, 0.0))
            evidence = after_tick(evidence, analysis, canary, stable)
        assert findings(evidence, analysis)[0].verdict == verdict


@given(st.dictionaries(st.integers(-2000, 2000), st.integers(1, 1000), min_size=1, max_size=300))
def test_bins_have_an_order_and_hold_everything(counts: dict[int, int]) -> None:
    edges = deciles(counts)
    assert list(edges) == sorted(set(edges))
    assert 2 <= len(edges) <= 11
    assert edges[0] < min(counts)
    assert edges[-1] == max(counts)


def rewards(rng: np.random.Generator, size: int, mean: float) -> ArmCounts:
    values = rng.binomial(1, mean, size)
    return ArmCounts(size, means={"reward": (size, float(values.sum()), float(values.sum()))})


@pytest.mark.parametrize(
    ("fields", "means", "verdict"),
    [
        ({}, (0.5, 0.5), "pass"),
        ({}, (0.4, 0.5), "fail"),
        ({"tolerance": 2.0}, (0.4, 0.5), "inconclusive"),
        ({"tolerance": 2.0}, (0.1, 0.5), "fail"),
        ({"better": "lower"}, (0.4, 0.5), "pass"),
        ({"better": "lower"}, (0.6, 0.5), "fail"),
        ({"metric": "label"}, (0.1, 0.5), "nodata"),
        ({"passWithin": "0.01%"}, (0.5, 0.5), "inconclusive"),
        ({}, (0.0, 1.0), "fail"),
        ({}, (1.0, 1.0), "pass"),
    ],
)
def test_feedback_is_compared_by_phase(fields: Plain, means: tuple[float, float], verdict: str) -> None:
    rng = np.random.default_rng(11)
    analysis = analysis_of({"kind": "reward", **fields})
    phases = tuple((rewards(rng, size, means[0]), rewards(rng, 40_000 - size, means[1])) for size in (2_000, 10_000))
    evidence = after_tick(no_evidence(analysis), analysis, NOTHING, NOTHING, phases)
    [finding] = findings(evidence, analysis)
    assert finding.verdict == verdict, finding
    few = (rewards(rng, 99, 0.0), rewards(rng, 5000, 1.0))
    [finding] = findings(after_tick(evidence, analysis, NOTHING, NOTHING, (few,)), analysis)
    assert finding.verdict == ("nodata" if verdict == "nodata" else "inconclusive")


def test_a_trend_in_time_is_no_difference_of_the_arms() -> None:
    """The share of the canary rises while everybody's reward falls: pooled it would look bad."""
    rng = np.random.default_rng(5)
    analysis = analysis_of({"kind": "reward"})
    phases = tuple(
        (rewards(rng, size, mean), rewards(rng, 20_000 - size, mean)) for size, mean in ((1_000, 0.8), (10_000, 0.4))
    )
    [finding] = findings(after_tick(no_evidence(analysis), analysis, NOTHING, NOTHING, phases), analysis)
    assert finding.verdict != "fail"


def test_equal_arms_are_seldom_said_to_differ() -> None:
    """The share of false alarms at alpha 0.2 is far below it, with a look at every tick."""
    analysis = analysis_of({"kind": "drift", "action": "fail"}, alpha=0.2)
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(60):
        evidence = no_evidence(analysis)
        for _ in range(30):
            draws = [dict(enumerate(rng.multinomial(size, [0.6, 0.3, 0.08, 0.02]).tolist())) for size in (10, 90)]
            canary, stable = (ArmCounts(1, classes=draw) for draw in draws)
            evidence = after_tick(evidence, analysis, canary, stable)
            if verdict_of(evidence, analysis, compares=False) == "fail":
                alarms += 1
                break
    assert alarms <= 6


def drift_alarms(runs: int, ticks: int, seed: int, *, alpha: float = 0.01) -> float:
    """The share of rollouts of equal versions, 1, 5, 25, 50 %, in which some look fails by the drift guardrail."""
    analysis = analysis_of({"kind": "drift", "action": "fail"}, alpha=alpha)
    rng, alarms = np.random.default_rng(seed), 0
    for _ in range(runs):
        classes = rng.dirichlet(np.full(int(rng.integers(2, 8)), 0.5))
        evidence = no_evidence(analysis)
        for tick in range(ticks):
            weight = (0.01, 0.05, 0.25, 0.5)[tick * 4 // ticks]
            canary, stable = (
                ArmCounts(1, classes=dict(enumerate(rng.multinomial(rng.poisson(200 * share), classes).tolist())))
                for share in (weight, 1 - weight)
            )
            evidence = after_tick(evidence, analysis, canary, stable)
            if verdict_of(evidence, analysis, compares=False) == "fail":
                alarms += 1
                break
    return alarms / runs


def reward_alarms(runs: int, ticks: int, seed: int, kind: str, *, alpha: float = 0.01) -> float:
    """The same by the reward guardrail, of which `kind` says how rewards are distributed; their mean falls by step."""
    analysis = analysis_of({"kind": "reward"}, alpha=alpha)
    rng, alarms = np.random.default_rng(seed), 0
    for _ in range(runs):
        sums = np.zeros((4, 2, 3))
        for tick in range(ticks):
            step = tick * 4 // ticks
            for arm, share in enumerate(((0.01, 0.05, 0.25, 0.5)[step], 1 - (0.01, 0.05, 0.25, 0.5)[step])):
                values = _rewards(rng, kind, int(rng.poisson(200 * share)), 1 - 0.1 * step)
                sums[step, arm] += (len(values), values.sum(), (values * values).sum())
            phases = tuple((_means(sums[one, 0]), _means(sums[one, 1])) for one in range(step + 1))
            evidence = after_tick(no_evidence(analysis), analysis, NOTHING, NOTHING, phases)
            if verdict_of(evidence, analysis, compares=False) == "fail":
                alarms += 1
                break
    return alarms / runs


def _means(sums: np.ndarray) -> ArmCounts:
    return ArmCounts(means={"reward": (int(sums[0]), float(sums[1]), float(sums[2]))})


def _rewards(rng: np.random.Generator, kind: str, count: int, level: float) -> np.ndarray:
    if kind == "binary":
        return (rng.random(count) < 0.2 * level).astype(float)
    if kind == "rare":
        return (rng.random(count) < 0.01 * level).astype(float)
    return rng.exponential(level, size=count)


def test_few_rollouts_of_equal_versions_fail_by_their_rewards() -> None:
    assert reward_alarms(20, 24, 1, "binary", alpha=0.05) <= 0.05


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_at_most_alpha_of_many_rollouts_of_equal_versions_ever_fail_by_their_predictions() -> None:
    share = drift_alarms(2000, 60, 2)
    print(f"drift: {share:.4f}")
    assert share <= 0.01


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", ["binary", "rare", "exponential"])
def test_at_most_alpha_of_many_rollouts_of_equal_versions_ever_fail_by_their_rewards(kind: str) -> None:
    share = reward_alarms(2000, 60, 3, kind)
    print(f"reward, {kind}: {share:.4f}")
    assert share <= 0.01


COUNTS = st.builds(
    ArmCounts,
    completed=st.integers(0, 100),
    unsound=st.integers(0, 100),
    classes=st.dictionaries(st.integers(0, 15), st.integers(1, 9)),
    scores=st.dictionaries(st.integers(-50, 50), st.integers(1, 9)),
    mirrored=st.integers(0, 50),
    disagreement=st.integers(0, 50).map(float),
    mirrored_rows=st.integers(0, 100),
    differing_rows=st.integers(0, 100),
)


@given(COUNTS, COUNTS)
def test_counts_add_up_and_are_taken_apart_again(one: ArmCounts, other: ArmCounts) -> None:
    both = total((one, other))
    assert both == other + one
    left = both.since(one)
    assert (left.classes, left.scores, left.mirrored) == (other.classes, other.scores, other.mirrored)
    assert left.unsound <= left.completed
    assert left.disagreement <= left.mirrored
    assert msgspec.json.decode(msgspec.json.encode(both), type=ArmCounts) == both
