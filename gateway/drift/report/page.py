"""A report as one HTML file, without script and without anything from elsewhere, for screen, dark, phone and paper."""

from collections.abc import Sequence
from importlib.resources import files
from math import isfinite
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from gateway.drift.report import figure
from gateway.drift.report.figure import Point
from gateway.drift.report.report import ComparisonReport, FeatureReport, PerformanceReport, Report, severity
from gateway.drift.report.span import moment_text
from gateway.drift.report.vectors import AUC_CRIT, AUC_WARN, MMD_P
from gateway.drift.statistics.performance import METRICS, MIN_LABELLED
from gateway.drift.statistics.rating import rate, rate_estimate
from gateway.drift.statistics.statistic import JUDGED, PSI, PSI_THRESHOLDS, STATISTICS
from gateway.drift.statistics.verdict import DriftRule, DriftState, Origin
from gateway.page.report_style import report_style

_FIGURES: Final = 24  # features that are drawn; a feature costs about 10 KB
_ROWS: Final = 400  # features in the table; all of them are in the JSON
_WORDS: Final = {
    DriftState.INSUFFICIENT: "undecided",
    DriftState.OK: "ok",
    DriftState.WARN: "warning",
    DriftState.CRIT: "critical",
}
_ORIGINS: Final = {
    Origin.TABLE: "what warns",
    Origin.SAMPLE: "with the samples' error",
    Origin.REFERENCE: "the reference's own windows",
    Origin.BOUND: "the bound: the reference's own windows exceed it",
}
_TITLES: Final = {
    DriftState.INSUFFICIENT: "Too few rows to tell",
    DriftState.OK: "No drift found",
    DriftState.WARN: "Drift: warning",
    DriftState.CRIT: "Drift: critical",
}


def render(report: Report) -> str:
    """The page of a report."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": number, "percent": percent, "moment": moment_text, "count": count, "length": length, "delay": delay,
        "metric": metric, "statistic": statistic, "said": said, "hint": hint,
    }  # fmt: skip
    environment.globals |= {
        "style": report_style(), "State": DriftState, "words": _WORDS, "rate": rate, "rule": DriftRule(),
        "judged": JUDGED.values(),
        "psi": PSI_THRESHOLDS, "origins": _ORIGINS,
    }  # fmt: skip
    template = environment.from_string(files("gateway.drift.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        title=_TITLES[report.state],
        headlines=headlines(report),
        rows=report.features[:_ROWS],
        hidden=max(len(report.features) - _ROWS, 0),
        drawn=[(feature, _histogram(feature), _trend(feature)) for feature in report.features[:_FIGURES]],
        sparks={feature.name: figure.sparkline(feature.name, feature.trend) for feature in report.features[:_ROWS]},
        attributions={
            vector.name: figure.attribution(vector.name, vector.separation.attribution[:15])
            for vector in report.vectors
            if vector.separation is not None
        },
        metrics=_metric_figures(report.performance) if report.performance is not None else [],
        limits={"auc_warn": AUC_WARN, "auc_crit": AUC_CRIT, "mmd_p": MMD_P}, metric_kinds=METRICS.values(),
    )  # fmt: skip


def headlines(report: Report) -> list[tuple[DriftState, str]]:
    """The findings in sentences, the worst first."""
    lines: list[tuple[DriftState, str]] = []
    for outputs, word in ((False, "feature"), (True, "output")):
        group = [feature for feature in report.features if feature.is_output is outputs]
        for state in (DriftState.CRIT, DriftState.WARN):
            names = [feature.name for feature in group if feature.state is state]
            if names:
                lines.append(
                    (state, f"{_counted(len(names), word)} of {len(group)} {_WORDS[state]}: {_listed(names)}.")
                )
        undecided = [feature for feature in group if feature.state is DriftState.INSUFFICIENT]
        if thin := len(undecided):
            line = f"{_counted(thin, word)} of {len(group)} could not be judged"
            few = [one.verdict.least_rows for one in undecided if one.verdict.n < one.verdict.least_rows]
            needed = f"; {count(max(few))} rows are needed" if few else ""
            lines.append((DriftState.INSUFFICIENT, f"{line}{needed}."))
        names = [feature.name for feature in group if feature.state is DriftState.OK and unconfirmed(feature)]
        if names:
            line = f"Above the threshold in the newest time blocks, but not in {DriftRule().confirmations} in a row: "
            lines.append((DriftState.INSUFFICIENT, line + f"{_listed(names)}."))
        if group and not thin and not names and all(feature.state is DriftState.OK for feature in group):
            lines.append((DriftState.OK, f"No drift in any of {_counted(len(group), word)}."))
    for vector in report.vectors:
        if vector.state >= DriftState.WARN and vector.separation is not None:
            first = vector.separation.attribution[0][0]
            lines.append((vector.state, f"A classifier tells window from reference by {vector.name} with AUC "
                          f"{vector.separation.auc:.2f}, most of all by {first}."))  # fmt: skip
    lines += _performance_lines(report.performance)
    if report.comparison is not None and report.comparison.state >= DriftState.WARN:
        lines.append((report.comparison.state, _differences(report.comparison)))
    return sorted(lines, key=lambda item: severity(item[0]))


def number(value: float | None, digits: int = 3) -> str:
    """A number for people."""
    if value is None or not isfinite(value):
        return "–"
    if value and (abs(value) < 10**-digits or abs(value) >= 1e6):
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")


def percent(value: float | None) -> str:
    """A share for people."""
    return "–" if value is None or not isfinite(value) else f"{value * 100:.3g} %"


def count(value: float) -> str:
    """A whole number with thin spaces between the thousands."""
    return f"{value:,.0f}".replace(",", " ")


def length(us: int) -> str:
    """A length of time in words."""
    for unit, name in ((86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute")):
        if us >= unit:
            amount = us / unit
            return f"{amount:.3g} {name}s" if amount != 1 else f"1 {name}"
    return f"{us / 1e6:g} seconds"


def delay(seconds: float) -> str:
    """A delay in the unit that suits it."""
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def metric(name: str) -> str:
    """Returns what a metric is called on the page. Raises: KeyError (it is not in the table)."""
    return METRICS[name].label


def statistic(name: str) -> str:
    """Returns what a statistic is called on the page. Raises: KeyError (it is not in the table)."""
    return STATISTICS[name].label


def said(feature: FeatureReport) -> str:
    """The statistic that decided over a feature, in words."""
    name = feature.verdict.statistic
    return STATISTICS[name].word if name else ""


def unconfirmed(feature: FeatureReport) -> int:
    """Returns how many blocks up to the newest one are above the threshold without being an alarm yet."""
    amount = 0
    for step in reversed(feature.trend):
        if step.state < DriftState.WARN or step.confirmed:
            break
        amount += 1
    return amount


def hint(feature: FeatureReport) -> str:
    """Why a large PSI, or a large one lately, is no alarm, or how many rows are needed, where that is so."""
    verdict = feature.verdict
    if feature.state is DriftState.INSUFFICIENT and verdict.n < verdict.least_rows:
        return f"{count(verdict.n)} rows, {count(verdict.least_rows)} are needed"
    if feature.state is DriftState.OK and (lately := unconfirmed(feature)):
        return f"above the threshold in the newest {_counted(lately, 'time block')}"
    for one in feature.verdict.evidence:
        if one.statistic == PSI.name and one.state is DriftState.OK and one.value >= PSI_THRESHOLDS.warn:
            if one.value <= one.threshold:
                return (
                    f"PSI {number(one.value)} is within what the reference's own windows do ({number(one.threshold)})"
                )
            return f"PSI {number(one.value)} may be chance (p {number(one.p, 2)})"
    if feature.new:
        return f"new: {', '.join(f'{_short(name)} {percent(share)}' for name, share in feature.new[:5])}"
    return ""


def _differences(duel: ComparisonReport) -> str:
    """Returns what tells B from A, in a sentence."""
    words = []
    if duel.split is not None and duel.split.mismatch:
        words.append("their shares of the requests are not what was meant")
    if duel.buckets is not None and duel.buckets.state >= DriftState.WARN:
        words.append(f"{percent(duel.buckets.mismatch)} of the requests are not in the buckets where they should be")
    if duel.agreement is not None and duel.agreement.state >= DriftState.WARN:
        words.append(f"they agree on {percent(duel.agreement.ratio)} of the same rows")
    outputs = [gap.name for gap in duel.outputs if gap.state >= DriftState.WARN]
    if outputs:
        words.append(f"outputs differ ({_listed(outputs)})")
    worse = [METRICS[change.name].label for change in duel.changes if rate(change) >= DriftState.WARN]
    if worse:
        words.append(f"{duel.b} is worse ({_listed(worse)})")
    return f"Version {duel.b} against version {duel.a}: {'; '.join(words)}."


def _performance_lines(performance: PerformanceReport | None) -> list[tuple[DriftState, str]]:
    if performance is None:
        return []
    lines = []
    moved = [(rate(change), change) for change in performance.changes if rate(change) >= DriftState.WARN]
    if moved:
        words = [f"{METRICS[c.name].label} {number(c.reference)} → {number(c.current)}" for _, c in moved]
        line = f"With the labels of {count(performance.labelled)} rows: {', '.join(words)}."
        lines.append((max(state for state, _ in moved), line))
    elif performance.changes and performance.labelled >= MIN_LABELLED:
        lines.append((DriftState.OK, f"With the labels of {count(performance.labelled)} rows: no metric is worse."))
    before = {metric.name: metric for metric in performance.reference}
    rated = [(rate_estimate(before[one.name], one), one) for one in performance.estimated if one.name in before]
    fallen = [(state, one) for state, one in rated if state >= DriftState.WARN]
    if fallen:
        words = [f"{METRICS[e.name].label} {number(before[e.name].value)} → {number(e.value)}" for _, e in fallen]
        lines.append((max(state for state, _ in fallen), f"Estimated without labels: {', '.join(words)}."))
    return lines


def _histogram(feature: FeatureReport) -> Markup:
    if feature.note or not sum(feature.shares):
        return Markup("")
    if feature.bounds:
        return figure.histogram(feature)
    return figure.categories(feature.name, feature.labels, feature.reference_shares, feature.shares)


def _trend(feature: FeatureReport) -> Markup:
    known = [step for step in feature.trend if isfinite(step.value)]
    if len(known) < 2:
        return Markup("")
    return figure.psi_trend(feature.name, feature.trend, PSI_THRESHOLDS.warn, PSI_THRESHOLDS.crit)


def _metric_figures(performance: PerformanceReport) -> list[tuple[str, Markup]]:
    """The main metrics over the time blocks, where there are two points or more."""
    figures = []
    before = {metric.name: metric.value for metric in performance.reference}
    for name in (name for name, kind in METRICS.items() if kind.drawn):
        nothing = float("nan")
        realised = [
            next((Point(step.span, m.value, m.low, m.high) for m in step.realised if m.name == name),
                 Point(step.span, nothing, nothing, nothing))
            for step in performance.trend
        ]  # fmt: skip
        estimated = [
            next((Point(step.span, m.value, m.low, m.high) for m in step.estimated if m.name == name),
                 Point(step.span, nothing, nothing, nothing))
            for step in performance.trend
        ]  # fmt: skip
        points = sum(isfinite(point.value) for point in (*realised, *estimated))
        if points >= 2:
            title = METRICS[name].label
            figures.append((name, figure.metric_trend(title, realised, estimated, before.get(name, float("nan")))))
    return figures


def _counted(amount: int, word: str) -> str:
    return f"{amount} {word}" if amount == 1 else f"{amount} {word}s"


def _listed(names: Sequence[str]) -> str:
    shown = [_short(name) for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"
