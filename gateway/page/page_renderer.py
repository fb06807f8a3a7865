"""The read model as HTML: the whole page, and each of its parts.

Every text of others is escaped by the template engine; there is no style and no script in the HTML, so that the policy
for content can forbid both.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite, log
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError

from gateway.byte_size import rounded_bytes
from gateway.page.page_assets import DIGESTS
from gateway.page.worker_words import worker_words

# The parts in their order, with their titles; "" has none.
SECTIONS: Final[Mapping[str, str]] = {
    "alerts": "",
    "routes": "Routes",
    "rollouts": "Rollouts",
    "models": "Models",
    "drift": "Drift",
    "log": "Prediction log",
    "history": "Changes",
    "fleet": "Workers",
}
TITLE: Final = "Model serving gateway"
_MINUS: Final = "–"
_log = logging.getLogger(__name__)


class PageRenderer:
    """Holds the compiled templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=PackageLoader("gateway.page"),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= FILTERS
        parts: Any = self._environment.get_template("sections.html").module
        self._parts = parts

    def sections(self, view: Mapping[str, Any], operates: Callable[[str], bool]) -> dict[str, str]:
        """Returns the HTML of each part. `operates` says of a model whether the reader may change its route."""
        return {name: self._section(name, view, operates) for name in SECTIONS}

    def _section(self, name: str, view: Mapping[str, Any], operates: Callable[[str], bool]) -> str:
        """Returns one part. What another release wrote and this one cannot show costs its part, not the page."""
        try:
            return str(
                getattr(self._parts, name)(view, operates) if name == "routes" else getattr(self._parts, name)(view)
            )
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
            _log.exception("the part %s of the page cannot be shown", name)
            return '<p class="callout warn">Not known: this part cannot be shown, the log says why.</p>'

    def page(self, sections: Mapping[str, str], caller: str) -> bytes:
        """Returns the whole page; `caller` is who has logged in, "" where nobody has to."""
        marked = {name: self._environment.filters["safe"](html) for name, html in sections.items()}
        return self._whole("page.html", sections=marked, names=SECTIONS, caller=caller)

    def login(self) -> bytes:
        """Returns the page that asks who somebody is."""
        return self._whole("login.html")

    def part(self, name: str, *arguments: object) -> bytes:
        """Returns one piece that is asked for: `predictions`, `explained` or `differences`."""
        return str(getattr(self._parts, name)(*arguments)).encode()

    def _whole(self, template: str, **given: object) -> bytes:
        return self._environment.get_template(template).render(title=TITLE, digests=DIGESTS, **given).encode()


def number(value: object) -> str:
    """Returns a number with three digits that count; a dash where there is none."""
    if value is None or not isinstance(value, int | float | str):
        return _MINUS
    try:
        read = float(value)
    except ValueError:
        return str(value)
    if not isfinite(read):
        return "∞" if read > 0 else _MINUS
    return f"{read:.3g}" if 1e-3 <= abs(read) < 1e4 or not read else f"{read:.2e}"


def rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ms(value: float | None) -> str:
    if value is None:
        return _MINUS
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def percent(value: float | None) -> str:
    return _MINUS if value is None else f"{value:.4g} %"


def duration(seconds: float) -> str:
    """Returns how long something lasts, in the largest units that matter."""
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def stamp(seconds: float) -> str:
    """Returns a point in time since the epoch as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def clock(moment: str) -> str:
    """Returns an ISO 8601 moment as people read it: date and time in UTC, to the second."""
    return f"{moment[:10]} {moment[11:19]} UTC" if len(moment) >= 19 else moment


def pretty(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def evidence_share(rollout: Mapping[str, Any]) -> str:
    """Returns how far the evidence has come towards its bound, from 0 to 1, by its logarithm."""
    evidence, bound = float(rollout["evidence"]), float(rollout["bound"])
    if not (bound > 1 and evidence > 1):
        return "0"
    return f"{min(1.0, log(evidence) / log(bound)):.3f}"


def ratio_figure(finding: Mapping[str, Any]) -> dict[str, float]:
    """Returns where an interval of ratios lies on an axis of 200 units from 0.1 to 10 by its logarithm."""

    def place(ratio: object) -> float:
        value = float(str(ratio)) if ratio is not None else float("inf")
        if value <= 0.1:
            return 0.0
        return 200.0 if value >= 10 else round(100 + 100 * log(value, 10), 1)

    low, high = place(finding["ratio_low"]), place(finding["ratio_high"])
    return {"low": low, "width": max(2.0, high - low), "equal": 100.0}


def bar_figure(bars: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Returns where two bars for each cell stand, 150 units high where the share is the largest of all."""
    most = max((max(reference, window) for _, reference, window in bars), default=0.0) or 1.0
    width = 12
    return {
        "width": len(bars) * (2 * width + 8),
        "bar": width,
        "bars": [
            {
                "x": place * (2 * width + 8),
                "reference_y": round(150 - 145 * reference / most, 1),
                "window_y": round(150 - 145 * window / most, 1),
            }
            for place, (_, reference, window) in enumerate(bars)
        ],
    }


def of_worker(feeds: list[Mapping[str, Any]], process: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns what the worker of a process says of itself; None of other processes, and of one that is silent."""
    if process.get("role") != "worker":
        return None
    return next((feed for feed in feeds if feed["worker"] == process.get("slot")), None)


FILTERS: Final[dict[str, Callable[..., object]]] = {
    "number": number,
    "rate": rate,
    "ms": ms,
    "percent": percent,
    "duration": duration,
    "bytes": rounded_bytes,
    "stamp": stamp,
    "clock": clock,
    "pretty": pretty,
    "evidence_share": evidence_share,
    "ratio_figure": ratio_figure,
    "of_worker": of_worker,
    "worker_words": worker_words,
    "bar_figure": bar_figure,
}
