"""Bandits: which weights follow from which rewards, at any time, and what many of them come to in a simulated world."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_phase

from gateway.errors import InvalidArgument
from gateway.rollout.bandit_weights import (
    MOST_PHASES,
    BanditEvidence,
    BanditPhase,
    NewWeights,
    Sums,
    Unmoved,
    added,
    next_weights,
    posterior_strata,
    settled,
)
from gateway.rollout.statistics.thompson import ArmStrata, best_shares, floored, strata_of
from gateway.routing.decision.interval_table import rebalance
from gateway.routing.document.bandit_plan import BanditPlan
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.caution import cautions
from gateway.routing.document.document import parse
from gateway.routing.document.strategy import bandit_of
from tests.rollout.experiments import split_document

MINUTE_MS = 60_000
PLAN = BanditPlan(interval_ms=MINUTE_MS, least_events=20, floor=50_000, posterior="beta")
HALF = {"a": 500_000, "b": 500_000}


def binary(n: int, share: float) -> Sums:
    return n, float(round(n * share)), float(round(n * share))


def known(weights: dict[str, int] = HALF, since_ms: int = 0, **sums: Sums) -> BanditEvidence:
    return BanditEvidence((BanditPhase(1, since_ms, weights, sums=sums),))


def after(
    evidence: BanditEvidence, plan: BanditPlan = PLAN, now_ms: int = MINUTE_MS, seed: int = 1
) -> NewWeights | Unmoved:
    return next_weights(plan, evidence, now_ms, np.random.default_rng(seed))


def test_the_arm_that_pays_gets_more_and_the_other_keeps_its_floor() -> None:
    step = after(known(a=binary(500, 0.1), b=binary(500, 0.3)))
    assert isinstance(step, NewWeights)
    assert step.weights == {"a": 50_000, "b": 950_000}
    assert "b 95%, best with 100.0%, reward 0.3 of 500" in step.reason
    lower = after(known(a=binary(500, 0.1), b=binary(500, 0.3)), replace(PLAN, better="lower"))
    assert isinstance(lower, NewWeights)
    assert lower.weights["a"] == 950_000


@pytest.mark.parametrize(
    ("evidence", "now_ms", "told"),
    [
        (BanditEvidence(), MINUTE_MS, "one arm is left"),
        (known({"a": BUCKETS, "b": 0}), MINUTE_MS, "one arm is left"),
        (known(a=binary(500, 0.1), b=binary(500, 0.3)), MINUTE_MS - 1, "1s until weights may move"),
        (known(), MINUTE_MS, "no data: no reward is known"),
        (known(a=binary(500, 0.1)), MINUTE_MS, "too few rewards: b 0 of the 20"),
        (known(a=binary(500, 0.1), b=binary(19, 0.3)), MINUTE_MS, "too few rewards: b 19"),
        (known(a=binary(500, 0.1), b=(500, 900.0, 4000.0)), MINUTE_MS, "rewards of b are not all 0 or 1"),
        (known(a=binary(500, 0.0), b=binary(500, 0.0)), MINUTE_MS, "the weights are right as they are"),
    ],
)
def test_nothing_known_is_no_change(evidence: BanditEvidence, now_ms: int, told: str) -> None:
    step = after(evidence, now_ms=now_ms)
    assert isinstance(step, Unmoved)
    assert told in step.reason


def test_rewards_that_are_all_the_same_prove_nothing_about_others() -> None:
    plan = replace(PLAN, posterior="normal")
    equal = after(known({"a": 800_000, "b": 200_000}, a=(50, 50.0, 50.0), b=(50, 50.0, 50.0)), plan)
    assert isinstance(equal, NewWeights)
    assert equal.weights == HALF
    # One reward of another size is not certain to be better than none of which there are few.
    few = best_shares(strata_of([(20, 20.0, 20.0), (20, 20.2, 20.6)]), "normal", np.random.default_rng(0))
    assert 0.01 < few[0] < 0.49


SUMS = st.tuples(st.integers(0, 10_000), st.floats(-100, 100), st.floats(0.01, 50)).map(
    lambda one: (one[0], one[0] * one[1], one[0] * (one[1] ** 2 + one[2] ** 2))
)


@given(
    st.lists(st.tuples(SUMS, SUMS, SUMS), min_size=0, max_size=4),
    st.sampled_from([1_000, 50_000, 200_000]),
    st.sampled_from([0.5, 0.9, 1.0]),
    st.integers(0, 100),
)
@example([], 50_000, 1.0, 0)
@example([((0, 0.0, 0.0),) * 3], 50_000, 1.0, 0)
@example([((500, 5.0, 5.0),) * 3] * 3, 200_000, 0.5, 0)
def test_the_floor_is_never_broken_and_weights_are_whole(
    phases: list[tuple[Sums, Sums, Sums]], floor: int, discount: float, seed: int
) -> None:
    plan = BanditPlan(interval_ms=MINUTE_MS, least_events=10, floor=floor, discount=discount)
    weights = {"a": 400_000, "b": 300_000, "c": 300_000, "gone": 0}
    made = tuple(
        BanditPhase(
            number,
            number * MINUTE_MS,
            weights,
            until_ms=(number + 1) * MINUTE_MS,
            sums=dict(zip("abc", one, strict=True)),
        )
        for number, one in enumerate(phases)
    )
    evidence = BanditEvidence(made)
    step = next_weights(plan, evidence, len(phases) * MINUTE_MS, np.random.default_rng(seed))
    if isinstance(step, NewWeights):
        assert sum(step.weights.values()) == BUCKETS
        assert step.weights["gone"] == 0
        assert all(step.weights[arm] >= floor for arm in "abc")
        again = next_weights(plan, evidence, len(phases) * MINUTE_MS, np.random.default_rng(seed))
        assert again == step
        # What becomes of it is a table in which no key moves that does not have to.
        before, then = rebalance(None, weights), rebalance(rebalance(None, weights), step.weights)
        grown = sum(max(0, then.weights().get(arm, 0) - before.weights().get(arm, 0)) for arm in "abc")
        moved = sum(end - start for start, end in _pieces(before, then) if before.arm_of(start) != then.arm_of(start))
        assert moved == grown


def _pieces(one: object, other: object) -> list[tuple[int, int]]:
    starts = sorted({interval.start for table in (one, other) for interval in table.intervals})  # type: ignore[attr-defined]
    return list(zip(starts, [*starts[1:], BUCKETS], strict=True))


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=1, max_size=6), st.integers(0, 5))
@example([(10, 0.0)], 0)
@example([(10, 1.0), (10, 1.0)], 3)
def test_one_phase_is_its_rewards_and_a_discount_takes_certainty_and_not_the_mean(
    arms: list[tuple[int, float]], age: int
) -> None:
    sums = [binary(n, share) for n, share in arms]
    for (n, total, _), one in zip(sums, strata_of(sums), strict=True):
        assert one.rewards == pytest.approx(n)
        assert one.value == pytest.approx(total / n)
        old = one.aged(0.9**age)
        assert old.value == pytest.approx(one.value)
        assert old.rewards == pytest.approx(n * 0.9**age)


def test_a_trend_in_time_is_no_difference_of_the_arms() -> None:
    """The rewards of both arms rise from 10 % to 50 % while b has ever more: pooled, b would be far better."""
    phases, sums = [], [(0, 0.0, 0.0), (0, 0.0, 0.0)]
    for number, share in enumerate((0.1, 0.3, 0.5)):
        b = (200, 1000, 3800)[number]
        told = {"a": binary(4000 - b, share), "b": binary(b, share)}
        weights = {"a": BUCKETS - b * 250, "b": b * 250}
        phases.append(BanditPhase(number, number * MINUTE_MS, weights, (number + 1) * MINUTE_MS, told))
        for place, arm in enumerate("ab"):
            sums[place] = tuple(x + y for x, y in zip(sums[place], told[arm], strict=True))  # type: ignore[assignment]
    assert sums[1][1] / sums[1][0] > 2 * sums[0][1] / sums[0][0]
    strata = posterior_strata(PLAN, BanditEvidence(tuple(phases)), 3 * MINUTE_MS)
    assert strata["a"].value == pytest.approx(strata["b"].value) == pytest.approx(0.3)
    shares = best_shares([strata["a"], strata["b"]], "beta", np.random.default_rng(0))
    assert shares == pytest.approx([0.5, 0.5], abs=0.05)


@given(st.sampled_from([0.7, 1.0]), st.integers(MOST_PHASES + 1, 3 * MOST_PHASES), st.integers(0, 50))
@example(1.0, MOST_PHASES + 1, 0)
def test_what_is_too_old_for_a_reward_counts_as_before(discount: float, count: int, seed: int) -> None:
    rng, plan = np.random.default_rng(seed), replace(PLAN, discount=discount)
    phases = []
    for number in range(count):
        told = {arm: binary(int(rng.integers(20, 300)), float(rng.random())) for arm in "ab"}
        weights = {"a": 400_000 + number, "b": 600_000 - number}
        phases.append(BanditPhase(number, number * MINUTE_MS, weights, (number + 1) * MINUTE_MS, told))
    whole = BanditEvidence(tuple(phases))
    kept = settled(plan, whole)
    assert len(kept.phases) == MOST_PHASES
    now_ms = (count + 2) * MINUTE_MS
    for arm, one in posterior_strata(plan, whole, now_ms).items():
        other = posterior_strata(plan, kept, now_ms)[arm]
        assert other.value == pytest.approx(one.value)
        assert other.rewards == pytest.approx(one.rewards)


def test_rewards_count_for_the_revision_of_their_decision_and_are_never_taken_back() -> None:
    evidence = BanditEvidence(
        (BanditPhase(4, 0, HALF, MINUTE_MS), BanditPhase(7, MINUTE_MS, {"a": 200_000, "b": 800_000}))
    )
    late = evidence.with_sums({4: {"b": binary(30, 0.5)}, 9: {"a": binary(5, 1.0)}})
    assert late.phases[0].sums == {"b": binary(30, 0.5)}
    assert late.phases[1].sums == {}
    assert late.rewards == {"a": 0, "b": 0}
    assert late.with_sums({4: {"b": binary(10, 0.5)}, 7: {}}) == late  # the counts of a worker were lost
    # After a decision that changed nothing what comes counts anew; rewards of before are older, and none is lost.
    first = late.with_sums({7: {"a": binary(30, 0.1), "b": binary(40, 0.1)}}).decided(2 * MINUTE_MS)
    assert first.rewards == {"a": 0, "b": 0}
    then = first.with_sums({7: {"a": binary(50, 0.1), "b": binary(40, 0.1)}})
    assert then.rewards == {"a": 20, "b": 0}
    assert [sum(one.sums["a"][0] for one in then.phases if "a" in one.sums)] == [50]
    same = BanditEvidence((BanditPhase(4, 0, HALF, MINUTE_MS), BanditPhase(5, MINUTE_MS, HALF)))
    both = same.with_sums({4: {"a": binary(10, 0.5)}, 5: {"a": binary(20, 0.5)}})
    assert both.rewards["a"] == 30  # another label is no other split
    assert [one.since_ms for one in both.spans] == [0]


@pytest.mark.parametrize(
    ("shares", "floor"), [([1.0], 5), ([0.0, 0.0, 1.0], 5), ([1.0, 1.0, 1.0], 33), ([3.0, 7.0], 0)]
)
def test_whole_numbers_sum_up_and_keep_the_floor(shares: list[float], floor: int) -> None:
    made = floored(np.array(shares), floor, 100)
    assert sum(made) == 100
    assert min(made) >= floor
    with pytest.raises(ValueError, match="more than"):
        floored(np.array([1.0, 1.0]), 60, 100)
    with pytest.raises(ValueError, match="without a reward"):
        best_shares([ArmStrata()], "beta", np.random.default_rng(0))


# The document


@pytest.mark.parametrize(
    ("bandit", "weights", "told"),
    [
        ({"metric": "clicks"}, HALF, "spec.strategy.ab.bandit.metric"),
        ({"posterior": "gamma"}, HALF, "spec.strategy.ab.bandit.posterior"),
        ({"interval": "10ms"}, HALF, "spec.strategy.ab.bandit.interval"),
        ({"interval": "365d"}, HALF, "spec.strategy.ab.bandit.interval"),
        ({"minEvents": 3}, HALF, "spec.strategy.ab.bandit.minEvents"),
        ({"floor": "0%"}, HALF, "spec.strategy.ab.bandit.floor"),
        ({"floor": "50%"}, HALF, "spec.strategy.ab.bandit.floor: 50% for each of 2 arms leaves nothing"),
        ({"floor": "10%"}, {"a": 95, "b": 5}, "spec.strategy.ab.weights.b: 5% is below the floor of 10%"),
        ({}, {"a": 0, "b": 100}, "spec.strategy.ab.weights.a: the control"),
        ({"discount": 1.5}, HALF, "spec.strategy.ab.bandit.discount"),
        ({"alpha": 2}, HALF, "spec.strategy.ab.bandit.alpha"),
        ({"guardrails": [{"kind": "webhook", "url": "http://x/"}]}, HALF, "spec.strategy.ab.bandit.guardrails[0].kind"),
        ({"guardrails": [{"kind": "reward"}]}, HALF, "spec.strategy.ab.bandit.guardrails[0].kind"),
        ({"windows": "1h"}, HALF, "spec.strategy.ab.bandit.windows: unknown field"),
    ],
)
def test_a_bad_document_is_refused_naming_the_field(
    bandit: dict[str, object], weights: dict[str, int], told: str
) -> None:
    shares = {arm: 50 if weight == 500_000 else weight for arm, weight in weights.items()}
    with pytest.raises(InvalidArgument) as error:
        parse(split_document(shares, bandit=bandit))
    assert told in str(error.value)


def test_a_document_comes_back_as_it_was_and_says_when_nothing_can_move() -> None:
    bandit = {"metric": "label", "better": "lower", "posterior": "beta", "interval": "1h", "minEvents": 50}
    bandit |= {"floor": "2.5%", "discount": 0.9, "alpha": 0.05, "guardrails": [{"kind": "errors"}]}
    document = parse(split_document({"a": 60, "b": 40}, bandit=bandit, holdout="5%"))
    assert document.to_value()["spec"]["strategy"]["ab"]["bandit"] == bandit  # type: ignore[index]
    assert parse(document.to_value()) == document
    assert bandit_of(parse(split_document({"a": 60, "b": 40}, bandit={})).strategy) == BanditPlan()
    told = cautions(parse(split_document({"a": 100, "b": 0}, bandit={})), 0.0)
    assert [one for one in told if one.startswith("spec.strategy.ab.bandit: ")]


# The simulated world


@dataclass
class World:
    """Arms that pay 1 with some probability, and how often each was asked. `delay` is in intervals."""

    rates: tuple[float, ...]
    plan: BanditPlan
    rng: np.random.Generator
    delay: int = 0
    per_interval: int = 2000
    regret: float = 0.0
    fixed: float = 0.0
    weights: list[dict[str, int]] = field(default_factory=list)

    def run(self, intervals: int, drift: dict[int, tuple[float, ...]] | None = None) -> dict[str, int]:
        names = [chr(97 + place) for place in range(len(self.rates))]
        weights = dict(zip(names, floored(np.ones(len(names)), 0, BUCKETS), strict=True))
        evidence = BanditEvidence((BanditPhase(0, 0, weights),))
        owed: list[tuple[int, int, dict[str, Sums]]] = []
        told: dict[int, dict[str, Sums]] = {}
        for interval in range(intervals):
            rates = np.array((drift or {}).get(interval, self.rates))
            self.rates = tuple(rates)
            shares = np.array(list(weights.values())) / BUCKETS
            n = self.rng.multinomial(self.per_interval, shares)
            paid = self.rng.binomial(n, rates)
            self.regret += float((n * (rates.max() - rates)).sum())
            self.fixed += self.per_interval * float(rates.max() - rates.mean())
            given = {arm: (int(k), float(y), float(y)) for arm, k, y in zip(names, n, paid, strict=True)}
            owed.append((interval + self.delay, evidence.phases[-1].revision, given))
            for due, revision, sums in [one for one in owed if one[0] <= interval]:
                known = told.setdefault(revision, dict.fromkeys(names, (0, 0.0, 0.0)))
                told[revision] = {arm: added(known, sums, arm) for arm in names}
                owed.remove((due, revision, sums))
            now_ms = (interval + 1) * self.plan.interval_ms
            evidence = evidence.with_sums(told)
            step = next_weights(self.plan, evidence, now_ms, self.rng)
            if isinstance(step, Unmoved) and step.is_decided:
                evidence = settled(self.plan, evidence.decided(now_ms))
            if isinstance(step, NewWeights):
                weights = step.weights
                *before, last = evidence.phases
                closed = replace_phase(last, until_ms=now_ms)
                opened = BanditPhase(last.revision + 1, now_ms, weights)
                evidence = settled(self.plan, BanditEvidence((*before, closed, opened), evidence.settled))
            self.weights.append(weights)
        return weights


SIMULATED = BanditPlan(interval_ms=MINUTE_MS, least_events=50, floor=20_000, posterior="beta")


def test_the_right_arm_is_found_with_less_regret_than_by_a_fixed_split() -> None:
    world = World((0.10, 0.12, 0.18), SIMULATED, np.random.default_rng(7))
    assert world.run(30)["c"] == BUCKETS - 2 * SIMULATED.floor
    assert world.regret < 0.4 * world.fixed
    assert min(weight for weights in world.weights for weight in weights.values()) >= SIMULATED.floor


@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.parametrize("delay", [0, 2])
def test_of_many_bandits_nearly_all_find_the_right_arm_and_none_breaks_the_floor(delay: int) -> None:
    """100 worlds of three arms, 40 intervals each; rewards come at once, or two intervals late."""
    right, ratios = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rates = tuple(rng.permutation([0.10, 0.13, 0.16]))
        world = World(rates, SIMULATED, rng, delay=delay)
        last = world.run(40)
        right += max(last, key=lambda arm: last[arm]) == "abc"[int(np.argmax(rates))]
        ratios.append(world.regret / world.fixed)
        assert min(weight for weights in world.weights for weight in weights.values()) >= SIMULATED.floor
    print(f"delay {delay}: right {right / 100:.3f}, regret {np.mean(ratios):.3f}, worst {np.max(ratios):.3f}")
    assert right >= 0.97 * 100
    assert np.mean(ratios) < (0.15 if delay == 0 else 0.2)


@pytest.mark.long
@pytest.mark.timeout(500)
def test_a_discount_finds_the_arm_that_becomes_the_best_one() -> None:
    """At the half the arms change places: with a discount most bandits follow within 20 intervals, without few do."""
    followed = {}
    for discount in (1.0, 0.8):
        plan, moved = replace(SIMULATED, discount=discount), 0
        for seed in range(40):
            world = World((0.10, 0.18), plan, np.random.default_rng(seed))
            last = world.run(60, drift={40: (0.18, 0.10)})
            moved += last["a"] > last["b"]
        followed[discount] = moved
    print(followed)
    assert followed[0.8] >= 38
    assert followed[1.0] < followed[0.8]
