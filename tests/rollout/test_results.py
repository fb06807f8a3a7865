"""Results of an experiment, from the log to the verdict."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.span import Span
from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.records.worker.sampling import Sampling
from gateway.rollout.results.assigned_units import DrawnRows, selection_of
from gateway.rollout.results.experiment import RevisionSplit, experiment_of
from gateway.rollout.results.result import ArmVerdict, ExperimentResult, MetricResult, Outcome, Says
from gateway.rollout.results.results_gathering import freshness_text, gather_results
from gateway.rollout.results.results_page import render_results
from tests.drift.lakes import START_US, lake_of
from tests.rollout.experiments import EVEN, HOUR_US, MODEL, Requests, history, split_document, write_requests

NOW_US = START_US + 30 * 24 * HOUR_US
SPAN = Span(0, NOW_US)


def keys_of(rng: np.random.Generator, keys: int, requests: int) -> np.ndarray:
    """The buckets of requests that some keys make."""
    return rng.integers(0, 1_000_000, size=keys)[rng.integers(0, keys, size=requests)]


def results(data_dir: Path, made: list[RevisionSplit], **options: object) -> ExperimentResult:
    with Lake(lake_of(data_dir)) as lake:
        return gather_results(lake, experiment_of(MODEL, made), SPAN, generated_us=NOW_US, **options)  # type: ignore[arg-type]


def metric(made: ExperimentResult, name: str, arm: str = "b") -> MetricResult:
    [found] = [one for one in made.of_arm(arm) if one.metric == name]
    return found


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RevisionSplit]]:
    """A day of a test in which b has more reward, most of all where the feature is high."""
    data_dir = tmp_path_factory.mktemp("better")
    made = history(split_document(EVEN, metrics=[{"name": "reward", "mde": 0.05}], maxDuration="14d"))
    rng = np.random.default_rng(1)
    buckets = keys_of(rng, 2500, 6000)
    part = Requests(made[0], buckets)
    treated = np.array(part.arms()) == "b"
    part.features = np.round(rng.normal(size=len(buckets)), 3)
    part.rewards = (rng.random(len(buckets)) < 0.3 + 0.1 * treated + 0.2 * treated * (part.features > 0)).astype(float)
    part.rewards[::10] = np.nan
    part.scores = rng.normal(size=len(buckets)) + treated
    part.total_us = rng.integers(900, 1100, size=len(buckets))
    part.codes = np.where(rng.random(len(buckets)) < 0.01, 13, 0)
    write_requests(data_dir, [part])
    return data_dir, made


def test_an_arm_that_is_better_is_said_to_be_with_its_interval(better: tuple[Path, list[RevisionSplit]]) -> None:
    made = results(*better)
    reward = metric(made, "reward")
    assert made.outcome is Outcome.BETTER
    assert reward.says is Says.BETTER
    assert reward.difference is not None
    assert reward.difference.low < 0.2 < reward.difference.high
    assert reward.difference.low > 0
    [verdict] = made.verdicts
    assert verdict.text.startswith("b is better: reward 0.")
    assert "this holds at every look" in verdict.text
    [check] = made.checks
    assert not check.mismatch
    assert sum(check.keys.values()) == made.phases[0].keys
    assert metric(made, "errors").says is Says.OPEN
    assert metric(made, "prediction").says is Says.DIFFERS
    assert metric(made, "coverage").treated.mean == pytest.approx(0.89, abs=0.02)
    assert any("the others are not known, not 0" in note for note in made.notes)
    assert any("maxDuration was over" in note for note in made.notes)
    assert set(made.phases[0].quantiles) == {"a", "b"}


def test_segments_are_of_any_column_and_their_intervals_are_wider(better: tuple[Path, list[RevisionSplit]]) -> None:
    made = results(*better, by=("f.x", "gateway", "pred_score"))
    whole = metric(made, "reward").difference
    assert whole is not None
    quarters = [part for part in made.segments if part.column == "f.x"]
    assert len(quarters) == 4
    assert made.segment_alpha == pytest.approx(0.05 / 3 / 5)
    rewards = {part.value: part.metrics[0].difference for part in quarters}
    low = next(value for name, value in rewards.items() if name.startswith("1: up to"))
    assert low is not None
    assert low.high - low.low > whole.high - whole.low
    assert [part.value for part in made.segments if part.column == "gateway"] == ["gw"]
    with pytest.raises(InvalidArgument, match="no such column"):
        results(*better, by=("f.none",))
    with pytest.raises(InvalidArgument, match="is of type TIMESTAMP"):
        results(*better, by=("ts",))
    assert any("decided after a request had its arm" in note for note in made.notes)


def test_a_condition_chooses_the_rows(better: tuple[Path, list[RevisionSplit]]) -> None:
    made = results(*better, where='"f.x" > 0')
    assert made.phases[0].keys < results(*better).phases[0].keys
    with pytest.raises(InvalidArgument, match="where"):
        results(*better, where="1; DROP TABLE x")
    with pytest.raises(InvalidArgument, match='Referenced column "nosuch" not found') as refused:
        results(*better, where="nosuch > 1")
    assert "LINE" not in str(refused.value)  # of SQL that the caller has not written


class Tags(HTMLParser):
    """The elements of a page and whether each is closed; nothing may come from elsewhere."""

    EMPTY = frozenset({"meta", "line", "circle", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not {name for name, _ in attrs} & {"src", "onclick", "onload"}
        assert all(value is None or value.startswith("#") for name, value in attrs if name == "href")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_takes_nothing_from_elsewhere(better: tuple[Path, list[RevisionSplit]]) -> None:
    page = render_results(results(*better, by=("f.x",)))
    parser = Tags()
    parser.feed(page)
    assert not parser.open
    assert "script" not in parser.seen
    assert {"svg", "table", "style"} <= parser.seen
    styles = page[page.index("<style>") : page.index("</style>")]
    assert styles.count("{") == styles.count("}")  # one too few, and the rest holds on phones alone
    assert "B is better: reward" in page


def test_names_of_others_are_text_on_the_page(tmp_path: Path) -> None:
    made = history(split_document(EVEN))
    part = Requests(made[0], np.arange(0, 1_000_000, 200_000), prefix="<script>")
    write_requests(tmp_path, [part])
    page = render_results(results(tmp_path, made, by=("request_id",)))
    assert "<script" not in page
    assert "&lt;script&gt;1-0" in page


def test_machines_get_plain_numbers(better: tuple[Path, list[RevisionSplit]]) -> None:
    value = json.loads(results(*better).to_json())
    assert value["outcome"] == "better"
    assert value["metrics"][0]["metric"] == "reward"
    assert value["metrics"][0]["role"] == "decides"
    assert value["phases"][0]["phase"]["shares"] == {"a": 0.5, "b": 0.5}


def test_labels_that_are_texts_are_held_against_what_is_said(tmp_path: Path) -> None:
    made = history(split_document(EVEN))
    rng = np.random.default_rng(12)
    part = Requests(made[0], rng.integers(0, 1_000_000, size=1200))
    treated = np.array(part.arms()) == "b"
    truth = rng.choice(["cat", "dog", "cow"], size=1200)
    right = rng.random(1200) < np.where(treated, 0.9, 0.5)
    part.said = np.where(right, truth, "none").tolist()
    part.labels = truth.tolist()
    write_requests(tmp_path, [part])
    told = results(tmp_path, made)
    accuracy = metric(told, "accuracy")
    assert accuracy.says is Says.BETTER
    assert accuracy.treated.mean == pytest.approx(0.9, abs=0.05)
    assert accuracy.control.mean == pytest.approx(0.5, abs=0.06)
    numbers = tmp_path / "numbers"
    other = Requests(made[0], part.buckets, labels=part.labels)
    write_requests(numbers, [other])
    assert any("labels are texts and answers are not" in note for note in results(numbers, made).notes)


@pytest.mark.parametrize(
    ("said", "classes", "told"),
    [
        ("out.kind", (), """"out.kind" = told_text"""),
        ("out.kind", ("it's", "b"), "pred_class = list_position(['it''s', 'b']::VARCHAR[], told_text) - 1"),
        ("", (), "pred_class = TRY_CAST(told_text AS BIGINT)"),
    ],
)
def test_a_text_is_compared_with_what_names_a_class(said: str, classes: tuple[str, ...], told: str) -> None:
    experiment = experiment_of(MODEL, history(split_document(EVEN)))
    assert told in DrawnRows(selection_of(experiment, SPAN), experiment, (), said, classes).right_sql


@pytest.mark.parametrize(
    ("age_s", "told"),
    [
        (None, "no row of the log"),
        (70, "is 70 s old; rows"),
        (1800, "is 30 min old, which is late"),
        (9e4, "25.0 hours"),
    ],
)
def test_results_say_how_fresh_they_are(age_s: float | None, told: str) -> None:
    newest_us = 0 if age_s is None else NOW_US - int(age_s * 1e6)
    assert told in freshness_text(newest_us, NOW_US)


def test_what_is_missing_is_said_and_is_no_equality(tmp_path: Path) -> None:
    """No row, no reward, too few keys."""
    made = history(split_document(EVEN, metrics=[{"name": "reward", "mde": 10}]))
    nothing = results(tmp_path, made)
    assert nothing.outcome is Outcome.UNKNOWN
    assert "nothing is known" in nothing.verdicts[0].text
    assert not nothing.checks
    few = Requests(made[0], np.arange(0, 1_000_000, 10_000), rewards=np.ones(100))
    write_requests(tmp_path, [few])
    thin = results(tmp_path, made)
    assert thin.outcome is Outcome.UNKNOWN
    assert "50 and 50 keys" in metric(thin, "reward").why
    assert metric(thin, "errors").difference is None
    render_results(thin)
    many = Requests(made[0], np.arange(0, 1_000_000, 1_000))
    other = tmp_path / "other"
    write_requests(other, [many])
    unrewarded = results(other, made)
    assert unrewarded.outcome is Outcome.UNKNOWN
    assert "no row has a reward" in metric(unrewarded, "reward").why
    # No request failed: that is no proof that none will.
    errors = metric(unrewarded, "errors").difference
    assert errors is not None
    assert errors.low < 0 < errors.high
    assert errors.high > 3 / 500


def test_a_small_difference_that_does_not_matter_is_told_from_none_known(tmp_path: Path) -> None:
    made = history(split_document(EVEN, metrics=[{"name": "prediction", "better": "higher", "mde": 0.5}]))
    rng = np.random.default_rng(2)
    part = Requests(made[0], keys_of(rng, 3000, 6000))
    part.scores = rng.normal(size=6000)
    write_requests(tmp_path, [part])
    assert results(tmp_path, made).outcome is Outcome.EQUAL
    harder = history(split_document(EVEN, metrics=[{"name": "prediction", "better": "higher", "mde": 0.001}]))
    opened = results(tmp_path, harder)
    assert opened.outcome is Outcome.OPEN
    assert "at the present traffic" in opened.verdicts[0].text


def test_an_arm_whose_requests_are_lost_breaks_the_split_and_heavy_keys_do_not(tmp_path: Path) -> None:
    made = history(split_document(EVEN))
    rng = np.random.default_rng(3)
    buckets = rng.integers(0, 1_000_000, size=3000)
    part = Requests(made[0], buckets)
    lost = (np.array(part.arms()) == "b") & (rng.random(3000) < 0.25)
    write_requests(tmp_path / "lost", [Requests(made[0], buckets[~lost])])
    broken = results(tmp_path / "lost", made)
    assert broken.outcome is Outcome.BROKEN
    assert broken.verdicts[0].text.startswith("do not read these numbers: the split of revision 1 is broken: a has")
    warned = history(split_document(EVEN, srm={"onMismatch": "warn"}))
    lenient = results(tmp_path / "lost", warned)
    assert lenient.outcome is not Outcome.BROKEN
    assert any("is broken" in note for note in lenient.notes)
    heavy = np.concatenate([buckets, np.full(3000, buckets[0])])
    write_requests(tmp_path / "heavy", [Requests(made[0], heavy)])
    assert results(tmp_path / "heavy", made).outcome is not Outcome.BROKEN


def test_an_arm_that_fails_does_not_hide_behind_its_fallback(tmp_path: Path) -> None:
    """What b failed at was answered by a: it stays b's failure, and no key of b is missing."""
    made = history(split_document(EVEN))
    rng = np.random.default_rng(4)
    buckets = rng.integers(0, 1_000_000, size=2000)
    part = Requests(made[0], buckets)
    arms = part.arms()
    fell = [arm == "b" and bool(rng.random() < 0.3) for arm in arms]
    part.served = ["a" if one else arm for one, arm in zip(fell, arms, strict=True)]
    part.reasons = ["FALLBACK:INTERNAL" if one else "SPLIT" for one in fell]
    write_requests(tmp_path, [part])
    made_results = results(tmp_path, made)
    assert made_results.outcome is Outcome.HARMFUL
    assert "b does harm: failed requests" in made_results.verdicts[0].text
    assert made_results.phases[0].fallbacks == sum(fell)
    assert not made_results.checks[0].mismatch


def test_phases_of_other_weights_are_not_pooled(tmp_path: Path) -> None:
    """Rewards rise while b grows: pooled, b would look better by far."""
    made = history(*(split_document({"a": 100 - weight, "b": weight}) for weight in (10, 50, 90)))
    rng = np.random.default_rng(5)
    parts = []
    for split, level in zip(reversed(made), (0.2, 0.5, 0.8), strict=True):
        part = Requests(split, rng.integers(0, 1_000_000, size=2500))
        part.rewards = (rng.random(2500) < level).astype(float)
        parts.append(part)
    write_requests(tmp_path, parts)
    treated = np.concatenate([np.array(part.arms()) == "b" for part in parts])
    rewards = np.concatenate([part.rewards for part in parts if part.rewards is not None])
    assert rewards[treated].mean() - rewards[~treated].mean() > 0.2
    found = metric(results(tmp_path, made), "reward")
    assert found.says is Says.OPEN
    assert len(found.phases) == 3
    assert all(phase.difference is not None for phase in found.phases)
    assert found.difference is not None
    assert abs(found.difference.value) < 0.05


def test_a_log_that_keeps_failures_always_makes_no_arm_have_more_keys(tmp_path: Path) -> None:
    """Failures are kept with probability 1, the rest by a rate: unthinned, the arm that fails has more keys."""
    made = history(split_document(EVEN))
    rng = np.random.default_rng(6)
    buckets = rng.integers(0, 1_000_000, size=20_000)
    part = Requests(made[0], buckets)
    part.codes = np.where((np.array(part.arms()) == "b") & (rng.random(20_000) < 0.2), 13, 0)
    write_requests(tmp_path, [part], sampling=Sampling(rate=0.1, keep_errors=True))
    made_results = results(tmp_path, made)
    assert not made_results.checks[0].mismatch
    errors = metric(made_results, "errors")
    assert errors.treated.mean == pytest.approx(0.2, abs=0.05)
    assert any("with different probabilities" in note for note in made_results.notes)


def test_a_log_of_another_store_is_refused(tmp_path: Path) -> None:
    made = history(split_document(EVEN))
    part = Requests(made[0], np.arange(0, 1_000_000, 5_000))
    part.served = ["a"] * len(part.buckets)
    write_requests(tmp_path, [part])
    with pytest.raises(FailedPrecondition, match="another arm in the prediction log"):
        results(tmp_path, made)


def test_a_holdout_is_compared_too(tmp_path: Path) -> None:
    made = history(split_document(EVEN, holdout="20%"))
    experiment = experiment_of(MODEL, made)
    assert experiment.others == ("b", "holdout")
    assert experiment.versions == {"a": "1", "b": "2", "holdout": "1"}
    rng = np.random.default_rng(7)
    part = Requests(made[0], rng.integers(0, 1_000_000, size=3000), rewards=rng.normal(size=3000))
    write_requests(tmp_path, [part])
    made_results = results(tmp_path, made)
    assert made_results.alpha == 0.025
    assert {verdict.arm: verdict.outcome for verdict in made_results.verdicts} == {
        "b": Outcome.OPEN,
        "holdout": Outcome.OPEN,
    }
    assert made_results.checks[0].shares == {"a": 0.4, "b": 0.4, "holdout": 0.2}


@pytest.mark.parametrize(
    ("holdout", "together"),
    [
        (Outcome.OPEN, Outcome.BETTER),
        (Outcome.UNKNOWN, Outcome.BETTER),
        (Outcome.EQUAL, Outcome.BETTER),
        (Outcome.WORSE, Outcome.WORSE),
        (Outcome.BROKEN, Outcome.BROKEN),
    ],
)
def test_a_holdout_of_which_nothing_is_known_does_not_hide_that_an_arm_is_better(
    better: tuple[Path, list[RevisionSplit]], holdout: Outcome, together: Outcome
) -> None:
    made = results(*better)
    verdicts = (ArmVerdict("b", Outcome.BETTER, ""), ArmVerdict("holdout", holdout, ""))
    assert replace(made, verdicts=verdicts).outcome is together
    assert replace(made, verdicts=verdicts[1:]).outcome is holdout
