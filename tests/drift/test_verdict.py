"""The decision rule: each of its conditions, and what it says of windows that it cannot judge."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.drift.statistics.bins import CategoryBins
from gateway.drift.statistics.building import build_embedding, build_feature, build_profile
from gateway.drift.statistics.calibration import calibrate
from gateway.drift.statistics.column import as_column
from gateway.drift.statistics.profile_document import profile_json, read_profile
from gateway.drift.statistics.reference_profile import FeatureKind, FeatureProfile
from gateway.drift.statistics.statistic import JUDGED
from gateway.drift.statistics.verdict import (
    DriftRule,
    DriftState,
    Evidence,
    Origin,
    Verdict,
    confirm,
    judge,
    least_rows,
)
from gateway.errors import InvalidArgument

RULE = DriftRule()
THRESHOLDS = {name: one.thresholds for name, one in JUDGED.items() if one.thresholds is not None}
RNG = np.random.default_rng(7)
NORMAL = build_feature("x", "f.x", RNG.normal(size=20_000))
AIRLINES = RNG.choice(["AA", "US", "DL"], size=20_000, p=[0.5, 0.1, 0.4]).astype(object)
CARRIERS = build_feature("carrier", "f.carrier", AIRLINES)


def verdict_of(feature: FeatureProfile, values: npt.ArrayLike, rule: DriftRule = RULE) -> Verdict:
    return judge([feature], {feature.name: feature.bins.count(values)}, rule)[0]


def evidence_of(verdict: Verdict, statistic: str) -> Evidence:
    return next(one for one in verdict.evidence if one.statistic == statistic)


def test_the_same_distribution_is_ok() -> None:
    verdict = verdict_of(NORMAL, RNG.normal(size=2000))
    assert verdict.state is DriftState.OK
    assert abs(evidence_of(verdict, "psi").value) < 0.05


def test_a_shift_is_found_with_its_direction_and_the_threshold_it_is_held_against() -> None:
    verdict = verdict_of(NORMAL, RNG.normal(0.4, size=2000))
    assert verdict.state is DriftState.WARN
    assert (verdict.statistic, verdict.direction, verdict.threshold) == ("psi", "higher", 0.1)
    assert 0.1 < verdict.value < 0.25
    assert verdict.n == 2000
    assert verdict.p < 1e-6
    assert verdict_of(NORMAL, RNG.normal(-0.8, size=2000)).state is DriftState.CRIT
    assert verdict_of(NORMAL, RNG.normal(-0.8, size=2000)).direction == "lower"


def test_a_small_change_is_no_drift_however_certain_it_is() -> None:
    verdict = verdict_of(NORMAL, RNG.normal(0.05, size=400_000))
    assert verdict.state is DriftState.OK
    assert evidence_of(verdict, "psi").p < 1e-6


@pytest.mark.parametrize("rows", [0, 50, 199])
def test_too_few_rows_are_never_ok(rows: int) -> None:
    assert least_rows(NORMAL, RULE) == 200
    assert verdict_of(NORMAL, np.full(rows, 9.0)).state is DriftState.INSUFFICIENT


def test_a_feature_that_was_not_logged_is_not_ok() -> None:
    (verdict,) = judge([NORMAL], {}, RULE)
    assert verdict.state is DriftState.INSUFFICIENT


def test_missing_values_are_told_whether_null_or_nan() -> None:
    values = np.ma.masked_array(RNG.normal(size=2000), mask=np.arange(2000) < 40)
    values.data[40:60] = np.nan
    verdict = verdict_of(NORMAL, values)
    assert verdict.state is DriftState.WARN
    assert (verdict.statistic, verdict.direction) == ("missing", "more")
    assert verdict.value == pytest.approx(0.03)
    values.data[40:200] = np.nan
    assert verdict_of(NORMAL, values).state is DriftState.CRIT


def test_infinities_and_values_out_of_range_are_told() -> None:
    values = RNG.normal(size=2000)
    values[:50] = np.inf
    assert evidence_of(verdict_of(NORMAL, values), "infinite").state is DriftState.WARN
    values[:150] = 40.0
    assert evidence_of(verdict_of(NORMAL, values), "out_of_range").state is DriftState.CRIT
    assert evidence_of(verdict_of(NORMAL, values), "out_of_range").value == pytest.approx(0.075, abs=0.002)


def test_a_new_category_and_one_that_vanished() -> None:
    values = RNG.choice(["AA", "US", "DL", "XX"], size=2000, p=[0.5, 0.07, 0.4, 0.03]).astype(object)
    verdict = verdict_of(CARRIERS, values)
    assert evidence_of(verdict, "unseen").state is DriftState.WARN
    gone = verdict_of(CARRIERS, RNG.choice(["AA", "DL"], size=2000, p=[0.6, 0.4]).astype(object))
    assert gone.state is DriftState.CRIT
    assert evidence_of(gone, "vanished").direction == "US"
    assert evidence_of(gone, "vanished").value == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("categories", [1, 40, 549, 551, 600, 5000])
def test_texts_of_the_same_distribution_are_ok_however_many_there_are(categories: int) -> None:
    """Also where rare ones are too many to be remembered: then none of them is known to be new."""
    rng = np.random.default_rng(categories)
    shares = 1.0 / np.arange(1, categories + 1)
    words = np.array([f"w{index}" for index in range(categories)], object)
    before, now = (rng.choice(words, size=6000, p=shares / shares.sum()) for _ in range(2))
    verdict = verdict_of(build_feature("t", "f.t", before), now)
    assert verdict.state is DriftState.OK
    distinct = verdict_of(build_feature("id", "f.id", np.arange(4000).astype(str).astype(object)), now)
    assert "unseen" not in {one.statistic for one in distinct.evidence}


def test_categories_that_trade_rows_are_found_where_psi_is_small() -> None:
    values = RNG.choice(["AA", "US", "DL"], size=4000, p=[0.41, 0.1, 0.49]).astype(object)
    verdict = verdict_of(CARRIERS, values)
    assert (verdict.state, verdict.statistic, verdict.direction) == (DriftState.WARN, "l_infinity", "more DL")
    assert evidence_of(verdict, "psi").state is DriftState.OK
    values = RNG.choice(["AA", "US", "DL"], size=4000, p=[0.36, 0.1, 0.54]).astype(object)
    assert verdict_of(CARRIERS, values).state is DriftState.CRIT


def test_what_is_held_against_the_threshold_is_what_the_samples_error_leaves() -> None:
    """The same difference is an alarm in a large window and none in a small one, where it may be half as large."""
    bins, shares = CARRIERS.bins, CARRIERS.folded / CARRIERS.n
    place = {name: index for index, name in enumerate(bins.labels)}
    states = []
    for rows in (300, 600, 10_000):
        now = shares.copy()
        now[place["DL"]] += 0.08
        now[place["AA"]] -= 0.08
        counts = np.zeros(len(bins.cells))
        counts[: len(now) - 1] = now[:-1] * rows
        gap = evidence_of(judge([CARRIERS], {"carrier": counts}, RULE)[0], "l_infinity")
        assert gap.value == pytest.approx(0.08)
        assert gap.threshold >= THRESHOLDS["l_infinity"].warn + gap.error
        states.append((gap.state, gap.error))
    assert [state for state, _ in states] == [DriftState.OK, DriftState.OK, DriftState.WARN]
    assert states[0][1] > states[1][1] > states[2][1] > 0


SYNTHETIC = [(2, 0.0), (10, 1.0), (40, 1.0)]  # categories, and how uneven their shares are


def synthetic_windows(
    categories: int, uneven: float, *, moved: float, lost: float, rows: int, windows: int
) -> list[tuple[Verdict, ...]]:
    """Windows of 18 features that are sampled anew, references of 20 000 rows too; of each feature a share has moved
    from the most frequent category to one in the middle, and a share is missing."""
    rng = np.random.default_rng(categories * 1000 + rows)
    before = np.arange(1, categories + 1.0) ** -uneven
    before /= before.sum()
    now = before.copy()
    now[0] -= moved
    now[categories // 2] += moved
    bins = CategoryBins(tuple(f"c{index}" for index in range(categories)))

    def drawn(shares: npt.NDArray[np.float64], missing: float, size: int) -> npt.NDArray[np.int64]:
        cells = np.concatenate([shares * (1 - missing), [0.0, 0.0, missing, 0.0]])
        return np.asarray(rng.multinomial(size, cells / cells.sum()), np.int64)

    verdicts = []
    for _ in range(windows):
        features = []
        for index in range(18):
            counts = drawn(before, 0.002, 20_000)
            kind = FeatureKind.CATEGORY
            features.append(
                FeatureProfile(f"x{index}", "", kind, bins, tuple(counts.tolist()), 20_000, int(counts[-2]), 0, 1, 0, 0)
            )
        verdicts.append(judge(features, {one.name: drawn(now, 0.002 + lost, rows) for one in features}, RULE))
    return verdicts


@pytest.mark.parametrize(("categories", "uneven"), SYNTHETIC)
@pytest.mark.parametrize("rows", [200, 1000, 5000])
def test_where_nothing_changed_one_window_in_a_hundred_alarms_at_most(
    categories: int, uneven: float, rows: int
) -> None:
    """Any of 18 features, in one window, without calibration."""
    windows = synthetic_windows(
        categories, uneven, moved=0.0, lost=0.0, rows=max(rows, 10 * (categories + 1)), windows=200
    )
    assert sum(any(one.state >= DriftState.WARN for one in verdicts) for verdicts in windows) <= 2


@pytest.mark.parametrize(("categories", "uneven"), SYNTHETIC)
@pytest.mark.parametrize("rows", [200, 1000, 5000])
def test_a_change_just_as_large_as_the_threshold_alarms_in_one_window_of_a_hundred(
    categories: int, uneven: float, rows: int
) -> None:
    """Each statistic of shares, in each feature: 900 windows of a feature that has changed, but not by more than is
    allowed. With the estimate against the threshold it would be every second one."""
    rows = max(rows, 10 * (categories + 1))
    windows = synthetic_windows(
        categories, uneven, moved=THRESHOLDS["l_infinity"].warn, lost=0.0, rows=rows, windows=50
    )
    gaps = [evidence_of(verdict, "l_infinity") for verdicts in windows for verdict in verdicts]
    assert sum(gap.state >= DriftState.WARN for gap in gaps) <= 0.01 * len(gaps)
    windows = synthetic_windows(categories, uneven, moved=0.0, lost=THRESHOLDS["missing"].warn, rows=rows, windows=50)
    gaps = [evidence_of(verdict, "missing") for verdicts in windows for verdict in verdicts]
    assert sum(gap.state >= DriftState.WARN for gap in gaps) <= 0.02 * len(gaps)
    if rows >= 5000:
        assert sum(gap.p < RULE.alpha for gap in gaps) > 0.99 * len(gaps)


def test_a_rare_category_that_does_not_come_in_a_small_window_has_not_vanished() -> None:
    feature = build_feature("c", "f.c", RNG.choice(["a", "b", "r"], size=20_000, p=[0.6, 0.39, 0.01]).astype(object))
    values = RNG.choice(["a", "b"], size=100, p=[0.61, 0.39]).astype(object)
    assert evidence_of(verdict_of(feature, values), "vanished").value == 0.0


def test_many_features_do_not_make_an_alarm_by_their_number() -> None:
    """Fifty features without change, a hundred windows: at most 1 % of the windows have an alarm."""
    bins, expected = NORMAL.bins, NORMAL.cell_counts
    features = [
        FeatureProfile(f"x{i}", "", FeatureKind.NUMBER, bins, NORMAL.counts, NORMAL.n, 0, 0, 1, 0, 0) for i in range(50)
    ]
    shares = expected / expected.sum()
    windows = np.random.default_rng(3).multinomial(250, shares, size=(100, 50))
    alarms = 0
    for window in windows:
        verdicts = judge(features, {f.name: counts for f, counts in zip(features, window, strict=True)}, RULE)
        alarms += any(verdict.state >= DriftState.WARN for verdict in verdicts)
    assert alarms <= 1


def test_a_reference_whose_own_windows_differ_raises_the_threshold() -> None:
    """The same values, once in the order of a season and once shuffled."""
    rng = np.random.default_rng(2)
    season = np.repeat(rng.normal(size=100), 400) + rng.normal(size=40_000)
    ordered, shuffled = build_feature("t", "f.t", season), build_feature("t", "f.t", rng.permutation(season))
    window = season[4000:4400]
    said = replace(ordered, bounded=False)
    evidence = {key: verdict_of(one, window) for key, one in (("said", said), ("ordered", ordered), ("no", shuffled))}
    assert evidence["said"].state is DriftState.OK
    assert evidence["no"].state >= DriftState.WARN
    measured = {one.statistic for one in evidence["said"].evidence}
    calibrated = measured & {one.statistic for one in ordered.calibration} & JUDGED.keys()
    assert "psi" in calibrated
    for name in sorted(calibrated):  # whatever the table judges by
        most = THRESHOLDS[name].most
        raised, bounded, plain = (evidence_of(evidence[key], name) for key in ("said", "ordered", "no"))
        assert (raised.state, raised.origin) == (DriftState.OK, Origin.REFERENCE), name
        assert bounded.threshold == min(raised.threshold, most), name
        assert bounded.origin is (Origin.BOUND if raised.threshold > most else Origin.REFERENCE), name
        assert plain.threshold < raised.threshold, name
    assert evidence_of(evidence["said"], "psi").threshold > 1.0
    assert evidence_of(evidence["ordered"], "psi").threshold == 1.0  # four times what is critical
    assert evidence_of(evidence["no"], "psi").threshold < 0.2


def test_a_reference_that_is_too_small_is_calibrated_by_theory_alone() -> None:
    feature = build_feature("x", "f.x", RNG.normal(size=400))
    assert feature.calibration == ()
    assert verdict_of(feature, RNG.normal(size=250)).state is DriftState.OK
    assert evidence_of(verdict_of(feature, RNG.normal(size=250)), "psi").threshold > 0.1
    assert verdict_of(feature, RNG.normal(2.0, size=250)).state is DriftState.CRIT


def test_calibration_of_independent_rows_is_that_of_theory() -> None:
    sizes = [one for one in NORMAL.calibration if one.statistic == "psi"]
    assert [one.rows for one in sizes[:3]] == [200, 400, 800]
    for one in sizes:
        noise = 1 / one.rows + 1 / (20_000 - one.rows)
        assert abs(one.mean) < 0.6 * 38**0.5 * noise
        assert one.sd == pytest.approx(38**0.5 * noise, rel=0.5)


def test_sampled_rows_count_as_many_as_they_are_worth() -> None:
    """A window sampled at 1 % that shows 30 rows shows nothing, though it stands for 3 000."""
    weighted = NORMAL.bins.count(RNG.normal(3.0, size=30), np.full(30, 100.0))
    (verdict,) = judge([NORMAL], {"x": weighted}, RULE, rows=30.0)
    assert verdict.state is DriftState.INSUFFICIENT
    assert verdict.n == pytest.approx(30)


def _window(state: DriftState) -> Verdict:
    return Verdict("x", state, "psi", "higher", 0.3, 0.1, 500, 0.0)


I, O, W, C = DriftState.INSUFFICIENT, DriftState.OK, DriftState.WARN, DriftState.CRIT  # noqa: E741


@pytest.mark.parametrize(
    ("states", "expected", "streak"),
    [
        ([O], O, 0),
        ([I], I, 0),
        ([C], I, 1),  # nothing to confirm it by
        ([O, C], I, 1),
        ([O, O, C], O, 1),
        ([O, C, C], O, 2),
        ([C, C, C], C, 3),
        ([W, C, C], W, 3),
        ([O, C, C, C], C, 3),
        ([C, C, C, O], O, 0),
        ([C, C, O, C], O, 1),
        ([C, C, I, C], C, 3),  # a quiet hour neither confirms nor refutes
        ([C, C, C, I], I, 0),
    ],
)
def test_an_alarm_needs_as_many_windows_in_a_row(states: list[DriftState], expected: DriftState, streak: int) -> None:
    verdict = confirm([_window(state) for state in states], RULE)
    assert (verdict.state, verdict.streak) == (expected, streak)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_column_makes_a_profile_whose_own_rows_are_no_drift(rows: int, distinct: int, random: object) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    columns = {"f.n": rng.normal(size=rows), "f.i": rng.integers(0, distinct, rows)}
    columns["f.t"] = rng.choice(["a", "b", "c"], size=rows).astype(object)
    profile = build_profile("m", "1", columns, {"pred_score": columns["f.n"]}, created_at=0.0, source="test")
    windows = {feature.name: feature.cell_counts for feature in profile.all_features}
    for verdict in judge(profile.all_features, windows, RULE):
        assert verdict.state in (DriftState.OK, DriftState.INSUFFICIENT)


@settings(max_examples=60, deadline=None)
@example(np.array([1, 2, 3, 4, 0, np.finfo(np.float64).max]))
@example(np.array([1, 2, 3, 4, 0, np.finfo(np.float32).max], np.float64))
@given(arrays(np.float64, st.integers(1, 400), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_no_number_is_too_large_or_too_odd_for_a_profile(values: npt.NDArray[np.float64]) -> None:
    feature = build_feature("x", "f.x", values)
    assert feature.cell_counts.sum() == len(values)
    profile = build_profile("m", "1", {"f.x": values}, {}, created_at=0.0, source="test")
    assert read_profile(profile_json(profile)).features[0].cell_counts.sum() == len(values)
    judge([feature], {"x": feature.bins.count(values[::-1])}, RULE)


def test_kinds_follow_from_the_values() -> None:
    columns = {"a": np.arange(100), "b": np.arange(100) % 5, "c": np.arange(100) / 7, "d": np.array(["x", "y"] * 50)}
    profile = build_profile("m", "1", columns, {}, created_at=0.0, source="test", categories={"a"})
    assert [feature.kind for feature in profile.features] == [
        FeatureKind.CATEGORY,
        FeatureKind.CATEGORY,
        FeatureKind.NUMBER,
        FeatureKind.TEXT,
    ]


def test_two_features_of_one_name_are_refused() -> None:
    columns = {"f.a": np.ones(3), "f.b": np.ones(3)}
    with pytest.raises(InvalidArgument, match="'pred_score' is given twice"):
        build_profile(
            "m", "1", columns, {"pred_score": np.ones(3)}, created_at=0.0, source="", names={"f.a": "pred_score"}
        )


@pytest.mark.parametrize(
    ("columns", "categories", "message"),
    [
        ({}, (), "no rows"),
        ({"a": np.empty(0)}, (), "no rows"),
        ({"a": np.ones(3), "b": np.ones(4)}, (), "'b' has 4 rows, the others 3"),
        ({"a": np.ones(3)}, ("z",), "category 'z' is no column, the columns are a"),
    ],
)
def test_what_makes_no_profile_is_refused(
    columns: dict[str, npt.NDArray[np.float64]], categories: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        build_profile("m", "1", columns, {}, created_at=0.0, source="", categories=categories)


def test_the_components_of_an_embedding_hold_its_variance() -> None:
    vectors = RNG.normal(size=(2000, 3)) @ RNG.normal(size=(3, 40)) + 5.0
    embedding = build_embedding("in.e", vectors)
    components, sample = np.array(embedding.components), np.array(embedding.sample)
    assert (components.shape, sample.shape) == ((16, 40), (500, 16))
    assert np.abs(components @ components.T - np.eye(16)).max() < 1e-3
    assert sample[:, 3:].std() < 1e-3
    assert [one.name for one in embedding.features] == [*(f"in.e~{n}" for n in range(1, 9)), "in.e~rest"]
    placed = embedding.project(vectors[1::2])
    for number, feature in enumerate(embedding.features[:8]):
        assert (feature.bins.count(placed[:, number]) == feature.cell_counts).all()
    assert np.isnan(embedding.project(np.full((1, 40), np.inf))).all()
    with pytest.raises(InvalidArgument, match="expected"):
        build_embedding("in.e", np.ones(3))


def test_a_column_is_calibrated_the_same_as_texts_and_as_codes() -> None:
    texts = RNG.choice(["a", "b"], size=2000).astype(object)
    column = as_column("c", texts)
    bins = build_feature("c", "c", texts).bins
    assert calibrate(bins, column) == build_feature("c", "c", texts).calibration
