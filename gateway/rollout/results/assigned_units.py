"""The prediction log as units of an experiment: a key in a phase, with sums of what its requests did.

1. A request belongs to the arm that its bucket was drawn for, also where another arm served it as a fallback: else the
   arm that fails would lose its failures. Requests of rules and pins, and those without the key, were not drawn.
2. A unit is a bucket: keys in one bucket always share their arm, so together they are one draw.
3. Where the log keeps requests with different probabilities (errors always, others by a rate), it is thinned to the
   smallest of a phase: else an arm with more errors would seem to have more keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.lake_sql import quoted, text
from gateway.drift.report.span import Span
from gateway.errors import FailedPrecondition
from gateway.rollout.results.experiment import Experiment

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CLASS_PREFIX: Final = "class "
UNREAD: Final = "text labels"  # no metric: the share of rows whose label is a text
MOST_CLASSES: Final = 6
QUANTILES: Final = (0.5, 0.95, 0.99)
_SEED: Final = 713_265  # of the hash that thins; it has nothing to do with the one that the log keeps rows by
# What the client caused says nothing about an arm: the codes of `gateway.errors.CLIENT_CODES`.
_DRAWN: Final = "bucket >= 0 AND (reason = 'SPLIT' OR reason LIKE 'FALLBACK:%')"


@dataclass(frozen=True, slots=True)
class LoggedPhase:
    """What the log has of a phase. Units: microseconds since the epoch; 0 where there is no row.

    `least_share` and `most_share` are the probabilities that the log kept its rows with; the least is the one that a
    request is counted with.
    """

    requests: int = 0
    first_us: int = 0
    last_us: int = 0
    least_share: float = 1.0
    most_share: float = 1.0
    fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class LoggedBasis:
    """What is asked of the whole log before units are made of it: phases, latencies in milliseconds by (phase, arm) at
    `QUANTILES`, the classes that are answered most often."""

    phases: tuple[LoggedPhase, ...]
    quantiles: Mapping[tuple[int, str], tuple[float, ...]]
    classes: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not any(phase.requests for phase in self.phases)


@dataclass(frozen=True, slots=True, eq=False)
class UnitTable:
    """Units with sums and counts by metric. Shapes: [units] each; `arms` are places in `Experiment.arms`."""

    phases: Ints
    keys: Ints
    arms: Ints
    segments: Array
    requests: Floats
    sums: Mapping[str, tuple[Floats, Floats]]
    basis: LoggedBasis

    def of(self, chosen: npt.NDArray[np.bool_]) -> "UnitTable":
        """Returns the chosen units."""
        sums = {name: (total[chosen], count[chosen]) for name, (total, count) in self.sums.items()}
        return replace(
            self, phases=self.phases[chosen], keys=self.keys[chosen], arms=self.arms[chosen],
            segments=self.segments[chosen], requests=self.requests[chosen], sums=sums,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Rows of an experiment that were drawn for an arm, as SQL. `client_codes` are the codes that clients caused.

    `said` is the column with the text that is answered, "" where there is not exactly one; `classes` name the classes
    0, 1, ... where labels are texts and answers numbers.
    """

    selection: Selection
    experiment: Experiment
    client_codes: tuple[int, ...]
    said: str = ""
    classes: tuple[str, ...] = ()

    @property
    def right_sql(self) -> str:
        """Returns whether a labelled row's answer is its label, as 0 or 1; NULL where they are of two kinds."""
        if self.classes:
            names = ", ".join(map(text, self.classes))
            same = f"pred_class = list_position([{names}]::VARCHAR[], told_text) - 1"
        elif self.said:
            same = f"{quoted(self.said)} = told_text"
        else:
            same = "pred_class = TRY_CAST(told_text AS BIGINT)"
        return f"(CASE WHEN told_text IS NOT NULL THEN {same} ELSE pred_class = told_label END)::INT"

    def phases_sql(self) -> str:
        """Returns a table of revisions, the numbers of their phases and what may tell them apart."""
        phases = self.experiment.phases
        values = [f"({revision}, {number})" for number, phase in enumerate(phases) for revision in phase.revisions]
        return f"(VALUES {', '.join(values)}) AS spans(rev, phase)"

    def sql(self, logged: Sequence[LoggedPhase]) -> str:
        """Returns the rows that count, with their phase and last label, as a query."""
        shares = " ".join(f"WHEN {number} THEN {one.least_share!r}" for number, one in enumerate(logged))
        kept = (
            f"hash(r.request_hash, {_SEED})::DOUBLE / 18446744073709551616.0 <= (CASE phase {shares} END) / r.sample_p"
        )
        return (
            f"SELECT r.*, spans.phase, l.reward AS told_reward, l.label_num AS told_label, "
            f"l.label_text AS told_text FROM {{rows}} AS r "
            f"JOIN {self.phases_sql()} ON r.rule_rev = spans.rev LEFT JOIN {{labels}} AS l "
            f"ON r.request_hash = l.request_hash AND r.row_index = l.row_index WHERE {_DRAWN} AND {kept}"
        )


def selection_of(experiment: Experiment, span: Span, where: str = "") -> Selection:
    """Returns the rows of the experiment's time."""
    start_us = max(span.start_us, experiment.phases[0].since_us - 60_000_000)  # clocks of hosts differ
    return Selection(experiment.model, Span(min(start_us, span.end_us - 1), span.end_us), where=where, failed=True)


def _logged_phases(lake: Lake, drawn: DrawnRows) -> tuple[LoggedPhase, ...]:
    """Returns what the log has of each phase."""
    phases = [LoggedPhase() for _ in drawn.experiment.phases]
    if not lake.columns(drawn.selection):
        return tuple(phases)
    told = lake.ask(
        drawn.selection,
        f"""SELECT phase, count(*) FILTER (row_index = 0) AS requests, epoch_us(min(ts)) AS first_us,
        epoch_us(max(ts)) AS last_us, min(sample_p)::DOUBLE AS least, max(sample_p)::DOUBLE AS most,
        count(*) FILTER (row_index = 0 AND reason <> 'SPLIT') AS fallbacks
        FROM {{rows}} JOIN {drawn.phases_sql()} ON rule_rev = rev WHERE {_DRAWN} GROUP BY phase""",
    )
    for row in zip(*(told[name].tolist() for name in told), strict=True):
        phases[row[0]] = LoggedPhase(*row[1:])
    return tuple(phases)


def said_column(lake: Lake, selection: Selection) -> str:
    """Returns the column with the text that is answered; "" where there is none, or several."""
    texts = [name for name, kind in lake.columns(selection).items() if name.startswith("out.") and kind == "VARCHAR"]
    return texts[0] if len(texts) == 1 else ""


def read_basis(lake: Lake, drawn: DrawnRows) -> LoggedBasis:
    """Returns what the units are made by."""
    logged = _logged_phases(lake, drawn)
    if not any(phase.requests for phase in logged):
        return LoggedBasis(logged, {})
    rows = drawn.sql(logged)
    return LoggedBasis(logged, _quantiles(lake, drawn, rows), tuple(_classes(lake, drawn, rows)))


def read_units(lake: Lake, drawn: DrawnRows, basis: LoggedBasis, *, segment: str = "''") -> UnitTable:
    """Returns the units; `segment` is SQL of a text by which they are cut further.

    Raises: FailedPrecondition (the log says other arms than the history of the route), InvalidArgument, Unavailable.
    """
    if basis.is_empty:
        empty, whole = np.zeros(0), np.zeros(0, np.int64)
        return UnitTable(whole, whole, whole, empty.astype(str), empty, {}, basis)
    told = lake.ask(drawn.selection, _units_sql(drawn, segment, basis))
    sums = {}
    for name in (key.removesuffix("/count") for key in told if key.endswith("/count")):
        count = np.ma.filled(told[f"{name}/count"], 0).astype(np.float64)
        if count.any():
            sums[name] = (np.ma.filled(told[f"{name}/sum"].astype(np.float64), 0.0), count)
    phases, keys = told["phase"].astype(np.int64), told["bucket"].astype(np.int64)
    arms = assigned_arms(drawn.experiment, phases, keys)
    _check_arms(drawn.experiment, arms, told["logged_arm"])
    segments = np.ma.filled(told["segment"], "null").astype(str)
    return UnitTable(phases, keys, arms, segments, told["requests"].astype(np.float64), sums, basis)


def _units_sql(drawn: DrawnRows, segment: str, basis: LoggedBasis) -> str:
    experiment, quantiles, classes = drawn.experiment, basis.quantiles, basis.classes
    client = ", ".join(map(str, drawn.client_codes))
    ended, answered = f"row_index = 0 AND status NOT IN ({client})", "row_index = 0 AND status = 0"
    limits = [
        f"WHEN {number} THEN {quantiles[number, experiment.control][-1] * 1000!r}"
        for number in range(len(experiment.phases))
        if (number, experiment.control) in quantiles
    ]
    slow = f"(total_us > CASE phase {' '.join(limits)} END)::INT" if limits else "NULL::INT"
    far = "CASE WHEN pred_class IS NULL THEN abs(pred_score - told_label) END"
    measures = {
        "reward": ("told_reward", "status = 0"),
        "accuracy": (drawn.right_sql, "status = 0"),
        "error": (far, "status = 0"),
        "errors": ("(status <> 0 OR reason <> 'SPLIT')::INT", ended),
        "latency": ("total_us / 1000.0", answered),
        "p99": (slow, answered),
        "prediction": ("CASE WHEN isfinite(pred_score) THEN pred_score END", "status = 0"),
        UNREAD: ("(told_text IS NOT NULL)::INT", "status = 0"),
        "coverage": ("(told_reward IS NOT NULL)::INT", "status = 0"),
        **{f"{CLASS_PREFIX}{one}": (f"(pred_class = {one})::INT", "status = 0") for one in classes},
    }
    listed = ", ".join(
        f"sum({value}) FILTER ({when}) AS {quoted(name + '/sum')}, "
        f"count({value}) FILTER ({when}) AS {quoted(name + '/count')}"
        for name, (value, when) in measures.items()
    )
    return f"""SELECT phase, bucket, {segment} AS segment, count(*) FILTER (row_index = 0) AS requests,
        any_value(arm) FILTER (reason = 'SPLIT') AS logged_arm, {listed} FROM ({drawn.sql(basis.phases)})
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""


def _quantiles(lake: Lake, drawn: DrawnRows, rows: str) -> dict[tuple[int, str], tuple[float, ...]]:
    told = lake.ask(
        drawn.selection,
        f"""SELECT phase, arm, quantile_cont(total_us / 1000.0, {list(QUANTILES)!r}) AS q FROM ({rows})
        WHERE row_index = 0 AND status = 0 AND reason = 'SPLIT' GROUP BY 1, 2 ORDER BY 1, 2""",
    )
    places = zip(told["phase"].tolist(), told["arm"].tolist(), told["q"], strict=True)
    return {(phase, arm): tuple(float(value) for value in values) for phase, arm, values in places}


def _classes(lake: Lake, drawn: DrawnRows, rows: str) -> list[int]:
    """Returns the classes that are answered most often."""
    told = lake.ask(
        drawn.selection,
        f"""SELECT pred_class AS value FROM ({rows}) WHERE pred_class IS NOT NULL GROUP BY 1
        ORDER BY count(*) DESC, 1 LIMIT {MOST_CLASSES}""",
    )
    return sorted(int(value) for value in told["value"].tolist())


def assigned_arms(experiment: Experiment, phases: Ints, keys: Ints) -> Ints:
    """Returns the arm of each unit by the table of its phase."""
    arms = np.zeros(len(keys), np.int64)
    places = {arm: place for place, arm in enumerate(experiment.arms)}
    for number, phase in enumerate(experiment.phases):
        chosen = phases == number
        owners = np.array([places[arm] for arm in phase.arms], np.int64)
        arms[chosen] = owners[np.searchsorted(phase.starts, keys[chosen], side="right") - 1]
    return arms


def _check_arms(experiment: Experiment, arms: Ints, logged: Array) -> None:
    said = np.ma.filled(logged, "").astype(str)
    wrong = int(((said != "") & (said != np.array(experiment.arms, str)[arms])).sum())
    if wrong:
        raise FailedPrecondition(
            f"model {experiment.model!r}: {wrong} keys have another arm in the prediction log than the history of the "
            "route gives them: the log is of another store, or the store was restored; ask the gateway that wrote it"
        )
