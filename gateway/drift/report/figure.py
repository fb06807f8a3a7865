"""Figures as inline SVG: they take their colours from the page, and say in words what they show."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite
from typing import Final

from markupsafe import Markup

from gateway.drift.report.report import FeatureReport, TrendStep
from gateway.drift.report.span import Span
from gateway.drift.statistics.statistic import PSI_THRESHOLDS

_WIDTH: Final = 520.0
_CATEGORIES: Final = 12
_BARS: Final = 24  # of a histogram
_TAIL: Final = 0.6  # how far a histogram goes beyond the bins between its tails, of their width
_LABEL: Final = 22  # letters of a category that are shown
_TIP: Final = 80


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a line: where in time, how much, and between which bounds; NaN where there is none."""

    span: Span
    value: float
    low: float
    high: float


def histogram(feature: FeatureReport) -> Markup:
    """The shape of a number: shares of bars of equal width, reference beside window, then what is no number.

    Bins hold equal shares of the reference, so bars of the bins themselves would make every reference look flat.
    """
    bars = _bars(feature)
    height, base, left = 190.0, 150.0, 46.0
    top = max(*(max(bar.reference, bar.window) for bar in bars), 0.01)
    step = (_WIDTH - left) / len(bars)
    parts = [_grid(left, base, 12.0, top)]
    for index, bar in enumerate(bars):
        tip = f"{_short(bar.label, _TIP)}: reference {_percent(bar.reference)}, window {_percent(bar.window)}"
        x = left + index * step
        drawn = [
            _bar(x + step * 0.08, base, step * 0.40, bar.reference / top * (base - 12), "reference"),
            _bar(x + step * 0.52, base, step * 0.40, bar.window / top * (base - 12), "window"),
        ]
        parts.append(Markup("<g><title>{}</title>{}</g>").format(tip, Markup("").join(drawn)))
    numbers = [index for index, bar in enumerate(bars) if bar.mark]
    shown = sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1], *range(len(numbers), len(bars))})
    for index in shown:
        anchor = "start" if index == 0 else "end" if index == len(bars) - 1 else "middle"
        place = left if anchor == "start" else _WIDTH if anchor == "end" else left + (index + 0.5) * step
        parts.append(_text(place, base + 18, bars[index].mark or bars[index].label, anchor))
    return _svg(
        _WIDTH, height, f"Histogram of {feature.name}: shares of reference and window in {len(bars)} bars", parts
    )


@dataclass(frozen=True, slots=True)
class _Bar:
    """A bar of a histogram; `mark` is the number that it begins at, "" where it is of no number."""

    label: str
    mark: str
    reference: float
    window: float


def _bars(feature: FeatureReport) -> list[_Bar]:
    """Bars of equal width over the middle of the values, with the tails in the outermost ones, and those of what is
    missing or infinite. Within a bin values are spread evenly; a single value is in the bar that it lies in."""
    low, high = _axis_of(feature.bounds)
    amount = _BARS if high > low and isfinite(high - low) else 1
    ends = [low + (high - low) * (index / amount) for index in range(amount)] + [high]  # no product overflows
    sides = [_rebinned(feature, shares, ends) for shares in (feature.reference_shares, feature.shares)]
    bars = []
    for index in range(amount):
        inside = [point for point in feature.points if _place(point, ends) == index]
        words = f"{ends[index]:.4g} to {ends[index + 1]:.4g}" if amount > 1 else f"{low:.4g}"
        if inside and amount > 1:
            words += f", with {', '.join(f'= {point:.4g}' for point in inside)}"
        bars.append(_Bar(words, f"{ends[index]:.3g}", sides[0][index], sides[1][index]))
    for place, label in enumerate(feature.labels[-2:], len(feature.labels) - 2):
        if feature.reference_shares[place] or feature.shares[place]:
            bars.append(_Bar(label, "", feature.reference_shares[place], feature.shares[place]))
    return bars


def _axis_of(bounds: Sequence[float]) -> tuple[float, float]:
    """Returns what is drawn: all of the range, less what lies far from the bins between the tails."""
    low, high = bounds[0], bounds[-1]
    if len(bounds) < 4:
        return low, high
    margin = (bounds[-2] - bounds[1]) * _TAIL
    return max(low, bounds[1] - margin), min(high, bounds[-2] + margin)


def _rebinned(feature: FeatureReport, shares: Sequence[float], ends: Sequence[float]) -> list[float]:
    """The shares of bins as shares of the bars between `ends`."""
    drawn = [0.0] * (len(ends) - 1)
    low, high = ends[0], ends[-1]
    for place, (start, end) in enumerate(pairwise(feature.bounds)):
        start, end = min(max(start, low), high), min(max(end, low), high)
        for index, (left, right) in enumerate(pairwise(ends)):
            if end > start:
                part = max(min(end, right) - max(start, left), 0.0) / (end - start)
            else:
                part = float(index == _place(start, ends))
            drawn[index] += shares[place] * part
    for place, point in enumerate(feature.points, len(feature.bounds) - 1):
        drawn[_place(point, ends)] += shares[place]
    return drawn


def _place(value: float, ends: Sequence[float]) -> int:
    """The bar that a value lies in, the outermost one where it lies beyond."""
    return min(max(bisect_right(ends, value) - 1, 0), len(ends) - 2)


def categories(name: str, labels: Sequence[str], reference: Sequence[float], current: Sequence[float]) -> Markup:
    """Shares of categories as pairs of bars, the largest first; what does not fit is taken together."""
    order = sorted(range(len(labels)), key=lambda index: -max(reference[index], current[index]))
    order = [index for index in order if reference[index] or current[index]]
    rows = [(labels[index], reference[index], current[index]) for index in order[:_CATEGORIES]]
    rest = order[_CATEGORIES:]
    if rest:
        rows.append((f"{len(rest)} more", sum(reference[i] for i in rest), sum(current[i] for i in rest)))
    top = max((max(before, now) for _, before, now in rows), default=1.0)
    left, right, line = 150.0, 60.0, 26.0
    scale = (_WIDTH - left - right) / max(top, 0.01)
    parts = []
    for index, (label, before, now) in enumerate(rows):
        y = 4 + index * line
        tip = f"{_short(label, _TIP)}: reference {_percent(before)}, window {_percent(now)}"
        bars = [
            Markup('<rect class="reference" x="{}" y="{}" width="{}" height="8"/>').format(
                _n(left), _n(y + 2), _n(before * scale)
            ),
            Markup('<rect class="window" x="{}" y="{}" width="{}" height="8"/>').format(
                _n(left), _n(y + 12), _n(now * scale)
            ),
            _text(left - 8, y + 15, _short(label, _LABEL), "end"),
            _text(left + max(before, now) * scale + 6, y + 15, _percent(now), "start"),
        ]
        parts.append(Markup("<g><title>{}</title>{}</g>").format(tip, Markup("").join(bars)))
    label = f"Categories of {name}: shares of reference and window of the {len(rows)} most frequent"
    return _svg(_WIDTH, 8 + max(len(rows), 1) * line, label, parts)


def psi_trend(name: str, steps: Sequence[TrendStep], warn: float, crit: float) -> Markup:
    """Debiased PSI over the time blocks of the window, with the thresholds; hollow: too few rows to judge."""
    known = [step.value for step in steps if isfinite(step.value)]
    top = max([*known, crit * 1.15])
    height, base, left = 150.0, 118.0, 40.0
    axis = _Axis([step.span for step in steps], left, base, 10.0, min(0.0, *known) if known else 0.0, top)
    apart = axis.y(warn) - axis.y(crit) > 14
    parts = [
        axis.rule(0.0, "axis", "0"),
        axis.rule(top, "axis", _number(top)),
        axis.rule(warn, "warn-line", f"warn {warn:g}" if apart else ""),
        axis.rule(crit, "crit-line", f"crit {crit:g}" if apart else f"warn {warn:g}, crit {crit:g}"),
        axis.path([(step.span, step.value) for step in steps], "window"),
    ]
    for step in steps:
        if isfinite(step.value):
            word = "confirmed " if step.confirmed else ""
            tip = f"{_when(step.span)}: {step.value:.3f}, {step.rows} rows, {word}{step.state.name.lower()}"
            parts.append(axis.dot(step.span, step.value, step.state.name.lower(), tip))
    parts += axis.times(base + 18)
    return _svg(_WIDTH, height, f"PSI of {name} over {len(steps)} time blocks of the window, largest {top:.2f}", parts)


def sparkline(name: str, steps: Sequence[TrendStep]) -> Markup:
    """The trend as a line without axes, for a table."""
    known = [step.value for step in steps if isfinite(step.value)]
    if len(known) < 2:
        return Markup("")
    axis = _Axis(
        [step.span for step in steps], 1.0, 20.0, 2.0, min(0.0, *known), max([*known, PSI_THRESHOLDS.crit]), 80.0
    )
    parts = [
        axis.rule(PSI_THRESHOLDS.warn, "warn-line", ""),
        axis.path([(step.span, step.value) for step in steps], "window"),
    ]
    return _svg(80, 22, f"Trend of {name}, last {known[-1]:.2f}", parts, "spark")


def metric_trend(name: str, realised: Sequence[Point], estimated: Sequence[Point], reference: float) -> Markup:
    """A metric over the blocks: realised with its interval, estimated with its band, and the reference's value."""
    values = [reference] if isfinite(reference) else []
    for point in (*realised, *estimated):
        values += [value for value in (point.low, point.high, point.value) if isfinite(value)]
    if not values:
        return Markup("")
    low, high = min(values), max(values)
    margin = (high - low or abs(high) or 1.0) * 0.08
    height, base, left = 210.0, 176.0, 46.0
    spans = [point.span for point in (*realised, *estimated)]
    axis = _Axis(spans, left, base, 12.0, low - margin, high + margin)
    parts = [axis.rule(value, "axis", _number(value)) for value in _ticks(low, high)]
    if isfinite(reference):
        parts.append(axis.rule(reference, "reference-line", f"reference {_number(reference)}"))
    parts += axis.band(estimated)
    parts.append(axis.path([(point.span, point.value) for point in estimated], "estimated"))
    parts.append(axis.path([(point.span, point.value) for point in realised], "window"))
    for point, word in [*((p, "realised") for p in realised), *((p, "estimated") for p in estimated)]:
        if isfinite(point.value):
            tip = f"{_when(point.span)}: {word} {_number(point.value)} ({_number(point.low)} to {_number(point.high)})"
            if word == "realised":
                parts.append(axis.whisker(point))
            parts.append(axis.dot(point.span, point.value, word, tip))
    parts += axis.times(base + 18)
    return _svg(_WIDTH, height, f"{name} over the time blocks of the window, realised and estimated", parts)


def attribution(name: str, parts: Sequence[tuple[str, float]]) -> Markup:
    """Returns how much each feature tells the rows apart, as bars."""
    top = max((value for _, value in parts), default=0.0) or 1.0
    left, line = 150.0, 20.0
    rows = []
    for index, (label, value) in enumerate(parts):
        y = 2 + index * line
        rows.append(_text(left - 8, y + 13, _short(label, _LABEL), "end"))
        rows.append(
            Markup('<rect class="window" x="{}" y="{}" width="{}" height="12"/>').format(
                _n(left), _n(y + 3), _n(value / top * (_WIDTH - left - 60))
            )
        )
        rows.append(_text(left + value / top * (_WIDTH - left - 60) + 6, y + 13, f"{value:.3f}", "start"))
    return _svg(_WIDTH, 6 + len(parts) * line, f"AUC that is lost without each feature of {name}", rows)


class _Axis:
    """A plot over time: where moments and values are on the picture."""

    def __init__(
        self,
        spans: Sequence[Span],
        left: float,
        base: float,
        top: float,
        low: float,
        high: float,
        width: float = _WIDTH,
    ) -> None:
        self._start = min((span.start_us for span in spans), default=0)
        self._length = max(max((span.end_us for span in spans), default=1) - self._start, 1)
        self._left, self._base, self._low, self._width = left, base, low, width
        self._scale = (base - top) / ((high - low) or 1.0)

    def x(self, span: Span) -> float:
        middle = (span.start_us + span.end_us) / 2
        return self._left + (middle - self._start) / self._length * (self._width - self._left - 6)

    def y(self, value: float) -> float:
        return self._base - (value - self._low) * self._scale

    def rule(self, value: float, kind: str, label: str) -> Markup:
        y = self.y(value)
        line = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            kind, _n(self._left), _n(self._width), _n(y), _n(y)
        )
        if not label:
            return line
        if kind == "axis":
            return line + _text(self._left - 6, y + 4, label, "end")
        return line + _text(self._width - 2, y - 4, label, "end", "note")

    def path(self, points: Sequence[tuple[Span, float]], kind: str) -> Markup:
        """A line that breaks where there is no value."""
        commands: list[str] = []
        move = True
        for span, value in points:
            if isfinite(value):
                commands.append(f"{'M' if move else 'L'}{_n(self.x(span))} {_n(self.y(value))}")
            move = not isfinite(value)
        return Markup('<path class="line {}" d="{}"/>').format(kind, " ".join(commands)) if commands else Markup("")

    def band(self, points: Sequence[Point]) -> list[Markup]:
        known = [point for point in points if isfinite(point.low) and isfinite(point.high)]
        if len(known) < 2:
            return []
        above = [f"{_n(self.x(point.span))},{_n(self.y(point.high))}" for point in known]
        below = [f"{_n(self.x(point.span))},{_n(self.y(point.low))}" for point in reversed(known)]
        return [Markup('<polygon class="band" points="{}"/>').format(" ".join(above + below))]

    def whisker(self, point: Point) -> Markup:
        x = _n(self.x(point.span))
        return Markup('<line class="whisker" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            x, x, _n(self.y(point.low)), _n(self.y(point.high))
        )

    def dot(self, span: Span, value: float, kind: str, tip: str) -> Markup:
        """A mark whose shape says the state as well as its colour does."""
        x, y = self.x(span), self.y(value)
        if kind == "crit":
            shape = Markup('<rect class="dot crit" x="{}" y="{}" width="8" height="8"/>').format(_n(x - 4), _n(y - 4))
        elif kind == "warn":
            corners = f"{_n(x)},{_n(y - 5)} {_n(x + 5)},{_n(y + 4)} {_n(x - 5)},{_n(y + 4)}"
            shape = Markup('<polygon class="dot warn" points="{}"/>').format(corners)
        else:
            shape = Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(kind, _n(x), _n(y))
        return Markup("<g><title>{}</title>{}</g>").format(tip, shape)

    def times(self, y: float) -> list[Markup]:
        ends = [(self._left, self._start, "start"), (self._width, self._start + self._length, "end")]
        middle = (self._left + (self._width - self._left) / 2, self._start + self._length // 2, "middle")
        return [_text(x, y, _moment(us, self._length), anchor) for x, us, anchor in (ends[0], middle, ends[1])]


def _grid(left: float, base: float, top: float, most: float) -> Markup:
    parts = []
    for share in (0.0, most / 2, most):
        y = base - share / most * (base - top)
        parts.append(
            Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_n(left), _n(_WIDTH), _n(y), _n(y))
        )
        parts.append(_text(left - 5, y + 4, _percent(share), "end"))
    return Markup("").join(parts)


def _bar(x: float, base: float, width: float, height: float, kind: str) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, _n(x), _n(base - height), _n(width), _n(height)
    )


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text{} x="{}" y="{}" text-anchor="{}">{}</text>').format(
        Markup(' class="{}"').format(kind) if kind else "", _n(x), _n(y), anchor, words
    )


def _svg(width: float, height: float, label: str, parts: Sequence[Markup], kind: str = "figure") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, _n(width), _n(height), label, Markup("").join(parts)
    )


def _ticks(low: float, high: float) -> list[float]:
    return [low, (low + high) / 2, high] if high > low else [low]


def _when(span: Span) -> str:
    return f"{_moment(span.start_us, span.length_us)} on"


def _moment(us: int, length_us: int) -> str:
    moment = datetime.fromtimestamp(us / 1e6, UTC)
    return f"{moment:%Y-%m-%d}" if length_us >= 86_400_000_000 else f"{moment:%m-%d %H:%M}"


def _short(words: str, most: int) -> str:
    clean = " ".join(str(words).split()) or "(empty)"
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _percent(share: float) -> str:
    return f"{share * 100:.2g} %" if share < 0.0995 else f"{share * 100:.0f} %"


def _number(value: float) -> str:
    return f"{value:.3g}" if isfinite(value) else "–"


def _n(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".removesuffix(".0")
