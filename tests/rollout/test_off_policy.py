"""The value of another policy: against simulations whose answer is known, and from a log."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.span import Span
from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.rollout.results.experiment import RevisionSplit, experiment_of
from gateway.rollout.results.result import ExperimentResult
from gateway.rollout.results.results_gathering import gather_results
from gateway.rollout.results.results_page import render_results
from gateway.rollout.statistics.mean_difference import MeanDifference
from gateway.rollout.statistics.off_policy_value import (
    LoggedChoices,
    OffPolicyValue,
    effective_keys,
    off_policy_value,
    unsupported,
)
from gateway.routing.document.document import parse
from tests.drift.lakes import START_US, lake_of
from tests.rollout.experiments import HOUR_US, MODEL, Requests, history, split_document, write_requests

NOW_US = START_US + 30 * 24 * HOUR_US


def expected_reward(x: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """What the simulated world rewards: action 1 helps where x is high and harms where it is low."""
    return np.where(actions == 1, 0.5 + 0.4 * x, 0.6)


def choices(rng: np.random.Generator, keys: int, share: float = 0.3, *, seen: bool = True) -> LoggedChoices:
    """Logged choices of keys with one to five rows each; the target takes action 1 where x is above 0."""
    owners = np.repeat(np.arange(keys), rng.integers(1, 6, size=keys))
    x = rng.normal(size=keys)[owners] + 0.2 * rng.normal(size=len(owners))
    actions = (rng.random(keys) < share).astype(np.int64)[owners]
    rewards = expected_reward(x, actions) + 0.5 * rng.normal(size=len(owners))
    logged = np.tile([1 - share, share], (len(owners), 1))
    target = np.column_stack([x <= 0, x > 0]).astype(float)
    return LoggedChoices(owners, actions, rewards, logged, target, x[:, None] if seen else np.zeros((len(owners), 0)))


def truth() -> float:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400_000) * np.sqrt(1.04)
    return float(expected_reward(x, (x > 0).astype(np.int64)).mean())


def half(told: MeanDifference) -> float:
    return (told.high - told.low) / 2


def test_all_three_come_to_the_value_that_the_policy_really_has() -> None:
    rng = np.random.default_rng(1)
    known = truth()
    told = [off_policy_value(choices(rng, 1000)) for _ in range(40)]
    values: list[OffPolicyValue] = [one for one in told if one is not None]
    assert len(values) == 40
    for name in ("propensity", "normalised", "robust"):
        estimates = [getattr(one, name) for one in values]
        assert np.mean([one.value for one in estimates]) == pytest.approx(known, abs=0.03)
        missed = [not one.low <= known <= one.high for one in estimates]
        assert np.mean(missed) <= 0.05
        # The spread that is said is the one that there is.
        spread = np.std([one.value for one in estimates])
        assert np.median([half(one) for one in estimates]) / spread == pytest.approx(3.4, rel=0.4)
    assert np.median([half(one.robust) for one in values]) < np.median([half(one.propensity) for one in values])
    assert all(one.gain.low > 0 for one in values[:10])


def test_without_features_the_robust_estimate_is_right_too() -> None:
    rng = np.random.default_rng(2)
    estimates = [off_policy_value(choices(rng, 1000, seen=False)) for _ in range(30)]
    assert np.mean([one.robust.value for one in estimates if one is not None]) == pytest.approx(truth(), abs=0.02)


@given(st.integers(0, 10_000), st.floats(-20, 20))
@example(0, 0.0)
def test_what_it_must_not_depend_on(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    made = choices(rng, 300, 0.5)
    told = off_policy_value(made)
    assert told is not None
    order = rng.permutation(len(made.keys))
    mixed = off_policy_value(
        LoggedChoices(
            made.keys[order], made.actions[order], made.rewards[order], made.logged[order], made.target[order],
            made.features[order],
        )
    )  # fmt: skip
    assert mixed is not None
    moved = off_policy_value(
        LoggedChoices(made.keys, made.actions, made.rewards + shift, made.logged, made.target, made.features)
    )
    assert moved is not None
    for name in ("normalised", "robust", "logged"):
        value = getattr(told, name).value
        assert getattr(mixed, name).value == pytest.approx(value)
        assert getattr(moved, name).value == pytest.approx(value + shift, abs=1e-6)
    assert moved.gain.value == pytest.approx(told.gain.value, abs=1e-6)
    same = off_policy_value(
        LoggedChoices(made.keys, made.actions, made.rewards, made.logged, made.logged, made.features)
    )
    assert same is not None
    assert same.propensity.value == pytest.approx(same.logged.value)
    assert same.normalised.value == pytest.approx(same.logged.value)
    assert same.effective == pytest.approx(same.keys)
    assert same.gain.low < 0 < same.gain.high


def test_what_was_never_drawn_or_seldom_is_refused() -> None:
    made = choices(np.random.default_rng(3), 400, 0.02)
    assert effective_keys(made) < 100 or off_policy_value(made) is not None
    always = LoggedChoices(
        made.keys, np.zeros_like(made.actions), made.rewards, np.tile([1.0, 0.0], (len(made.keys), 1)), made.target,
        made.features,
    )  # fmt: skip
    assert unsupported(always) == {1: int((made.target[:, 1] > 0).sum())}
    with pytest.raises(ValueError, match=r"actions \[1\]"):
        off_policy_value(always)
    few = choices(np.random.default_rng(4), 50)
    assert off_policy_value(few) is None
    nothing = LoggedChoices(
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 0))
    )
    assert off_policy_value(nothing) is None


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RevisionSplit]]:
    """Two phases of a split; b is worth more where the feature is above 0, and less elsewhere."""
    data_dir = tmp_path_factory.mktemp("logged")
    made = history(
        split_document({"a": 100, "b": 0}), split_document({"a": 80, "b": 20}), split_document({"a": 50, "b": 50})
    )
    rng = np.random.default_rng(5)
    parts = []
    for split in reversed(made):
        part = Requests(split, rng.integers(0, 1_000_000, size=1500))
        treated = np.array(part.arms()) == "b"
        part.features = rng.normal(size=1500)
        part.rewards = np.where(treated, np.where(part.features > 0, 1.0, 0.0), 0.4) + 0.1 * rng.normal(size=1500)
        parts.append(part)
    write_requests(data_dir, parts)
    return data_dir, made


def asked(
    data_dir: Path, made: list[RevisionSplit], draft: dict[str, object], *rules: tuple[str, str], since: int = 0
) -> ExperimentResult:
    with Lake(lake_of(data_dir)) as lake:
        return gather_results(
            lake, experiment_of(MODEL, made, since=since), Span(0, NOW_US), generated_us=NOW_US, draft=parse(draft),
            rules=rules,
        )  # fmt: skip


def test_another_split_of_a_log_of_several_splits(logged: tuple[Path, list[RevisionSplit]]) -> None:
    made = asked(*logged, split_document({"a": 25, "b": 75}))
    assert made.policy is not None
    value = made.policy.value
    known = 0.25 * 0.4 + 0.75 * 0.5
    for one in (value.propensity, value.normalised, value.robust):
        assert one.low < known < one.high
    assert value.robust.value == pytest.approx(known, abs=0.03)
    assert made.policy.shares == {"1": 0.25, "2": 0.75}
    assert made.policy.features == ("f.x",)
    assert made.policy.coverage == 1.0
    page = render_results(made)
    assert "Another policy" in page
    assert "With this policy the reward would have been" in page
    assert made.to_value()["policy"]["value"]["keys"] == value.keys


def test_a_rule_over_columns_of_the_log(logged: tuple[Path, list[RevisionSplit]]) -> None:
    made = asked(*logged, split_document({"a": 100, "b": 0}), ("b", '"f.x" > 0'))
    assert made.policy is not None
    value = made.policy.value
    assert value.robust.low < 0.7 < value.robust.high
    assert value.gain.low > 0
    assert "more; this holds at every look" in made.policy.text


def test_a_draft_that_does_what_was_never_tried_is_refused(logged: tuple[Path, list[RevisionSplit]]) -> None:
    other = split_document({"a": 50, "b": 50})
    other["spec"]["arms"]["b"] = {"version": "9"}
    with pytest.raises(FailedPrecondition, match="version 9 of the policy was drawn for no request"):
        asked(*logged, other)
    ruled = split_document({"a": 50, "b": 50})
    ruled["spec"]["rules"] = [{"name": "vip", "match": {"metadata": {"x-tier": {"exact": "vip"}}}, "arm": "b"}]
    with pytest.raises(InvalidArgument, match=r"spec.rules\[vip\]: the log keeps no metadata"):
        asked(*logged, ruled)
    foreign = split_document({"a": 50, "b": 50})
    foreign["metadata"]["model"] = "other"
    with pytest.raises(InvalidArgument, match="the policy is of model 'other'"):
        asked(*logged, foreign)
    with pytest.raises(InvalidArgument, match="where"):
        asked(*logged, split_document({"a": 50, "b": 50}), ("b", "1; 2"))


def test_a_draft_that_takes_what_had_no_share_in_a_phase_is_refused(tmp_path: Path) -> None:
    made = history(split_document({"a": 50, "b": 50, "c": 0}), split_document({"a": 40, "b": 30, "c": 30}))
    rng = np.random.default_rng(8)
    parts = [
        Requests(split, rng.integers(0, 1_000_000, size=600), rewards=rng.normal(size=600)) for split in reversed(made)
    ]
    write_requests(tmp_path, parts)
    draft = split_document({"a": 0, "b": 50, "c": 50})
    with pytest.raises(FailedPrecondition, match="support is missing: the policy takes version 3 in 600 rows of 1200"):
        asked(tmp_path, made, draft)
    assert asked(tmp_path, made, draft, since=2).policy is not None


def test_a_rule_that_was_always_there_takes_nothing_from_the_split(tmp_path: Path) -> None:
    vip = {"name": "vip", "match": {"metadata": {"x-tier": {"exact": "vip"}}}, "arm": "b"}
    document = split_document({"a": 50, "b": 50})
    document["spec"]["rules"] = [vip]
    made = history(document)
    rng = np.random.default_rng(6)
    part = Requests(made[0], rng.integers(0, 1_000_000, size=1000), rewards=rng.normal(size=1000))
    write_requests(tmp_path, [part])
    assert asked(tmp_path, made, document).policy is not None
    unrewarded = tmp_path / "unrewarded"
    write_requests(unrewarded, [Requests(made[0], part.buckets)])
    with pytest.raises(FailedPrecondition, match="no row of this experiment has a reward"):
        asked(unrewarded, made, document)
    with pytest.raises(FailedPrecondition, match="the log has no row"):
        asked(tmp_path / "nothing", made, document)


def test_where_the_split_is_broken_nothing_is_estimated(tmp_path: Path) -> None:
    made = history(split_document({"a": 50, "b": 50}))
    part = Requests(made[0], np.random.default_rng(7).integers(0, 400_000, size=1000))
    part.rewards = np.ones(1000)
    write_requests(tmp_path, [part])
    told = asked(tmp_path, made, split_document({"a": 25, "b": 75}))
    assert told.policy is None
    assert any("the policy is not estimated" in note for note in told.notes)
