"""A draft of a route as a policy over versions, and what its reward would have been on the logged requests.

The log has no probabilities and needs none: the revision of a record names its split, so the probability of every
version is known exactly. Rules that the draft shares with all revisions took their requests before the split, then as
now; what a new rule would take is only known where it is a condition over columns of the log.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_sql import quoted
from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.rollout.results.assigned_units import DrawnRows, Floats, LoggedBasis, assigned_arms
from gateway.rollout.results.experiment import Experiment
from gateway.rollout.results.result import PolicyResult, PolicyRule
from gateway.rollout.results.result_verdict import HOLDS, number
from gateway.rollout.statistics.off_policy_value import (
    LEAST_EFFECTIVE,
    LoggedChoices,
    OffPolicyValue,
    effective_keys,
    off_policy_value,
    unsupported,
)
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument

MOST_FEATURES: Final = 32
MOST_ROWS: Final = 1_000_000
_KINDS: Final = ("FLOAT", "DOUBLE", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


def policy_of(
    experiment: Experiment, draft: RouteDocument, conditions: Sequence[tuple[str, str]]
) -> tuple[dict[str, float], tuple[PolicyRule, ...]]:
    """Returns the shares of versions in the policy's split, and the rules; `conditions` are its arms with SQL.

    Raises: InvalidArgument (another model, a rule whose requests the log does not tell), FailedPrecondition (a version
            that was never drawn).
    """
    if draft.model != experiment.model:
        raise InvalidArgument(f"the policy is of model {draft.model!r}, the results are of {experiment.model!r}")
    known = [{rule.match for rule in document.rules if rule.until_s is None} for document in experiment.documents]
    for rule in draft.rules:
        if not all(rule.match in matches for matches in known):
            raise InvalidArgument(
                f"spec.rules[{rule.name}]: the log keeps no metadata, parameters or callers, so it does not tell which "
                "requests this rule would take; say it as a condition over columns of the log: --rule "
                f"'{rule.arm}=\"f.age\" > 30'"
            )
    shares: dict[str, float] = {}
    for arm, buckets in draft.weights().items():
        if buckets:
            version = draft.version_of(arm)
            shares[version] = shares.get(version, 0.0) + buckets / BUCKETS
    if draft.kill_switch is not None:
        shares = {draft.version_of(draft.kill_switch.arm): 1.0}
    rules = tuple(PolicyRule(draft.version_of(arm), condition) for arm, condition in conditions)
    drawn = set(experiment.versions.values())
    missing = sorted(({*shares} | {rule.version for rule in rules}) - drawn)
    if missing:
        raise FailedPrecondition(
            f"version {', '.join(missing)} of the policy was drawn for no request of this experiment (it has "
            f"{', '.join(sorted(drawn))}), so the log says nothing about it; a mirror or a share of 1 % would"
        )
    return shares, rules


def estimate_policy(
    lake: Lake,
    drawn: DrawnRows,
    basis: LoggedBasis,
    shares: dict[str, float],
    rules: Sequence[PolicyRule],
    *,
    alpha: float = 0.05,
) -> PolicyResult:
    """Returns what the policy would have been worth.

    Raises: FailedPrecondition (no reward, or support is missing: which versions in how many rows), InvalidArgument (a
            condition is none).
    """
    experiment = drawn.experiment
    conditions = [lake.condition(rule.condition) for rule in rules]
    if basis.is_empty:
        raise FailedPrecondition(f"model {experiment.model!r}: the log has no row of this experiment")
    choices, features, coverage = _read(lake, drawn, basis, shares, rules, conditions)
    if not len(choices.keys):
        raise FailedPrecondition(
            f"model {experiment.model!r}: no row of this experiment has a reward, so nothing can be estimated; "
            "`gateway feedback send` or SendFeedback tells them"
        )
    versions = _versions(experiment)
    if missing := unsupported(choices):
        told = ", ".join(f"version {versions[action]} in {rows} rows" for action, rows in missing.items())
        raise FailedPrecondition(
            f"support is missing: the policy takes {told} of {len(choices.keys)}, where it had no share; --since "
            "REVISION leaves out the phases in which it had none, and a policy may not send what was never tried"
        )
    value = off_policy_value(choices, alpha=alpha)
    if value is None:
        raise FailedPrecondition(
            f"{effective_keys(choices):.0f} effective keys of {len(np.unique(choices.keys))} are left by the weights, "
            f"{LEAST_EFFECTIVE:.0f} are needed: the policy does mostly what was seldom tried"
        )
    return PolicyResult(dict(shares), tuple(rules), value, features, coverage, policy_text(value))


def policy_text(value: OffPolicyValue) -> str:
    """Returns the estimate as a sentence."""
    robust, gain = value.robust, value.gain
    told = (
        f"with this policy the reward would have been {number(robust.value)} [{number(robust.low)}, "
        f"{number(robust.high)}] instead of {number(value.logged.value)}"
    )
    gap = f"{number(abs(gain.value))} [{number(gain.low)}, {number(gain.high)}]"
    if gain.low <= 0 <= gain.high:
        return f"{told}: whether that is more or less cannot be said yet ({gap})"
    return f"{told}: {gap} {'more' if gain.value > 0 else 'less'}; {HOLDS}"


def _versions(experiment: Experiment) -> list[str]:
    return sorted(set(experiment.versions.values()))


def _read(
    lake: Lake,
    drawn: DrawnRows,
    basis: LoggedBasis,
    shares: dict[str, float],
    rules: Sequence[PolicyRule],
    conditions: Sequence[str],
) -> tuple[LoggedChoices, tuple[str, ...], float]:
    """Returns the rows with a reward, the features that explain it, and the share of rows that have one."""
    experiment, versions = drawn.experiment, _versions(drawn.experiment)
    rows = drawn.sql(basis.phases)
    told = lake.ask(drawn.selection, f"SELECT count(*) AS rows, count(told_reward) AS rewarded FROM ({rows})")
    total, rewarded = int(told["rows"][0]), int(told["rewarded"][0])
    kinds = lake.columns(drawn.selection)
    features = [name for name, kind in kinds.items() if name.startswith("f.") and kind in _KINDS][:MOST_FEATURES]
    cases = " ".join(f"WHEN {condition} THEN {place}" for place, condition in enumerate(conditions))
    rule = f"CASE {cases} ELSE {len(conditions)} END" if cases else f"{len(conditions)}"
    listed = "".join(f", {quoted(name)}::DOUBLE AS feature_{place}" for place, name in enumerate(features))
    part = min(1.0, MOST_ROWS / max(rewarded, 1))  # of the keys, always the same ones
    kept = f" AND hash(bucket, 271828) < {int(part * 2**64)}::UBIGINT" if part < 1 else ""
    read = lake.ask(
        drawn.selection,
        f"SELECT phase, bucket, told_reward::DOUBLE AS reward, {rule} AS rule{listed} FROM ({rows}) "
        f"WHERE told_reward IS NOT NULL AND isfinite(told_reward) AND status = 0{kept} "
        "ORDER BY phase, bucket, request_hash, row_index",
    )
    phases, keys = read["phase"].astype(np.int64), read["bucket"].astype(np.int64)
    arms = assigned_arms(experiment, phases, keys)
    places = np.array([versions.index(experiment.versions[arm]) for arm in experiment.arms], np.int64)
    by_phase = np.zeros((len(experiment.phases), len(versions)))
    for place, phase in enumerate(experiment.phases):
        for arm, share in phase.shares.items():
            by_phase[place, versions.index(experiment.versions[arm])] += share
    by_rule = np.zeros((len(rules) + 1, len(versions)))
    for place, one in enumerate(rules):
        by_rule[place, versions.index(one.version)] = 1.0
    for version, share in shares.items():
        by_rule[-1, versions.index(version)] = share
    x = np.column_stack(
        [_filled(read[f"feature_{place}"]) for place in range(len(features))] or [np.zeros((len(keys), 0))]
    )
    choices = LoggedChoices(
        keys,
        places[arms],
        read["reward"].astype(np.float64),
        by_phase[phases],
        by_rule[read["rule"].astype(np.int64)],
        x,
    )
    return choices, tuple(features), rewarded / total if total else 0.0


def _filled(values: np.ndarray) -> Floats:
    """Returns the feature with its mean where it is missing or no number."""
    made = np.ma.filled(values, np.nan).astype(np.float64)
    known = np.isfinite(made)
    made[~known] = made[known].mean() if known.any() else 0.0
    return made
