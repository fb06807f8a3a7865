"""The report of a soak: lines for a terminal, JSON, and one HTML page with a plot of every process."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtests.soak.growth import Slope, Verdict, slope
from loadtests.soak.holdings import QUANTITIES, Life

# Growth per million requests that is allowed: MiB; a descriptor, thread or task that stays behind is a leak.
BUDGETS: Final[Mapping[str, float]] = {"rss_mib": 1.0, "files": 1.0, "threads": 1.0, "tasks": 1.0}
_WIDTH: Final = 480
_HEIGHT: Final = 120
_STYLE: Final = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right}"
    "svg{border:1px solid #ccc}.grows{color:#b00;font-weight:bold}.undecided{color:#850}figure{display:inline-block}"
)


@dataclass(frozen=True, slots=True)
class Fit:
    """What one process held of one thing, and how that grew."""

    process: str
    quantity: str
    first: float
    last: float
    slope: Slope | None

    @property
    def verdict(self) -> Verdict:
        return self.slope.verdict(BUDGETS[self.quantity]) if self.slope is not None else Verdict.UNDECIDED

    def line(self) -> str:
        if self.slope is None:
            growth = "too few requests to fit"
        else:
            growth = f"{self.slope.value:+8.3f} ({self.slope.lowest:+.3f} to {self.slope.highest:+.3f}) per million"
        return (
            f"{self.verdict.value:9} {self.process:24} {QUANTITIES[self.quantity]:12} "
            f"{self.first:8.1f} -> {self.last:8.1f}  {growth}"
        )


def fits(lives: Sequence[Life]) -> list[Fit]:
    """Returns one for each process and quantity; tasks are those of workers."""
    return [
        Fit(life.name, name, values[0], values[-1], slope(life.requests, values))
        for life in lives
        for name, values in life.values.items()
        if values and (name != "tasks" or life.role == "worker")
    ]


def write(directory: Path, facts: Mapping[str, object], lives: Sequence[Life], made: Sequence[Fit]) -> None:
    """Writes soak.txt, soak.json and soak.html."""
    directory.mkdir(parents=True, exist_ok=True)
    known = [fit for fit in made if fit.slope is not None]
    unknown = {fit.process for fit in made} - {fit.process for fit in known}
    lines = [*(f"{name}: {value}" for name, value in facts.items()), "", *(fit.line() for fit in known)]
    if unknown:
        lines.append(f"undecided: {len(unknown)} processes lived for too few requests to fit")
    (directory / "soak.txt").write_text("\n".join(lines) + "\n")
    told = {
        **facts,
        "growth": [
            {
                "process": fit.process,
                "quantity": fit.quantity,
                "first": fit.first,
                "last": fit.last,
                "per_million": fit.slope.value if fit.slope is not None else None,
                "interval": [fit.slope.lowest, fit.slope.highest] if fit.slope is not None else None,
                "verdict": fit.verdict.value,
            }
            for fit in made
        ],
    }
    (directory / "soak.json").write_text(json.dumps(told, indent=1) + "\n")
    (directory / "soak.html").write_text(_page(facts, lives, made))


def _page(facts: Mapping[str, object], lives: Sequence[Life], made: Sequence[Fit]) -> str:
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items())
    by_life = {life.name: life for life in lives}
    figures = "".join(_figure(fit, by_life[fit.process]) for fit in made)
    return (
        f"<!doctype html><meta charset=utf-8><title>Soak</title><style>{_STYLE}</style><h1>Soak</h1>"
        f"<table>{rows}</table>{figures}\n"
    )


def _figure(fit: Fit, life: Life) -> str:
    caption = f'<figcaption class="{fit.verdict.value}">{_text(fit.line())}</figcaption>'
    return f"<figure>{_plot(life.requests, life.values[fit.quantity])}{caption}</figure>"


def _plot(requests: Sequence[float], values: Sequence[float]) -> str:
    """Returns the values over the requests, from zero, so that growth is seen as what it is."""
    most, last = max(*values, 1.0) * 1.05, max(requests[-1], 1)
    points = " ".join(
        f"{one / last * _WIDTH:.1f},{_HEIGHT - other / most * _HEIGHT:.1f}"
        for one, other in zip(requests, values, strict=True)
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img"><polyline points="{points}" fill="none" stroke="#05a"/>'
        f'<text x="4" y="14" font-size="11">{max(values):g}</text></svg>'
    )


def _text(value: object) -> str:
    return html.escape(str(value))
