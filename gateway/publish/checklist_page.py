"""The checklist of a version as one HTML file, without script and without anything from elsewhere."""

from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from gateway.page.report_style import report_style
from gateway.publish.checklist import Checklist, CheckState

_BADGES: Final = {
    CheckState.PASS: "ok",
    CheckState.WARN: "warn",
    CheckState.FAIL: "crit",
    CheckState.SKIPPED: "insufficient",
}


def render_checklist(checklist: Checklist) -> str:
    """Returns the page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("gateway.publish").joinpath("checklist.html").read_text(encoding="utf-8"))
    return template.render(list=checklist, badges=_BADGES, style=report_style())
