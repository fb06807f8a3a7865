"""The difference of arms over phases: what it must not depend on, and how often it is wrong."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.rollout.statistics.mean_difference import LEAST_UNITS, MeanDifference, interval, units_needed
from gateway.rollout.statistics.phase_difference import PhasedUnits, phased_difference

SHARE = (0.0, 1.0)


def units(rng: np.random.Generator, sizes: list[tuple[int, int]], values: str = "normal") -> PhasedUnits:
    """Units of phases with so many keys of the treated and of the control arm, no key in two."""
    phases, treated = [], []
    for phase, (one, other) in enumerate(sizes):
        phases += [phase] * (one + other)
        treated += [True] * one + [False] * other
    drawn = rng.normal(size=len(phases)) if values == "normal" else rng.integers(0, 2, size=len(phases)).astype(float)
    return PhasedUnits(np.array(phases, np.int64), np.arange(len(phases)), np.array(treated, bool), drawn)


def parts(told: MeanDifference | None) -> tuple[float, float, float]:
    assert told is not None
    return told.value, told.low, told.high


sizes_of_phases = st.lists(st.tuples(st.integers(100, 160), st.integers(100, 160)), min_size=1, max_size=3)


@given(sizes_of_phases, st.integers(0, 1000), st.floats(-50, 50), st.floats(0.1, 20))
@example([(100, 100)], 0, 0.0, 1.0)
@example([(100, 160), (160, 100)], 1, 7.0, 2.0)
def test_what_it_must_not_depend_on(sizes: list[tuple[int, int]], seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    made = units(rng, sizes)
    phases = len(sizes)
    whole = phased_difference(made, phases)
    value, low, high = parts(whole.combined)
    assert low < value < high
    order = rng.permutation(len(made.values))
    shuffled = PhasedUnits(made.phases[order], made.keys[order], made.treated[order], made.values[order])
    assert parts(phased_difference(shuffled, phases).combined) == pytest.approx((value, low, high))
    renamed = PhasedUnits(made.phases, 7 * made.keys + 3, made.treated, made.values)
    assert parts(phased_difference(renamed, phases).combined) == pytest.approx((value, low, high))
    swapped = PhasedUnits(made.phases, made.keys, ~made.treated, made.values)
    assert parts(phased_difference(swapped, phases).combined) == pytest.approx((-value, -high, -low))
    moved = PhasedUnits(made.phases, made.keys, made.treated, shift + scale * made.values)
    assert parts(phased_difference(moved, phases).combined) == pytest.approx(
        (scale * value, scale * low, scale * high), abs=1e-9
    )
    trend = PhasedUnits(made.phases, made.keys, made.treated, made.values + 3.0 * made.phases)
    for one, other in zip(phased_difference(trend, phases).phases, whole.phases, strict=True):
        assert one.difference is not None
        assert other.difference is not None
        assert one.difference.value == pytest.approx(other.difference.value)


@given(sizes_of_phases, st.integers(0, 1000))
def test_one_phase_alone_is_the_whole_and_the_whole_is_between_the_phases(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    made = units(np.random.default_rng(seed), sizes)
    told = phased_difference(made, len(sizes))
    values = [phase.difference.value for phase in told.phases if phase.difference is not None]
    value, low, high = parts(told.combined)
    assert min(values) - 1e-9 <= value <= max(values) + 1e-9
    if len(sizes) == 1:
        assert (value, low, high) == pytest.approx(parts(told.phases[0].difference), rel=1e-6, abs=1e-6)


def test_nothing_few_and_all_equal_give_no_interval() -> None:
    nothing = PhasedUnits(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0))
    told = phased_difference(nothing, 2)
    assert told.combined is None
    assert [phase.treated.keys for phase in told.phases] == [0, 0]
    rng = np.random.default_rng(0)
    few = phased_difference(units(rng, [(LEAST_UNITS - 1, 500)]), 1)
    assert few.combined is None
    assert few.treated.keys == LEAST_UNITS - 1
    one = phased_difference(units(rng, [(1, 0)]), 1)
    assert one.treated.mean == one.phases[0].treated.mean
    made = units(rng, [(200, 200)])
    equal = PhasedUnits(made.phases, made.keys, made.treated, np.ones(400))
    assert phased_difference(equal, 1).combined is None
    with pytest.raises(ValueError, match="expected 0 to 0"):
        phased_difference(units(rng, [(100, 100), (100, 100)]), 1)


def test_that_nothing_has_happened_yet_is_no_proof_that_nothing_will() -> None:
    """Without an event in either arm the interval goes beyond three by n, the bound of the rule of three."""
    made = units(np.random.default_rng(0), [(1000, 1000)])
    none = PhasedUnits(made.phases, made.keys, made.treated, np.zeros(2000), *SHARE)
    _, low, high = parts(phased_difference(none, 1).combined)
    assert low < -3 / 1000
    assert high > 3 / 1000
    part = none.of(made.keys % 2 == 0)
    assert part.bounds == SHARE


def test_units_needed_are_those_with_which_the_interval_is_so_narrow() -> None:
    now = interval(0.1, 0.01**2, 2000, 0.05)
    needed = units_needed(now, 0.01)
    then = interval(0.1, 0.01**2 * 2000 / needed, round(needed), 0.05)
    assert (then.high - then.low) / 2 == pytest.approx(0.01, rel=0.03)
    assert units_needed(now, 10.0) == 2000
    with pytest.raises(ValueError, match="above 0, not 0"):
        units_needed(now, 0.0)


def ever_wrong(
    runs: int, seed: int, *, keys: int, looks: int, metric: str, heavy: bool = False, phases: int = 1
) -> float:
    """The share of tests of equal arms in which some look says that they differ.

    Keys come back: each has its own level, and between looks it makes a few requests more. `heavy`: their numbers
    have a Pareto tail of 1.5. With phases, the weight of the treated arm grows, and so does the metric's level.
    """
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(runs):
        points = rng.random(keys)
        volume = rng.pareto(1.5, size=keys) + 1 if heavy else np.ones(keys)
        volume *= 0.1 / volume.mean()
        level = rng.beta(0.5, 4.5, size=keys) if metric == "share" else rng.normal(size=keys)
        seen, total = np.zeros((phases, keys)), np.zeros((phases, keys))
        failed = False
        for look in range(looks):
            phase = look * phases // looks
            requests = rng.poisson(volume)
            seen[phase] += requests
            if metric == "rare":
                total[phase] += rng.binomial(requests, 0.004)
            elif metric == "share":
                total[phase] += rng.binomial(requests, np.minimum(1, level * (1 + 0.2 * phase)))
            else:
                total[phase] += (level + phase) * requests + rng.normal(size=keys) * np.sqrt(requests)
            phase_of, key_of = np.nonzero(seen)
            treated = points[key_of] < (np.array([0.1, 0.5, 0.9])[phase_of] if phases > 1 else 0.5)
            values = total[phase_of, key_of] / seen[phase_of, key_of]
            bounds = () if metric == "mean" else SHARE
            told = phased_difference(PhasedUnits(phase_of, key_of, treated, values, *bounds), phases).combined
            failed = failed or (told is not None and not told.low <= 0 <= told.high)
        wrong += failed
    return wrong / runs


def test_equal_arms_seldom_differ_at_any_look() -> None:
    assert ever_wrong(60, 1, keys=1500, looks=12, metric="share", heavy=True) <= 0.08
    assert ever_wrong(60, 2, keys=1500, looks=12, metric="mean", phases=3) <= 0.08


@pytest.mark.long
@pytest.mark.parametrize(("heavy", "phases"), [(False, 1), (True, 3)])
@pytest.mark.parametrize("metric", ["share", "rare", "mean"])
def test_equal_arms_differ_at_some_look_in_at_most_alpha_of_the_tests(metric: str, heavy: bool, phases: int) -> None:
    wrong = ever_wrong(2000, 3, keys=2000, looks=30, metric=metric, heavy=heavy, phases=phases)
    print(f"{metric}, heavy keys {heavy}, phases {phases}: {wrong:.4f}")
    assert wrong <= 0.05


def small_arm_wrong(runs: int, seed: int, *, share: float, rate: float, looks: int = 8) -> float:
    """The share of tests in which a small arm, from 100 of its keys to 1 000, is said to differ at some look."""
    rng, wrong = np.random.default_rng(seed), 0
    most = int(1000 / share)
    for _ in range(runs):
        treated, values = rng.random(most) < share, (rng.random(most) < rate).astype(float)
        for size in np.geomspace(100 / share, most, looks).astype(int):
            units = PhasedUnits(np.zeros(size, int), np.arange(size), treated[:size], values[:size], *SHARE)
            told = phased_difference(units, 1).combined
            if told is not None and not told.low <= 0 <= told.high:
                wrong += 1
                break
    return wrong / runs


def test_a_small_arm_with_few_events_is_not_sure_of_its_small_variance() -> None:
    """Two events of 1 000 where ten were due: its own variance would have it differ."""
    values = np.zeros(20_000)
    values[:2] = values[1000:1190] = 1.0
    treated = np.arange(20_000) < 1000
    told = phased_difference(PhasedUnits(np.zeros(20_000, int), np.arange(20_000), treated, values, *SHARE), 1)
    assert told.combined is not None
    assert told.combined.low <= 0 <= told.combined.high
    own = interval(told.combined.value, 3 / 1000**2 + 191 / 19_000**2, 20_000, 0.05)
    assert own.high < 0


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_a_holdout_differs_at_some_look_in_at_most_alpha_of_the_tests(rate: float) -> None:
    wrong = small_arm_wrong(2000, 9, share=0.1, rate=rate)
    print(f"holdout of 10 %, from 100 keys on, events in {rate:.1%}: {wrong:.4f}")
    assert wrong <= 0.05


def test_a_key_that_is_there_in_all_phases_is_one_key() -> None:
    """The same keys in three phases: taken for three times as many, the interval would be too narrow by a half."""
    rng = np.random.default_rng(4)
    covered = {"keys": 0, "units": 0}
    for _ in range(200):
        level = rng.normal(size=600)
        treated = np.tile(rng.random(600) < 0.5, 3)
        values = np.tile(level, 3) + rng.normal(scale=0.1, size=1800)
        phases = np.repeat(np.arange(3), 600)
        for name, keys in (("keys", np.tile(np.arange(600), 3)), ("units", np.arange(1800))):
            told = phased_difference(PhasedUnits(phases, keys, treated, values), 3).combined
            assert told is not None
            covered[name] += abs(told.value) < (told.high - told.low) / 2 * 1.96 / 3.8
    assert covered["keys"] >= 180
    assert covered["units"] <= 160
