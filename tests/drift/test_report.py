"""Reports on lakes whose truth is known: what is found, what is not, and what cannot be told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.report.gathering import Question, gather
from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.outcome import read_labelled
from gateway.drift.report.page import render
from gateway.drift.report.reference import Reference, reference_file, reference_selection, reference_window
from gateway.drift.report.report import FeatureReport, Report
from gateway.drift.report.span import Span
from gateway.drift.statistics.answers import find_outputs
from gateway.drift.statistics.verdict import DriftState
from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import RedactionAction, RedactionRule
from gateway.records.worker.sampling import Sampling
from tests.drift.lakes import DAY_US, START_US, lake_of, write_labels, write_rows

DAY_ROWS, DAYS = 800, 10
REFERENCE = Span(START_US, START_US + 5 * DAY_US)
WINDOW = Span(START_US + 5 * DAY_US, START_US + 10 * DAY_US)


def predict(x: np.ndarray, slope: float = 1.0) -> np.ndarray:
    chance = (1 / (1 + np.exp(-slope * x[:, 0]))).astype("<f4")
    return np.column_stack([1 - chance, chance])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of version 1. From day 6 on x_1 is higher, from day 8 on a tenth of x_2 is missing, a new town appears
    and another goes, and labels are noise; version 2 shadows version 1 on day 6 and answers a fifth of day 7."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(5)
    rows = DAY_ROWS * DAYS
    day = np.arange(rows) // DAY_ROWS
    moments = START_US + np.arange(rows) * (DAY_US // DAY_ROWS)
    x = rng.normal(size=(rows, 4)).astype("<f4")
    x[day >= 5, 1] += 0.8
    x[(day >= 7) & (rng.random(rows) < 0.1), 2] = np.nan
    towns = np.array(["north", "south", "<b>east</b>", "west"], object)[rng.choice(4, rows, p=[0.4, 0.3, 0.2, 0.1])]
    towns[(day >= 7) & (towns == "west")] = "atlantis"
    outputs = {"p": predict(x)}
    ids = write_rows(folder, moments, {"x": x, "town": towns}, outputs)
    truth = (rng.random(rows) < np.where(day >= 7, 0.5, outputs["p"][:, 1])).astype(float)
    labelled = np.flatnonzero(rng.random(rows) < 0.7)
    write_labels(folder, [ids[i] for i in labelled], truth[labelled].tolist(), moments[labelled].tolist())
    shadowed = np.flatnonzero(day == 5)
    write_rows(
        folder, moments[shadowed], {"x": x[shadowed], "town": towns[shadowed]}, {"p": predict(x[shadowed], 1.5)},
        version="2", shadow_of="1", names=[ids[i] for i in shadowed],
    )  # fmt: skip
    own = np.flatnonzero((day == 6) & (np.arange(rows) % 5 == 0))
    more = write_rows(
        folder, moments[own] + 1, {"x": x[own], "town": towns[own]}, {"p": predict(x[own], -1.0)}, version="2",
        arm="canary", names=[f"canary-{i}" for i in own],
    )  # fmt: skip
    write_labels(folder, more, truth[own].tolist(), moments[own].tolist(), rewards=[2.0 + i % 2 for i in own])
    write_labels(folder, ids[:2000:10], [None] * 200, moments[:2000:10].tolist(), rewards=[1.0] * 200)
    late = [ids[i] for i in shadowed]
    write_labels(
        folder, late, [None] * len(late), moments[shadowed].tolist(), rewards=[i % 2 for i in range(len(late))]
    )
    return folder


def from_window(lake: Lake, selection: Selection, span: Span = REFERENCE) -> Reference:
    base = reference_selection(lake, selection, span)
    made = reference_window(lake, base, rng=np.random.default_rng(0), created_at=0.0)
    return replace(made, labelled=read_labelled(lake, base, find_outputs(lake.columns(base))))


def ask(data_dir: Path, selection: Selection, *, against: Selection | None = None, **more: object) -> Report:
    with Lake(lake_of(data_dir)) as lake:
        reference = from_window(lake, against or replace(selection, versions=("1",)))
        return gather(Question(selection, 0, WINDOW.end_us, **more), lake, reference)  # type: ignore[arg-type]


def by_name(report: Report) -> dict[str, FeatureReport]:
    return {feature.name: feature for feature in report.features}


@pytest.fixture(scope="module")
def report(data_dir: Path) -> Report:
    return ask(data_dir, Selection("homes", WINDOW, versions=("1",)))


def test_what_has_moved_is_found_and_what_has_not_is_left_alone(report: Report) -> None:
    parsed = by_name(report)
    assert report.state is DriftState.CRIT
    assert (report.rows, report.reference_rows) == (4000, 4000)
    assert parsed["x_1"].state is DriftState.CRIT
    assert (parsed["x_1"].verdict.statistic, parsed["x_1"].verdict.direction) == ("psi", "higher")
    assert parsed["x_2"].state is DriftState.CRIT
    assert parsed["x_2"].verdict.statistic == "missing"
    assert parsed["town"].state is DriftState.CRIT
    assert [feature.name for feature in report.features[:3]] == sorted(
        ["x_1", "x_2", "town"], key=lambda name: [f.name for f in report.features].index(name)
    )
    quiet = {"x_0", "x_3", "out.p_0", "out.p_1", "pred_class", "pred_score"}
    assert {name for name, feature in parsed.items() if feature.state is DriftState.OK} == quiet


def test_every_statistic_of_a_feature_is_near_what_it_is_by_theory(report: Report) -> None:
    """A normal variable that has moved by 0.8 deviations: the distances are known."""
    statistics = by_name(report)["x_1"].statistics
    assert statistics["mean_shift"] == pytest.approx(0.8, abs=0.08)
    assert statistics["sd_ratio"] == pytest.approx(1.0, abs=0.05)
    assert statistics["ks"] == pytest.approx(0.311, abs=0.04)  # 2 Phi(0.4) - 1
    assert statistics["wasserstein"] == pytest.approx(0.8, abs=0.08)
    assert statistics["psi"] == pytest.approx(0.64, abs=0.12)
    assert statistics["ks_p"] < 1e-6
    assert by_name(report)["x_2"].statistics["missing_share"] == pytest.approx(0.06, abs=0.015)


def test_the_trend_says_when_it_began(report: Report) -> None:
    parsed = by_name(report)
    assert len(report.features[0].trend) == 5
    assert parsed["x_1"].since_us == WINDOW.start_us + 2 * DAY_US  # the third day in a row
    assert parsed["x_2"].since_us == WINDOW.start_us + 4 * DAY_US
    assert [step.confirmed for step in parsed["x_0"].trend] == [False] * 5
    assert [step.rows for step in parsed["x_1"].trend] == [DAY_ROWS] * 5


def test_whole_rows_are_told_apart_by_what_moved(report: Report) -> None:
    [rows] = report.vectors
    assert rows.state >= DriftState.WARN
    assert rows.mmd is not None
    assert rows.mmd.p <= 0.01
    assert rows.separation is not None
    assert rows.separation.attribution[0][0] == "x_1"


def test_performance_falls_when_labels_become_noise_and_the_estimate_does_not_see_it(report: Report) -> None:
    quality = report.performance
    assert quality is not None
    assert quality.state is DriftState.CRIT
    assert quality.labelled / quality.rows == pytest.approx(0.7, abs=0.03)
    assert quality.delays_s["p50"] == pytest.approx(3600, abs=1)
    accuracies = [next(m.value for m in step.realised if m.name == "accuracy") for step in quality.trend]
    assert min(accuracies[:2]) > 0.6
    assert max(accuracies[2:]) < 0.56
    estimated = {one.name: one for one in quality.estimated}
    before = {metric.name: metric for metric in quality.reference}
    assert estimated["auc"].value == pytest.approx(before["auc"].value, abs=0.05)


def test_a_condition_and_an_arm_narrow_the_report(data_dir: Path) -> None:
    selection = Selection("homes", WINDOW, versions=("1",), where="\"f.town\" = 'north'")
    report = ask(data_dir, selection, against=selection)
    assert report.rows == pytest.approx(1600, abs=120)
    assert by_name(report)["town"].state is DriftState.OK
    canary = Selection("homes", WINDOW, arms=("canary",))
    report = ask(data_dir, canary, against=canary)
    assert report.rows_by_version == {"2": 160}
    assert "all versions and arms" in report.reference  # nobody was answered by the canary in those days


def test_two_versions_are_compared_on_the_same_rows_and_on_their_own(data_dir: Path) -> None:
    report = ask(data_dir, Selection("homes", WINDOW, versions=("1", "2")), split={"1": 80.0, "2": 20.0})
    duel = report.comparison
    assert duel is not None
    assert (duel.rows_a, duel.rows_b) == (4000, 160)
    assert duel.agreement is not None
    assert (duel.agreement.pairs, duel.agreement.ratio) == (DAY_ROWS, 1.0)  # steeper, but of the same sign
    assert duel.agreement.apart > 0
    assert duel.mcnemar is not None
    assert (duel.mcnemar.only_a, duel.mcnemar.only_b, duel.mcnemar.p) == (0, 0, 1.0)
    assert duel.split is not None
    assert duel.split.mismatch  # 4 % of the window, not 20 %
    assert duel.split.observed == {"1": 4000, "2": 160}
    assert duel.buckets is not None
    assert (duel.buckets.state, duel.buckets.requests) == (DriftState.OK, 4160)
    assert duel.rank_correlation == pytest.approx(1.0)
    assert duel.reward is not None
    assert (duel.reward.mean_a, duel.reward.rows_a, duel.reward.rows_b) == (0.5, DAY_ROWS, 160)
    assert 1 < duel.reward.low < duel.reward.high < 3
    assert duel.state is DriftState.CRIT


def test_a_version_that_answers_the_opposite_is_worse(data_dir: Path) -> None:
    day = Span(WINDOW.start_us + DAY_US, WINDOW.start_us + 2 * DAY_US)
    report = ask(data_dir, Selection("homes", day, versions=("1", "2")))
    assert report.comparison is not None
    change = {one.name: one for one in report.comparison.changes}["accuracy"]
    assert change.current < 0.5 < change.reference
    assert change.high < 0
    assert not change.enough  # 160 labels are no proof
    assert "not tested" in " ".join(report.comparison.notes)


def test_a_shadow_alone_can_be_reported_on(data_dir: Path) -> None:
    day = Span(WINDOW.start_us, WINDOW.start_us + DAY_US)
    report = ask(data_dir, Selection("homes", day, versions=("2",)))
    assert report.rows == DAY_ROWS
    assert "copies" in report.notes[0]


def test_the_same_seed_gives_the_same_report(data_dir: Path, report: Report) -> None:
    again = ask(data_dir, Selection("homes", WINDOW, versions=("1",)))
    assert again.to_json() == report.to_json()


def test_the_json_is_whole_and_has_no_nan(report: Report) -> None:
    parsed = json.loads(report.to_json(), parse_constant=lambda word: pytest.fail(word))
    assert parsed["state"] == "crit"
    assert parsed["window"] == {"start": "2026-10-06", "end": "2026-10-11"}
    assert len(parsed["features"]) == len(report.features)
    assert parsed["features"][0]["verdict"]["evidence"]
    assert parsed["performance"]["trend"][0]["realised"]


def test_a_profile_as_reference_has_no_rows_and_says_so(data_dir: Path) -> None:
    with Lake(lake_of(data_dir)) as lake:
        selection = Selection("homes", WINDOW, versions=("1",))
        profile = from_window(lake, selection).profile
        report = gather(Question(selection, 0, WINDOW.end_us), lake, Reference(profile, "a profile"))
    assert by_name(report)["x_1"].state is DriftState.CRIT
    assert by_name(report)["x_1"].statistics["ks"] == pytest.approx(0.31, abs=0.05)  # from bins
    assert report.vectors == ()
    assert "keeps no rows" in " ".join(report.notes)
    assert report.performance is not None
    assert report.performance.changes == ()
    assert "no labelled rows" in " ".join(report.performance.notes)


def test_a_file_as_reference(data_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 4))
    chances = predict(x)
    truth = rng.random(3000) < chances[:, 1]
    lines = ["x_0,x_1,x_2,x_3,town,out.p_0,out.p_1,pred_class,pred_score,label"]
    for row, pair, label in zip(x.tolist(), chances.tolist(), truth.tolist(), strict=True):
        cells = [*row, rng.choice(["north", "south"]), *pair, int(pair[1] >= 0.5), max(pair), int(label)]
        lines.append(",".join(map(str, cells)))
    path = tmp_path / "training.csv"
    path.write_text("\n".join(lines) + "\n")
    with Lake(lake_of(data_dir)) as lake:
        selection = Selection("homes", WINDOW, versions=("1",))
        kinds = lake.columns(selection)
        made = reference_file(path, kinds, model="homes", created_at=0.0, names={})
        report = gather(Question(selection, 0, WINDOW.end_us), lake, made)
        (tmp_path / "other.csv").write_text("a,b\n1,2\n")
        with pytest.raises(InvalidArgument, match="none of x_0"):
            reference_file(tmp_path / "other.csv", kinds, model="homes", created_at=0.0, names={})
    assert by_name(report)["x_1"].state is DriftState.CRIT
    assert by_name(report)["x_0"].state is DriftState.OK
    assert by_name(report)["town"].state is DriftState.CRIT  # the file knows two towns
    assert report.performance is not None
    assert report.performance.state is DriftState.CRIT
    assert {one.name for one in report.performance.estimated} == {"accuracy", "f1", "auc"}


def test_an_embedding_is_compared_as_a_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(1200, 600)).astype("<f4") * np.linspace(3, 0.1, 600, dtype="<f4")
    vectors[:, 0] *= 2
    vectors[600:, 0] += 8.0
    moments = START_US + np.arange(1200) * (DAY_US // 600)
    write_rows(tmp_path, moments, {"text": vectors}, {"y": vectors[:, 0].copy()})
    first, second = Span(START_US, START_US + DAY_US), Span(START_US + DAY_US, START_US + 2 * DAY_US)
    with Lake(lake_of(tmp_path)) as lake:
        made = from_window(lake, Selection("homes", first), first)
        same = gather(Question(Selection("homes", first), 0, 0), lake, made)
        moved = gather(Question(Selection("homes", second), 0, 0), lake, made)
    assert [vector.name for vector in moved.vectors] == ["in.text"]
    assert moved.vectors[0].state is DriftState.CRIT
    assert moved.vectors[0].separation is not None
    assert moved.vectors[0].separation.attribution[0][0] == "component 1"
    assert same.vectors[0].state is DriftState.OK
    assert moved.performance is None
    assert "labels" in " ".join(moved.notes)


def test_a_regression_is_judged_by_its_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2000, 1)).astype("<f4")
    truth = x[:, 0] + rng.normal(0, np.where(np.arange(2000) < 1000, 0.5, 1.5))
    moments = START_US + np.arange(2000) * (DAY_US // 1000)
    ids = write_rows(tmp_path, moments, {"x": x}, {"y": x[:, 0].copy()})
    write_labels(tmp_path, ids, truth.tolist(), moments.tolist())
    first, second = Span(START_US, START_US + DAY_US), Span(START_US + DAY_US, START_US + 2 * DAY_US)
    with Lake(lake_of(tmp_path)) as lake:
        made = from_window(lake, Selection("homes", first), first)
        report = gather(Question(Selection("homes", second), 0, 0), lake, made)
    assert report.performance is not None
    assert report.performance.task == "regression"
    rmse = {change.name: change for change in report.performance.changes}["rmse"]
    assert (rmse.reference, rmse.current) == pytest.approx((0.5, 1.5), rel=0.1)
    assert report.performance.state is DriftState.CRIT
    assert report.performance.estimated == ()
    assert by_name(report)["x"].state is DriftState.OK


def test_sampled_rows_count_for_those_that_were_not_logged(tmp_path: Path) -> None:
    """Every second town is logged at a tenth: by weight the shares are those of the traffic."""
    rng = np.random.default_rng(4)
    moments = START_US + np.sort(rng.integers(0, 2 * DAY_US, 12_000))
    x = rng.normal(size=(12_000, 1)).astype("<f4")
    half = moments < START_US + DAY_US
    write_rows(tmp_path, moments[half], {"x": x[half]}, {"y": x[half, 0].copy()})
    later = np.flatnonzero(~half)
    for arm, chosen, rate in (("a", later[x[later, 0] > 0], 0.1), ("b", later[x[later, 0] <= 0], 1.0)):
        write_rows(
            tmp_path, moments[chosen], {"x": x[chosen]}, {"y": x[chosen, 0].copy()}, arm=arm,
            names=[f"{arm}-{i}" for i in chosen], sampling=Sampling(rate=rate),
        )  # fmt: skip
    with Lake(lake_of(tmp_path)) as lake:
        first, second = Span(START_US, START_US + DAY_US), Span(START_US + DAY_US, START_US + 2 * DAY_US)
        made = from_window(lake, Selection("homes", first), first)
        report = gather(Question(Selection("homes", second), 0, 0), lake, made)
    assert report.rows < 4000
    assert report.worth < report.rows
    assert abs(by_name(report)["x"].statistics["psi"]) < 0.05
    assert report.state is DriftState.OK
    assert "sampled" in " ".join(report.notes)


def test_what_redaction_hides_is_not_missing(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(4000, 3)).astype("<f4")
    moments = START_US + np.arange(4000) * (DAY_US // 2000)
    write_rows(tmp_path, moments[:2000], {"x": x[:2000]}, {"y": x[:2000, 0].copy()})
    write_rows(
        tmp_path, moments[2000:], {"x": x[2000:]}, {"y": x[2000:, 0].copy()}, names=[f"later-{i}" for i in range(2000)],
        redaction=Redaction((RedactionRule("homes", "x", RedactionAction.NULL, feature=1),)),
    )  # fmt: skip
    first, second = Span(START_US, START_US + DAY_US), Span(START_US + DAY_US, START_US + 2 * DAY_US)
    with Lake(lake_of(tmp_path)) as lake:
        made = from_window(lake, Selection("homes", first), first)
        report = gather(Question(Selection("homes", second), 0, 0), lake, made)
    assert report.state is DriftState.OK
    hidden = by_name(report)["x_1"]
    assert hidden.state is DriftState.INSUFFICIENT
    assert "redaction" in hidden.note
    [rows] = report.vectors
    assert rows.separation is not None
    assert {name for name, _ in rows.separation.attribution} == {"x_0", "x_2"}


def test_hours_without_rows_and_features_that_never_vary_are_no_trouble(tmp_path: Path) -> None:
    x = np.column_stack([np.full(1200, 4.0), np.random.default_rng(7).normal(size=1200)]).astype("<f4")
    moments = START_US + np.arange(1200) * (DAY_US // 4800)  # six hours of the day
    write_rows(tmp_path, moments, {"x": x}, {"c": np.zeros(1200, "<i8")})
    day = Span(START_US, START_US + DAY_US)
    with Lake(lake_of(tmp_path)) as lake:
        made = from_window(lake, Selection("homes", day), day)
        report = gather(Question(Selection("homes", day, versions=("1", "2")), 0, 0), lake, made)
    assert report.state is DriftState.OK
    assert by_name(report)["x_0"].state is DriftState.OK
    assert np.isnan([step.value for step in by_name(report)["x_1"].trend]).sum() == 18
    assert json.loads(report.to_json())["features"][0]["trend"][23]["value"] is None
    assert report.comparison is not None
    assert "version 2 has no rows" in " ".join(report.comparison.notes)
    assert "no drift" in render(report).lower()


def test_too_few_rows_are_never_ok(data_dir: Path) -> None:
    hour = Span(WINDOW.start_us, WINDOW.start_us + DAY_US // 24)
    report = ask(data_dir, Selection("homes", hour, versions=("1",)))
    assert by_name(report)["x_0"].state is DriftState.INSUFFICIENT
    assert {feature.state for feature in report.features} <= {DriftState.INSUFFICIENT, DriftState.OK}
    assert by_name(report)["x_1"].state is DriftState.INSUFFICIENT


def test_nothing_to_report_on_is_said(data_dir: Path) -> None:
    with Lake(lake_of(data_dir)) as lake:
        made = from_window(lake, Selection("homes", REFERENCE, versions=("1",)))
        with pytest.raises(FailedPrecondition, match="the log has homes"):
            gather(Question(Selection("nobody", WINDOW), 0, 0), lake, made)
        with pytest.raises(FailedPrecondition, match="reference window"):
            from_window(lake, Selection("homes", WINDOW), Span(0, 60_000_000))
        with pytest.raises(InvalidArgument, match="blocks"):
            gather(Question(Selection("homes", WINDOW), 0, 0, every_us=60_000_000), lake, made)


def test_a_new_category_is_named(data_dir: Path) -> None:
    report = ask(data_dir, Selection("homes", WINDOW, versions=("1",)))
    towns = next(feature for feature in report.features if feature.name == "town")
    [(name, share)] = towns.new
    assert name == "atlantis"
    assert share == pytest.approx(0.06, abs=0.01)  # of the window: a tenth of three days of five
    unseen = next(one for one in towns.verdict.evidence if one.statistic == "unseen")
    assert unseen.value == pytest.approx(share, abs=0.001)
    assert "new: atlantis" in render(report)
    assert json.loads(report.to_json())["features"][0]["name"]
