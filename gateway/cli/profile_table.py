"""A reference profile as people and programs read it: its features with the limits of a window, and its baseline."""

from typing import TYPE_CHECKING, NamedTuple

from gateway.cli.printing import Format, show
from gateway.page.message_values import Value, moment

if TYPE_CHECKING:  # numpy is loaded by the commands that need it
    from gateway.drift.statistics.baseline import Baseline
    from gateway.drift.statistics.reference_profile import FeatureProfile, Profile

_LEAST_TREND = 0.05  # share of a feature explained by the order of the rows; a build reports it from here on


class ShownProfile(NamedTuple):
    """A profile as people and programs read it."""

    value: dict[str, Value]
    rows: list[list[Value]]
    notes: list[str]


def show_profile_table(profile: "Profile", output: Format) -> None:
    """Prints the profile."""
    shown = describe(profile)
    show(
        {**shown.value, "revision": profile.revision},
        output,
        columns=(
            *("FEATURE", "KIND", "MISSING", "MEAN", "MIN", "MAX", "BINS", "LEAST ROWS", "PSI LIMIT", "LIMIT FROM"),
            "ORDER EXPLAINS",
        ),
        rows=shown.rows,
        note=[
            f"{profile.model} version {profile.version}, revision {profile.revision}: {profile.rows} rows from "
            f"{profile.source}; a window needs LEAST ROWS rows to be judged, and PSI LIMIT is of such a window",
            *shown.notes,
        ],
    )


def describe(profile: "Profile") -> ShownProfile:
    """Returns the profile, each feature with what PSI has to exceed in the smallest window that is judged."""
    from gateway.drift.statistics.calibration import doubt
    from gateway.drift.statistics.verdict import DriftRule, least_rows, psi_threshold

    rule = DriftRule()

    def of_feature(feature: "FeatureProfile") -> Value:
        least = least_rows(feature, rule)
        limit, origin = psi_threshold(feature, least, rule)
        limits = {"psi_threshold": limit, "threshold_origin": origin.value}
        return {**_feature_value(feature, least), **limits}

    value: dict[str, Value] = {
        **summary(profile),
        "features": [of_feature(feature) for feature in profile.features],
        "outputs": [of_feature(feature) for feature in profile.outputs],
        "embeddings": [
            {
                "name": one.name,
                "column": one.column,
                "rows": one.rows,
                "dimensions": len(one.centre),
                "features": [of_feature(feature) for feature in one.features],
            }
            for one in profile.embeddings
        ],
        "baseline": None if profile.baseline is None else _baseline_value(profile.baseline),
    }
    rows: list[list[Value]] = []
    for one in profile.watched:
        least = least_rows(one, rule)
        limit, origin = psi_threshold(one, least, rule)
        ordered = f"{one.explained:.0%}" if one.explained else ""
        rows.append(
            [one.name, one.kind.value, _share(one), *_range(one), len(one.bins.labels), least, f"{limit:.2f}",
             origin.value, ordered]
        )  # fmt: skip
    trending = [one.name for one in profile.watched if one.explained >= _LEAST_TREND]
    notes = [f"not as thresholds say: {why}" for one in profile.watched if (why := doubt(one))][:3]
    if trending:
        notes.append(
            f"the order of the rows explains {', '.join(trending[:5])}: what the reference's own windows do raises "
            "thresholds (LIMIT FROM reference), and hides drift of that size"
        )
    return ShownProfile(value, rows, [*notes, _performance(profile.baseline)])


def _performance(baseline: "Baseline | None") -> str:
    """Returns the baseline in words."""
    if baseline is None:
        return "no labelled rows: performance has nothing to be compared with, and nothing is estimated without labels"
    told = ", ".join(f"{one.name} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in baseline.metrics)
    note = f"; no estimates without labels: {baseline.note}" if baseline.note else ""
    return f"{baseline.rows} labelled rows ({baseline.source}): {told}{note}"


def _baseline_value(baseline: "Baseline") -> dict[str, Value]:
    return {
        "task": baseline.task.value,
        "source": baseline.source,
        "rows": baseline.rows,
        "classes": list(baseline.classes),
        "metrics": {one.name: {"value": one.value, "interval": [one.low, one.high]} for one in baseline.metrics},
        "estimates": baseline.curve is not None,
        "note": baseline.note,
    }


def summary(profile: "Profile") -> dict[str, Value]:
    """Returns what the profile is of, without its features."""
    return {
        "model": profile.model,
        "version": profile.version,
        "revision": profile.revision,
        "created_at": moment(int(profile.created_at * 1e6)),
        "source": profile.source,
        "rows": profile.rows,
        "features": len(profile.features),
        "outputs": len(profile.outputs),
    }


def _feature_value(feature: "FeatureProfile", least: int) -> dict[str, Value]:
    return {
        "name": feature.name,
        "column": feature.column,
        "kind": feature.kind.value,
        "n": feature.n,
        "missing": feature.missing,
        "mean": _number(feature.mean),
        "sd": _number(feature.sd),
        "min": _number(feature.min),
        "max": _number(feature.max),
        "least_rows": least,
        "order_explains": feature.explained,
        "bounded": feature.bounded,
        "cells": dict(zip(feature.bins.cells, feature.counts, strict=True)),
        "calibration": [
            {"statistic": one.statistic, "rows": one.rows, "mean": one.mean, "sd": one.sd, "q99": one.q99}
            for one in feature.calibration
        ],
    }


def _share(feature: "FeatureProfile") -> str:
    return f"{feature.missing / feature.n:.2%}" if feature.n else "no rows"


def _range(feature: "FeatureProfile") -> list[str]:
    numbers = (feature.mean, feature.min, feature.max)
    return ["" if _number(value) is None else f"{value:.6g}" for value in numbers]


def _number(value: float) -> float | None:
    return value if value == value else None
