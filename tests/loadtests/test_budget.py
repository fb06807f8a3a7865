"""Whether a budget held: by numbers, against a baseline, and where the figures cannot tell."""

from collections import Counter

import pytest

from gateway.errors import InvalidArgument
from gateway.routing.document.field import Field
from loadtests.job.budget import BudgetState, BudgetVerdict, judge, parse_budget, read_budgets
from loadtests.job.figures import Figures
from loadtests.job.latencies import Latencies

HELD, BROKEN, UNDECIDED = BudgetState.HELD, BudgetState.BROKEN, BudgetState.UNDECIDED


def figures(*slices_ms: float, calls: int = 100, failed: int = 0, per_slice_s: float = 1.0) -> Figures:
    """Slices whose calls all take so long; `failed` more calls failed."""
    parts = []
    for milliseconds in slices_ms:
        latencies = Latencies()
        for _ in range(calls):
            latencies.add(milliseconds / 1000)
        parts.append(Figures(per_slice_s, calls, calls, Counter(), Counter(), latencies))
    whole = Latencies()
    for part in parts:
        whole.merge(part.latencies)
    count = calls * len(slices_ms)
    failures = Counter({"UNAVAILABLE": failed} if failed else {})
    seconds = per_slice_s * len(slices_ms)
    return Figures(seconds, count + failed, count, failures, Counter(), whole, 0, tuple(parts))


def verdict(name: str, text: str, run: Figures, baseline: Figures | None = None) -> BudgetVerdict:
    budget = parse_budget(name, text, "test")
    [made] = judge([budget], {"": run}, {"": baseline} if baseline is not None else None)
    return made


@pytest.mark.parametrize(
    ("name", "text", "state"),
    [
        ("p50", "10ms", HELD),
        ("p50", "9ms", BROKEN),
        ("p99", "0.01s", HELD),
        ("p99.9", "1s", BROKEN),  # 800 calls do not tell
        ("failures", "1%", HELD),
        ("failures", "0.9%", BROKEN),
        ("throughput", "100/s", HELD),
        ("throughput", "101/s", BROKEN),
        ("throughput", "99%", HELD),
        ("throughput", "99.5%", BROKEN),
        ("p99", "+10%", BROKEN),  # no baseline
    ],
)
def test_a_budget_by_numbers(name: str, text: str, state: BudgetState) -> None:
    assert verdict(name, text, figures(*[9.9] * 8, failed=8)).state is state


def test_what_cannot_be_known_says_what_it_takes() -> None:
    assert "takes 1000 or more" in verdict("p99.9", "1s", figures(10)).text
    assert "give --baseline" in verdict("p99", "+5%", figures(10)).text
    assert verdict("p50", "1s", figures()).text == "no call was measured"


@pytest.mark.parametrize(
    ("run", "state"),
    [
        ([10.5] * 8, HELD),  # within 10 %
        ([15.0] * 8, BROKEN),
        ([15, 15, 15, 15, 15, 15, 9, 9], UNDECIDED),  # it is as quick as the baseline for a part of the time
        ([15, 15, 15, 15, 15, 15, 15, 9], BROKEN),  # one slice is no evidence
        ([5.0] * 8, HELD),
    ],
)
def test_a_relative_budget_is_not_broken_by_noise(run: list[float], state: BudgetState) -> None:
    baseline = figures(9.8, 9.9, 10, 10, 10, 10.1, 10.2, 13)
    made = verdict("p50", "+10%", figures(*run), baseline)
    assert made.state is state, made.text
    assert ("noise" in made.text) == (state is UNDECIDED)


def test_less_throughput_than_the_baseline_is_worse() -> None:
    assert verdict("throughput", "-5%", figures(*[1.0] * 8, calls=94), figures(*[1.0] * 8)).state is BROKEN
    assert verdict("throughput", "-5%", figures(*[1.0] * 8, calls=96), figures(*[1.0] * 8)).state is HELD
    assert verdict("failures", "+1%", figures(*[1.0] * 8, failed=7), figures(*[1.0] * 8)).state is HELD
    assert verdict("failures", "+1%", figures(*[1.0] * 8, failed=9), figures(*[1.0] * 8)).state is BROKEN


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p100", "1ms", "'p100' is not failures, throughput or a percentile"),
        ("latency", "1ms", "'latency' is not failures"),
        ("p99", "fast", "'fast' is not a time such as 50ms"),
        ("p99", "-10%", "wrong sign"),
        ("throughput", "+10%", "wrong sign"),
        ("throughput", "100", "is not a throughput such as 95/s"),
        ("failures", "2", "is not a share such as 0.1%"),
        ("failures", "101%", "more than 100 %"),
    ],
)
def test_a_budget_that_says_nothing_is_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=r"budgets\.x: ") as caught:
        parse_budget(name, text, "budgets.x")
    assert words in str(caught.value)


def test_a_budget_may_be_a_list() -> None:
    made = read_budgets(Field({"p99": ["50ms", "+20%"], "failures": "0%"}, "budgets"), "calls")
    assert [one.title for one in made] == ["calls: failures 0%", "calls: p99 50ms", "calls: p99 +20%"]
