"""A result as one HTML file, without script and without anything from elsewhere, in the style of the other reports."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from gateway.page.report_style import report_style
from loadtests.job.budget import BudgetState
from loadtests.job.quantity import time_text
from loadtests.job.run_result import RunExit, RunResult
from loadtests.job.tally import Moment, joined_moment

_PAGE: Final = Path(__file__).with_name("result.html")
_COLOURS: Final = {BudgetState.HELD: "ok", BudgetState.BROKEN: "crit", BudgetState.UNDECIDED: "warn"}
_STATES: Final = {RunExit.HELD: "ok", RunExit.BROKEN: "crit", RunExit.INCONCLUSIVE: "warn"}
_WIDTH: Final = 960
_HEIGHT: Final = 160
_LEFT: Final = 56
_TICKS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 86_400, 1 << 40)


def render_result(result: RunResult) -> str:
    """Returns the page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"time": time_text}
    by_second: dict[int, list[Moment]] = {}
    for moments in result.tally.moments.values():
        for second, moment in moments.items():
            by_second.setdefault(second, []).append(moment)
    seconds = sorted(by_second)
    joined = {second: joined_moment(by_second[second]) for second in seconds}
    offered = [float(joined[second].offered) for second in seconds]
    right = [float(joined[second].right) for second in seconds]
    marks = [event.at_s for event in result.changes.events] if result.changes is not None else []
    p50, p99 = (
        [1e3 * value if (value := joined[second].latencies.at(share)) < float("inf") else 0.0 for second in seconds]
        for share in (0.5, 0.99)
    )
    environment.globals |= {
        "style": report_style(),
        "colour": lambda one: _COLOURS[one.state],
        "state": _STATES.get(result.exit, "insufficient"),
        "rates": plot(seconds, (("reference", offered), ("window", right)), marks, "/s"),
        "times": plot(seconds, (("window", p50), ("estimated", p99)), marks, " ms"),
    }
    return environment.from_string(_PAGE.read_text(encoding="utf-8")).render(result=result)


def plot(
    seconds: Sequence[int], lines: Sequence[tuple[str, Sequence[float]]], marks: Sequence[float], unit: str
) -> Markup:
    """Returns lines over the seconds of a run, from zero; `marks` are moments at which something was changed.

    Shapes: each line has a value for each second. Colours are variables of the style.
    """
    if len(seconds) < 2:
        return Markup('<p class="soft">Too short for a picture.</p>')
    first, last = seconds[0], seconds[-1] + 1
    most = max(max(values) for _, values in lines) or 1.0

    def x(second: float) -> float:
        return _LEFT + (second - first) / (last - first) * (_WIDTH - _LEFT)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 24}" width="100%" role="img" aria-label="values by second">',
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>',
        f'<text x="{_LEFT - 6}" y="12" text-anchor="end">{most:.3g}{unit}</text>',
        f'<text x="{_LEFT - 6}" y="{_HEIGHT}" text-anchor="end">0</text>',
    ]
    length = (last - first) / 8
    step = next(size for size in _TICKS_S if size >= length)
    parts += [
        f'<text x="{x(second):.0f}" y="{_HEIGHT + 18}" text-anchor="middle">{second} s</text>'
        for second in range(-(-first // step) * step, last, step)
    ]
    drawn = [x(mark) for mark in marks]
    kept = [mark for before, mark in pairwise([float("-inf"), *drawn]) if mark - before > 2]
    parts += [f'<line class="warn-line" x1="{mark:.1f}" x2="{mark:.1f}" y1="8" y2="{_HEIGHT}"/>' for mark in kept]
    if first < 0:
        parts.append(f'<text class="note" x="{x(first) + 4:.0f}" y="{_HEIGHT - 6}">warm-up</text>')
    for colour, values in lines:
        points = " ".join(
            f"{x(second + 0.5):.1f},{_HEIGHT - value / most * (_HEIGHT - 12):.1f}"
            for second, value in zip(seconds, values, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="var(--{colour})" stroke-width="2"/>')
    return Markup("".join(parts) + "</svg>")  # numbers and our own words alone
