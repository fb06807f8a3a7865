"""Results as one HTML file, without script and without anything from elsewhere, for screen, dark, phone and paper."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from gateway.drift.report.span import moment_text
from gateway.page.report_style import report_style
from gateway.rollout.results.result import ExperimentResult, MetricResult, MetricRole, Outcome, Says
from gateway.rollout.results.result_verdict import number

TITLES: Final = {
    Outcome.BROKEN: "Do not read these numbers",
    Outcome.HARMFUL: "An arm does harm",
    Outcome.WORSE: "An arm is worse",
    Outcome.UNKNOWN: "Nothing is known yet",
    Outcome.OPEN: "Nothing can be said yet",
    Outcome.EQUAL: "No difference that matters",
    Outcome.BETTER: "Better",
}
_COLOURS: Final = {
    Outcome.BROKEN: "crit",
    Outcome.HARMFUL: "crit",
    Outcome.WORSE: "warn",
    Outcome.UNKNOWN: "insufficient",
    Outcome.OPEN: "insufficient",
    Outcome.EQUAL: "insufficient",
    Outcome.BETTER: "ok",
}
_SAID: Final = {
    Says.BETTER: "ok",
    Says.WORSE: "crit",
    Says.DIFFERS: "warn",
    Says.EQUAL: "insufficient",
    Says.OPEN: "insufficient",
    Says.UNKNOWN: "insufficient",
}
_ROLES: Final = {MetricRole.DECIDES: "decides", MetricRole.GUARDS: "guardrail", MetricRole.SHOWN: ""}
_WIDTH: Final = 220.0
_MIDDLE: Final = 110.0


def render_results(result: ExperimentResult) -> str:
    """Returns the page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "moment": _moment, "percent": lambda share: f"{share:.4g} %"}
    environment.globals |= {
        "style": report_style(), "titles": TITLES, "colours": _COLOURS, "said": _SAID,
         "roles": _ROLES, "bar": interval_bar, "scale": scale_of,
    }  # fmt: skip
    page = files("gateway.rollout.results").joinpath("results.html").read_text(encoding="utf-8")
    return environment.from_string(page).render(result=result, experiment=result.experiment)


def scale_of(metrics: Sequence[MetricResult]) -> float:
    """Returns the largest distance from no difference that intervals of one metric reach."""
    known = [one.difference for one in metrics if one.difference is not None]
    return max((max(abs(one.low), abs(one.high)) for one in known), default=0.0)


def interval_bar(result: MetricResult, scale: float) -> Markup:
    """Returns the interval as a picture: no difference is its middle, `scale` its ends."""
    difference = result.difference
    if difference is None or not scale:
        return Markup("")
    low, value, high = (
        _MIDDLE + bound / scale * (_MIDDLE - 8) for bound in (difference.low, difference.value, difference.high)
    )
    told = f"{number(difference.value)}, between {number(difference.low)} and {number(difference.high)}"
    return Markup(
        '<svg class="interval" viewBox="0 0 {} 20" role="img" aria-label="{}"><title>{}</title>'
        '<line class="axis" x1="{}" x2="{}" y1="1" y2="19"/><line class="whisker {}" x1="{}" x2="{}" y1="10" y2="10"/>'
        '<circle class="dot {}" cx="{}" cy="10" r="4"/></svg>'
    ).format(
        f"{_WIDTH:g}", told, told, f"{_MIDDLE:g}", f"{_MIDDLE:g}", _SAID[result.says], f"{low:.1f}", f"{high:.1f}",
        _SAID[result.says], f"{value:.1f}",
    )  # fmt: skip


def _moment(moment_us: int) -> str:
    return moment_text(moment_us // 1_000_000 * 1_000_000) if moment_us else "now"
