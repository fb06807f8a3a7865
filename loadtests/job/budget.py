"""What must hold: failures, percentiles and throughput, as numbers or against a baseline; and whether it did. Pure.

failures: 0.1%          at most so many of the calls, without an answer, refused or answered wrongly
p99: 50ms               at most; p50, p95, p99.9 and every other percentile alike
throughput: 95/s        right answers per second, at least
throughput: 98%         of the calls that were offered, at least
p99: +20%               at most so much more than in the baseline; throughput: -5%, failures: +0.1%
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.errors import InvalidArgument
from gateway.routing.document.field import Field
from loadtests.job.figures import Figures
from loadtests.job.quantity import seconds_of, share_of_text, time_text

FAILURES: Final = "failures"
THROUGHPUT: Final = "throughput"
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")
NAMES_TEXT: Final = "failures, throughput or a percentile (p50, p99, p99.9)"


class BudgetState(Enum):
    """What is known of a budget after a run."""

    HELD = "held"
    BROKEN = "broken"
    UNDECIDED = "undecided"  # the difference to the baseline is within what the runs differ in themselves


@dataclass(frozen=True, slots=True)
class Budget:
    """One line of a budget. `limit` is seconds, a share or calls per second; `relative`: of the baseline."""

    name: str
    text: str
    limit: float
    relative: bool = False
    of_offered: bool = False
    traffic: str = ""  # "": of all traffic

    @property
    def title(self) -> str:
        return f"{self.traffic}: {self.name} {self.text}" if self.traffic else f"{self.name} {self.text}"

    @property
    def share(self) -> float:
        """Returns which share of the calls a percentile is about."""
        return float(self.name[1:]) / 100

    def of(self, figures: Figures) -> float:
        """Returns the value that this budget limits."""
        if self.name == FAILURES:
            return figures.failed_share
        if self.name == THROUGHPUT:
            return figures.per_second
        return figures.latencies.at(self.share)

    def shown(self, value: float) -> str:
        """Returns a value of it as text."""
        if self.name == FAILURES:
            return f"{value:.4g}".rstrip("0").rstrip(".") if value >= 1 else f"{value * 100:.3g} %"
        return f"{value:.4g}/s" if self.name == THROUGHPUT else time_text(value)


@dataclass(frozen=True, slots=True)
class BudgetVerdict:
    """What became of one budget; `text` says why."""

    budget: Budget
    state: BudgetState
    text: str


def read_budgets(field: Field, traffic: str = "") -> tuple[Budget, ...]:
    """Returns the budgets of a mapping; a value may be a list of them. Raises: InvalidArgument, naming the field."""
    made: list[Budget] = []
    for name, value in field.entries(20, what="budgets"):
        texts = value.items(4, what="budgets") if isinstance(value.value, list) else [value]
        made += [parse_budget(name, str(text.value), text.path, traffic) for text in texts]
    return tuple(made)


def parse_budget(name: str, text: str, path: str, traffic: str = "") -> Budget:
    """Returns the budget that `name: text` says. Raises: InvalidArgument."""
    text = text.strip()
    percentile = _PERCENTILE.fullmatch(name)
    if name not in (FAILURES, THROUGHPUT) and percentile is None:
        raise InvalidArgument(f"{path}: {name!r} is not {NAMES_TEXT}")
    if text[:1] in ("+", "-"):
        if (text[0] == "-") != (name == THROUGHPUT):
            sign = "-" if name == THROUGHPUT else "+"
            raise InvalidArgument(
                f"{path}: {text!r} has the wrong sign: {name} may get worse by {sign}, such as {sign}5%"
            )
        return Budget(name, text, share_of_text_over(text[1:], path), relative=True, traffic=traffic)
    if name == FAILURES:
        return Budget(name, text, share_of_text(text, path), traffic=traffic)
    if name == THROUGHPUT:
        if text.endswith("%"):
            return Budget(name, text, share_of_text(text, path), of_offered=True, traffic=traffic)
        if not re.fullmatch(r"\d+(\.\d+)?/s", text):
            raise InvalidArgument(f"{path}: {text!r} is not a throughput such as 95/s, 98% (of what is offered) or -5%")
        return Budget(name, text, float(text[:-2]), traffic=traffic)
    return Budget(name, text, seconds_of(text, path), traffic=traffic)


def share_of_text_over(text: str, path: str) -> float:
    """Returns a share, which may be above 1. Raises: InvalidArgument."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if match is None:
        raise InvalidArgument(f"{path}: {text!r} is not a share such as 20%")
    return float(match[1]) / 100


def judge(
    budgets: Sequence[Budget], run: Mapping[str, Figures], baseline: Mapping[str, Figures] | None
) -> list[BudgetVerdict]:
    """Returns a verdict on each budget. `run` and `baseline` hold the figures by traffic, "" for all of it.

    A budget about which nothing is known is broken: no calls, too few for its percentile, no baseline.
    """
    return [_judged(budget, run.get(budget.traffic), (baseline or {}).get(budget.traffic)) for budget in budgets]


def _judged(budget: Budget, run: Figures | None, baseline: Figures | None) -> BudgetVerdict:
    broken = BudgetState.BROKEN
    if run is None or not run.offered:
        return BudgetVerdict(budget, broken, "no call was measured")
    percentile = budget.name not in (FAILURES, THROUGHPUT)
    calls = run.latencies.total
    if percentile and calls * (1 - budget.share) < 1:
        least = round(1 / (1 - budget.share))
        return BudgetVerdict(
            budget, broken, f"{calls} calls do not tell {budget.name}: it takes {least} or more; make the run longer"
        )
    value = budget.of(run)
    if budget.relative:
        if baseline is None:
            return BudgetVerdict(budget, broken, "there is no baseline: give --baseline FILE")
        return _against(budget, value, run, baseline)
    if budget.of_offered:
        wanted = budget.limit * run.offered / run.seconds
        return _limited(budget, value >= wanted, value, f"at least {wanted:.4g}/s, {budget.text} of what was offered")
    if budget.name == THROUGHPUT:
        return _limited(budget, value >= budget.limit, value, f"at least {budget.text}")
    return _limited(budget, value <= budget.limit, value, f"at most {budget.text}")


def _limited(budget: Budget, held: bool, value: float, limit: str) -> BudgetVerdict:
    state = BudgetState.HELD if held else BudgetState.BROKEN
    return BudgetVerdict(budget, state, f"{budget.shown(value)}, allowed is {limit}")


def _against(budget: Budget, value: float, run: Figures, baseline: Figures) -> BudgetVerdict:
    """Judges by the slices of both runs.

    1. The middle slice of this run within the limit: held.
    2. Beyond the limit, but the middle ranges of both runs (without each one's lowest and highest slice) overlap:
       undecided, for each of them differs from itself by as much.
    3. Else: broken.
    Failures have no noise of their own: their share of the whole run may be so much above the baseline's, in points.
    """
    if budget.name == FAILURES:
        limit = baseline.failed_share + budget.limit
        text = f"at most {100 * limit:.3g} % ({100 * baseline.failed_share:.3g} % in the baseline, {budget.text})"
        return _limited(budget, value <= limit, value, text)
    ours, theirs = ([budget.of(part) for part in figures.slices] for figures in (run, baseline))
    if not ours or not theirs:
        return BudgetVerdict(budget, BudgetState.BROKEN, "the baseline has no slices: record it again")
    middle, before = sorted(ours)[len(ours) // 2], sorted(theirs)[len(theirs) // 2]
    down = budget.name == THROUGHPUT
    limit = before * (1 - budget.limit if down else 1 + budget.limit)
    text = f"{budget.shown(middle)}, {budget.shown(before)} in the baseline, allowed is {budget.shown(limit)}"
    if middle >= limit if down else middle <= limit:
        return BudgetVerdict(budget, BudgetState.HELD, text)
    (low, high), (low_before, high_before) = _middle_range(ours), _middle_range(theirs)
    if low <= high_before and low_before <= high:
        noise = (
            f"; but slices of this run reach from {budget.shown(low)} to {budget.shown(high)}, those of the baseline "
            f"from {budget.shown(low_before)} to {budget.shown(high_before)}: noise, make both runs longer"
        )
        return BudgetVerdict(budget, BudgetState.UNDECIDED, text + noise)
    return BudgetVerdict(budget, BudgetState.BROKEN, text)


def _middle_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the least and most of the values but for the lowest and the highest one, where there are enough."""
    ordered = sorted(values)
    kept = ordered[1:-1] if len(ordered) > 2 else ordered
    return kept[0], kept[-1]
