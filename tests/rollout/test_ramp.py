"""The next step of a canary, whole rollouts simulated: what stops, holds, goes on, and how soon."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.rollout.arm_counts import NOTHING, ROWS_BINS, ArmCounts, quantile_bound, total
from gateway.rollout.evidence import after_tick, findings, harmed, new_step, no_evidence, verdict_of
from gateway.rollout.post_promotion import PromotionWatch, after_watched_tick, begin_watch, watched_harm
from gateway.rollout.ramp import Advance, Finish, Hold, Promote, RampState, Step, Stop, next_step, not_ahead, standing
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.strategy import Canary
from tests.routing.documents import Plain, document

PAIR = {"stable": {"version": "1"}, "canary": {"version": "2"}}
STEPS: list[Plain] = [
    {"weight": "5%", "hold": "60s"},
    {"weight": "25%", "hold": "60s"},
    {"weight": "50%", "hold": "60s"},
]
BUCKETS = 24


def plan(steps: list[Plain] | None = None, after: Plain | None = None, **analysis: object) -> Canary:
    fields: Plain = {"steps": steps or STEPS, "analysis": analysis}
    if after is not None:
        fields["afterPromote"] = after
    strategy = document(arms=PAIR, strategy={"canary": fields}).strategy
    assert isinstance(strategy, Canary)
    return strategy


def analysis_of(canary: Canary) -> Analysis:
    assert canary.analysis is not None
    return canary.analysis


def counts(rng: np.random.Generator, requests: int, error_rate: float, slowness: int = 0, rows: int = 0) -> ArmCounts:
    """Requests whose times are spread over latency bounds 3 to 8, and `slowness` bounds higher."""
    errors = int(rng.binomial(requests, error_rate))
    shares = np.zeros(BUCKETS + 1)
    shares[3 + slowness : 9 + slowness] = [0.30, 0.40, 0.20, 0.07, 0.02, 0.01]
    latency = tuple(int(n) for n in rng.multinomial(requests, shares))
    runs: list[tuple[int, ...]] = [()] * len(ROWS_BINS)
    runs[rows] = latency  # every request a run of its own bin
    return ArmCounts(requests, errors, latency, tuple(runs))


class Rollout:
    """A canary of 500 requests a second, carried out second by second by what `next_step` says."""

    def __init__(self, canary: Canary, seed: int = 1) -> None:
        self.plan = canary
        self.rng = np.random.default_rng(seed)
        self.now_ms = 0
        self.state = RampState("ramping", 0, 0, no_evidence(analysis_of(canary)))
        self.watch: PromotionWatch | None = None
        self.steps: list[tuple[int, Step]] = []

    def second(self, canary: ArmCounts, stable: ArmCounts) -> Step:
        self.now_ms += 1000
        evidence, harmful = self.state.evidence, ""
        if self.watch is not None:
            self.watch = after_watched_tick(self.watch, canary)
            harmful = watched_harm(self.watch, analysis_of(self.plan))
        else:
            evidence = after_tick(evidence, analysis_of(self.plan), canary, stable)
        self.state = msgspec.structs.replace(self.state, evidence=evidence)
        step = next_step(self.plan, self.state, self.now_ms, watched=harmful)
        self.act(step)
        return step

    def act(self, step: Step) -> None:
        change: dict[str, object] = {}
        if isinstance(step, Hold):
            return
        self.steps.append((self.now_ms // 1000, step))
        if isinstance(step, Advance):
            change = {
                "step": step.step,
                "approved_by": "",
                "evidence": new_step(self.state.evidence, analysis_of(self.plan)),
            }
        elif isinstance(step, Promote):
            self.watch = begin_watch(self.state.evidence, analysis_of(self.plan))
            change = {"phase": "watching"}
        elif isinstance(step, Stop):
            change = {"phase": "stopped"}
        elif isinstance(step, Finish):
            change = {"phase": "promoted"}
        self.state = msgspec.structs.replace(self.state, step_since_ms=self.now_ms, **change)

    def traffic(self, seconds: int, canary_errors: float = 0.001, slowness: int = 0, small: int = 0) -> Iterator[Step]:
        for _ in range(seconds):
            weight = self.plan.steps[self.state.step].weight / 1_000_000
            share = 1.0 if self.watch is not None else weight
            requests = int(self.rng.binomial(500, share))
            yield self.second(
                counts(self.rng, requests, canary_errors, slowness, small),
                counts(self.rng, 500 - requests, 0.001, rows=2),
            )
            if self.state.phase in ("stopped", "promoted"):
                return

    def run(self, seconds: int, **traffic: float) -> str:
        for _ in self.traffic(seconds, **traffic):  # type: ignore[arg-type]
            pass
        return self.state.phase


def test_an_equal_version_goes_step_by_step_to_everybody() -> None:
    rollout = Rollout(plan(after={"watch": "30s"}))
    assert rollout.run(400) == "promoted"
    kinds = [type(step) for _, step in rollout.steps]
    assert kinds == [Advance, Advance, Promote, Finish]
    assert [second for second, _ in rollout.steps] == [60, 120, 180, 210]


def test_a_version_that_fails_is_stopped_within_seconds() -> None:
    for seed in range(10):
        rollout = Rollout(plan(), seed)
        assert rollout.run(300, canary_errors=0.05) == "stopped"
        second, step = rollout.steps[-1]
        assert second <= 20
        assert isinstance(step, Stop)
        assert step.reason.startswith("failed: errors: canary ")
        assert "times the stable arm's rate" in step.reason


def test_a_version_that_is_slower_is_stopped() -> None:
    assert Rollout(plan()).run(300, slowness=3) == "stopped"


def test_equal_versions_are_not_stopped() -> None:
    assert [Rollout(plan(), seed).run(260) for seed in range(5)].count("stopped") == 0


def test_a_version_that_holds_is_not_rolled_back_by_itself() -> None:
    rollout = Rollout(plan(onFail="hold"))
    assert rollout.run(120, canary_errors=0.05) == "ramping"
    assert rollout.steps == []
    assert verdict_of(rollout.state.evidence, analysis_of(rollout.plan)) == "fail"


@pytest.mark.parametrize(("no_data", "phase"), [("hold", "ramping"), ("rollback", "stopped")])
def test_no_data_is_no_pass(no_data: str, phase: str) -> None:
    rollout = Rollout(plan(onNoData=no_data))
    for _ in range(100):
        rollout.second(NOTHING, ArmCounts(500, 0))
        if rollout.state.phase == "stopped":
            break
    assert (rollout.state.phase, rollout.state.step) == (phase, 0)
    assert verdict_of(rollout.state.evidence, analysis_of(rollout.plan)) == "nodata"


@pytest.mark.parametrize(
    ("inconclusive", "phase"), [("hold", "ramping"), ("rollback", "stopped"), ("advance", "ramping")]
)
def test_what_is_inconclusive_does_what_the_document_says(inconclusive: str, phase: str) -> None:
    rollout = Rollout(plan(onInconclusive=inconclusive))
    for _ in range(61):
        rollout.second(ArmCounts(1, 0, (1, 0)), ArmCounts(19, 0, (19, 0)))
    assert rollout.state.phase == phase
    assert rollout.state.step == (1 if inconclusive == "advance" else 0)


def test_a_hold_has_an_end_where_the_document_gives_one() -> None:
    rollout = Rollout(plan(maxHold="30s"))
    for _ in range(89):
        rollout.second(NOTHING, NOTHING)
    assert rollout.steps == []
    rollout.second(NOTHING, NOTHING)
    assert rollout.state.phase == "stopped"
    assert "held for 30s" in rollout.steps[-1][1].reason


def test_a_step_waits_for_its_requests_and_its_approval() -> None:
    steps: list[Plain] = [
        {"weight": "5%", "hold": "10s", "minEvents": 1000, "approval": ["ann", "bob"]},
        {"weight": "50%"},
    ]
    rollout = Rollout(plan(steps))
    told = [step for step in rollout.traffic(60) if isinstance(step, Hold)]
    assert any("of the 1000 requests" in step.reason for step in told)
    assert told[-1].reason == "waits for the approval of one of ann, bob"
    rollout.state = msgspec.structs.replace(rollout.state, approved_by="bob")
    [step] = rollout.traffic(1)
    assert isinstance(step, Advance)
    assert "approved by bob" in step.reason
    [step] = rollout.traffic(1)
    assert step == Hold("the step has no end of its own; promote goes on")


def test_the_harm_budget_stops_what_no_statistic_has_proven() -> None:
    rollout = Rollout(plan(maxHarmed=5, guardrails=[{"kind": "errors", "tolerance": 100}]))
    assert rollout.run(200, canary_errors=0.02) == "stopped"
    assert "the harm budget is 5" in rollout.steps[-1][1].reason
    assert harmed(rollout.state.evidence) < 10


def test_what_a_person_set_stays() -> None:
    strategy = document(arms=PAIR, strategy={"canary": {"steps": STEPS, "weight": "30%", "analysis": {}}}).strategy
    assert isinstance(strategy, Canary)
    state = RampState("ramping", 0, 0, no_evidence(analysis_of(strategy)))
    assert "set by hand" in held(next_step(strategy, state, 10**9))
    assert held(next_step(plan(), state, 10**9, killed=True)) == "the kill switch is on"
    paused = msgspec.structs.replace(state, paused_by="ann")
    assert held(next_step(plan(), paused, 10**9)) == "paused by ann"
    for phase in ("stopped", "promoted"):
        over = msgspec.structs.replace(state, phase=phase)
        assert held(next_step(plan(), over, 10**9)) == f"the rollout is over: {phase}"


def test_a_step_takes_no_longer_because_the_clock_of_the_store_went_back() -> None:
    day_ms = 86_400_000
    state = RampState("ramping", 0, day_ms, no_evidence(analysis_of(plan())))
    assert not_ahead(state, day_ms + 1) == state
    assert not_ahead(state, 1000).step_since_ms == 1000


def test_the_time_of_a_step_stands_still_while_a_person_holds_it() -> None:
    state = RampState("ramping", 0, 1000, no_evidence(analysis_of(plan())), approved_by="bob")
    assert standing(state, plan(), 5000, killed=False) == state
    killed = standing(state, plan(), 5000, killed=True)
    assert (killed.step_since_ms, killed.approved_by) == (6000, "")
    paused = msgspec.structs.replace(state, paused_by="ann")
    assert standing(paused, plan(), 5000, killed=False).step_since_ms == 6000
    assert standing(paused, plan(), -5000, killed=False).step_since_ms == 1000  # the store's clock went back
    watching = msgspec.structs.replace(state, phase="watching")
    assert standing(watching, plan(), 5000, killed=True) == watching


def held(step: Step) -> str:
    assert isinstance(step, Hold)
    return step.reason


def test_a_pause_does_not_keep_a_harmful_version() -> None:
    rollout = Rollout(plan())
    rollout.state = msgspec.structs.replace(rollout.state, paused_by="ann")
    assert rollout.run(100, canary_errors=0.05) == "stopped"


def test_a_step_that_compares_nothing_is_judged_by_those_before_it() -> None:
    all_at_once = Rollout(plan([{"weight": "100%", "hold": "3s"}]))
    for _ in range(10):
        all_at_once.second(ArmCounts(500, 500), NOTHING)
    assert all_at_once.steps == []
    assert "no data" in held(next_step(all_at_once.plan, all_at_once.state, 10**6))
    after = Rollout(plan([{"weight": "50%", "hold": "60s"}, {"weight": "100%", "hold": "3s"}]))
    assert after.run(70) == "promoted"


def test_what_no_guardrail_judges_is_no_pass() -> None:
    for guardrails in ([{"kind": "drift"}], [{"kind": "errors", "action": "warn"}]):
        rollout = Rollout(plan(guardrails=guardrails))
        assert rollout.run(70, canary_errors=0.5) == "ramping"
        assert rollout.steps == []


def test_a_watch_that_saw_nothing_says_so() -> None:
    state = RampState("watching", 0, 0, no_evidence(analysis_of(plan())))
    watched = plan(after={"watch": "1s"})
    step = next_step(watched, state, 2000, is_watched=False)
    assert step == Finish("the watch is over: nothing was known or came to judge it by")


def test_catching_up_is_one_step() -> None:
    """The controller was away for a day: what was counted meanwhile is one tick, and what is due is one step."""
    rollout = Rollout(plan())
    list(rollout.traffic(30))
    rng = np.random.default_rng(3)
    rollout.now_ms += 86_400_000
    step = rollout.second(counts(rng, 2_160_000, 0.001), counts(rng, 41_040_000, 0.001, rows=2))
    assert isinstance(step, Advance)
    assert rollout.state.step == 1
    assert isinstance(rollout.second(NOTHING, NOTHING), Hold)


def test_a_fault_that_comes_after_the_promotion_brings_the_old_version_back() -> None:
    rollout = Rollout(plan(after={"watch": "600s", "keepWarm": "1h"}))
    list(rollout.traffic(240))
    assert rollout.state.phase == "watching"
    assert rollout.run(100, canary_errors=0.03) == "stopped"
    assert "failed while it was watched: errors: " in rollout.steps[-1][1].reason
    kept = Rollout(plan(after={"watch": "600s", "onFail": "hold"}))
    list(kept.traffic(240))
    assert kept.run(60, canary_errors=0.03) == "watching"


def test_who_is_promoted_before_anything_was_seen_is_held_against_what_is_harmless() -> None:
    rollout = Rollout(plan())
    analysis = analysis_of(rollout.plan)
    watch = begin_watch(rollout.state.evidence, analysis)
    [errors] = watch.metrics
    assert (errors.kind, errors.limit) == ("errors", 0.005)
    other = begin_watch(msgspec.structs.replace(rollout.state.evidence, guardrails=()), analysis)
    assert [one.kind for one in other.metrics] == ["errors"]
    for errors_a_second in (0, 50):
        known = watch
        for _ in range(60):
            known = after_watched_tick(known, ArmCounts(completed=500, errors=errors_a_second))
        assert bool(watched_harm(known, analysis)) is (errors_a_second > 0)


def test_what_the_judge_knows_survives_being_stored() -> None:
    rollout = Rollout(plan())
    list(rollout.traffic(70))
    assert msgspec.json.decode(msgspec.json.encode(rollout.state), type=RampState) == rollout.state
    watch = begin_watch(rollout.state.evidence, analysis_of(rollout.plan))
    assert msgspec.json.decode(msgspec.json.encode(watch), type=PromotionWatch) == watch


def test_findings_are_told_with_their_numbers() -> None:
    rollout = Rollout(plan())
    assert str(findings(rollout.state.evidence, analysis_of(rollout.plan))[0]).startswith("errors: nothing to compare")
    list(rollout.traffic(59))
    errors, latency = findings(rollout.state.evidence, analysis_of(rollout.plan))
    assert (errors.verdict, latency.verdict) == ("pass", "pass")
    assert errors.canary + errors.stable == 29_500
    assert errors.ratio_low <= 1 <= errors.ratio_high


numbers = st.integers(0, 10_000)
histograms = st.lists(numbers, max_size=BUCKETS + 1).map(tuple)
arms = st.builds(ArmCounts, numbers, numbers, histograms, st.lists(histograms, max_size=5).map(tuple))


@given(st.lists(arms, max_size=5), arms)
@example([], NOTHING)
@example([NOTHING, NOTHING], NOTHING)
def test_counts_of_parts_add_up_and_their_growth_is_what_came(parts: list[ArmCounts], more: ArmCounts) -> None:
    whole = total(parts)
    assert whole.completed == sum(part.completed for part in parts)
    grown = (whole + more).since(whole)
    assert (grown.completed, grown.errors) == (more.completed, min(more.completed, more.errors))
    assert sum(grown.latency) == sum(more.latency)
    assert sum(map(sum, grown.runs)) == sum(map(sum, more.runs))
    assert NOTHING.since(whole) == NOTHING


@given(st.lists(numbers, min_size=2, max_size=BUCKETS + 1).filter(any), st.floats(0.5, 0.9999))
@example([1, 0], 0.5)
@example([0, 1], 0.99)
def test_a_quantile_s_bound_has_its_share_above(histogram: list[int], quantile: float) -> None:
    bound = quantile_bound(tuple(histogram), quantile)
    above = sum(histogram[bound + 1 :])
    assert above <= (1 - quantile) * sum(histogram) + 1e-6 or bound == len(histogram) - 2
    if bound:
        assert sum(histogram[bound:]) > (1 - quantile) * sum(histogram) - 1e-6
    with pytest.raises(ValueError, match="without observations"):
        quantile_bound((0, 0), quantile)


@pytest.mark.long
def test_few_of_many_rollouts_of_equal_versions_are_stopped() -> None:
    stopped = [Rollout(plan(), seed).run(260) for seed in range(400)].count("stopped")
    assert stopped <= 4
