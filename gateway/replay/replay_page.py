"""The report of a replay as one HTML file, without script and without anything from elsewhere."""

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from gateway.drift.report.span import moment_text
from gateway.replay.replay_report import MISSING, ReplayReport, ReplayVerdict, Spread

_WIDTH = 520.0
_HEIGHT = 140.0
_KINDS = {"class": "another class", "moved": "score moved", "nan": "NaN", "failed": "failed"}


def render_replay(report: ReplayReport, verdict: ReplayVerdict | None) -> str:
    """Returns the page of a report; `verdict` is what a gate said, None where nobody asked."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"moment": moment_text, "percent": _percent, "number": _number}
    template = environment.from_string(files("gateway.replay").joinpath("replay.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        verdict=verdict,
        kinds=_KINDS,
        missing=MISSING,
        scores=_bars([("before", report.before), ("after", report.after)], "Scores before and after"),
        differences=_bars([("after", report.differences)], "Differences of scores"),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _bars(series: list[tuple[str, Spread]], title: str) -> Markup:
    """Returns histograms side by side; "" where there is nothing to draw."""
    known = [(name, one) for name, one in series if one.counts]
    if not known:
        return Markup("")
    top = max(max(one.counts) for _, one in known) or 1
    parts = []
    for place, (name, one) in enumerate(known):
        step = _WIDTH / len(one.counts)
        for index, count in enumerate(one.counts):
            height = count / top * (_HEIGHT - 30)
            x = index * step + place * step / len(known)
            tip = f"{name}: {count} rows from {one.edges[index]:.4g} to {one.edges[index + 1]:.4g}"
            parts.append(
                Markup(
                    '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
                ).format(name, x, _HEIGHT - 20 - height, max(step / len(known) - 1, 1), height, tip)
            )
    edges = known[0][1].edges
    for x, anchor, value in ((0.0, "start", edges[0]), (_WIDTH, "end", edges[-1])):
        parts.append(
            Markup('<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{:.4g}</text>').format(x, _HEIGHT - 4, anchor, value)
        )
    return Markup('<svg class="figure" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, title, Markup("").join(parts)
    )
