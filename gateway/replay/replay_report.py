"""What a replay has found, as values: what would change, by how much, and what could not be replayed. Pure."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

LOGGED: Final = "logged"  # in the place of a version: compare with what was answered then
Judgement = Literal["pass", "hold", "fail", "nodata"]

# Why rows that were chosen were not replayed.
MISSING: Final[Mapping[str, str]] = {
    "digest": "the log holds only the digest of an input: over 64 KiB, or a text over 1 KiB",
    "redacted": "redaction has kept or changed an input",
    "absent": "an input is not logged, or not in the shape that the version takes",
    "sampled": "sampling did not log them (an estimate)",
    "left": "the time was over before their turn came",
}


class Share(msgspec.Struct, frozen=True):
    """Rows of which something is true. `share` is of all traffic, rows weighted by how many they stand for; the bounds
    are a 95 % interval of it."""

    rows: int
    of: int
    share: float
    low: float
    high: float


class Spread(msgspec.Struct, frozen=True):
    """How numbers are distributed: quantiles by their share, and a histogram.

    Shapes: `edges` has one more than `counts`.
    """

    count: int
    mean: float
    quantiles: dict[str, float]
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class RowDifference(msgspec.Struct, frozen=True):
    """One row whose answer would be another one. Units: `ts_us` since the Unix epoch."""

    request_id: str
    row_index: int
    ts_us: int
    version: str
    arm: str
    before: str
    after: str
    score_before: float | None
    score_after: float | None
    difference: float
    inputs: dict[str, str | int | float | None]


class SegmentChange(msgspec.Struct, frozen=True):
    """The rows with one value of the column that was asked for."""

    value: str
    changed: Share
    mean_difference: float | None


class ReplaySide(msgspec.Struct, frozen=True):
    """How one side has run. Units: microseconds of a request's run, bytes of memory, milliseconds."""

    version: str
    digest: str
    run_us: dict[str, float]
    peak_bytes: int
    load_ms: float
    failed_rows: int


class FailedRuns(msgspec.Struct, frozen=True):
    """Requests that a side could not answer, for one reason; `request_id` is one of them."""

    version: str
    reason: str
    rows: int
    request_id: str


class ReplayReport(msgspec.Struct, frozen=True):
    """A replay of a model's logged requests. `missing` has rows by their reason (`MISSING`); `kinds` has rows by what
    changed: class, moved, nan, failed. `bit_equal` is how many of `comparable` logged rows the baseline answered to the
    bit as they were answered then.

    Units: microseconds since the Unix epoch; `moved_by` the difference of scores from which a row has moved.
    """

    model: str
    version: str
    against: str
    start_us: int
    end_us: int
    where: str
    by: str
    generated_us: int
    rows: int
    requests: int
    missing: dict[str, int]
    changed: Share
    kinds: dict[str, int]
    transitions: tuple[tuple[str, str, int], ...]
    before: Spread
    after: Spread
    differences: Spread
    moved_by: float
    largest: tuple[RowDifference, ...]
    segments: tuple[SegmentChange, ...]
    sides: tuple[ReplaySide, ...]
    failures: tuple[FailedRuns, ...]
    comparable: int = 0
    bit_equal: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Returns the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


class ReplayVerdict(msgspec.Struct, frozen=True):
    """What follows from a replay for who asked whether a version may go on. `limit` is the share that may change."""

    verdict: Judgement
    limit: float
    rows: int
    changed: int
    share: float
    low: float
    high: float
    missing: int
    reason: str


def replay_verdict(report: ReplayReport, limit: float) -> ReplayVerdict:
    """Returns whether at most `limit` of the rows would change: pass where that is proven, fail where more changed,
    hold where too few rows were replayed to tell, nodata where none were."""
    changed = report.changed
    numbers = f"{changed.rows} of {changed.of} rows would change, {_percent(changed.share)}"
    between = f"{_percent(changed.low)} to {_percent(changed.high)} of all traffic; the limit is {_percent(limit)}"
    verdict: Judgement
    if not report.rows:
        verdict, reason = "nodata", "nothing was replayed: " + (told_missing(report) or "no row was logged then")
    elif changed.share > limit:
        verdict, reason = "fail", f"{numbers} ({between})"
    elif changed.high > limit:
        verdict, reason = "hold", f"{numbers}: too few rows to tell ({between})"
    else:
        verdict, reason = "pass", f"{numbers} ({between})"
    lost = sum(report.missing.values())
    return ReplayVerdict(
        *(verdict, limit, report.rows, changed.rows, changed.share, changed.low, changed.high, lost, reason)
    )


def told_missing(report: ReplayReport) -> str:
    """Returns in words what could not be replayed, "" where nothing is missing."""
    return "; ".join(f"{rows} rows: {MISSING[kind]}" for kind, rows in report.missing.items() if rows)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
