"""The page of a report, read by a parser: whole, alone, safe, small, and legible in both colour schemes.

No browser is started: it would cost more than the rest of the tests together. What it looks like was looked at by hand.
"""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.report.gathering import Question, gather
from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.outcome import read_labelled
from gateway.drift.report.page import delay, headlines, length, number, percent, render
from gateway.drift.report.reference import reference_window
from gateway.drift.report.report import Report
from gateway.drift.report.span import Span
from gateway.drift.statistics.answers import find_outputs
from gateway.drift.statistics.verdict import DriftState, Origin
from tests.drift.lakes import DAY_US, START_US, lake_of, write_labels, write_rows

VOID = {"meta", "rect", "circle", "line", "polygon", "path", "link", "br"}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """What is on a page: its elements, its attributes, its texts; unbalanced tags end the test."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without its beginning"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def make(
    folder: Path,
    x: np.ndarray,
    *,
    towns: np.ndarray | None = None,
    labels: bool = False,
    where: str = "",
    half_us: int = 4 * DAY_US,
) -> Report:
    """The report on the second half of the rows, against the first; the first feature of the second half has moved."""
    rows = len(x)
    chances = 1 / (1 + np.exp(-x[:, 1].astype(float)))
    x = x.copy()
    x[rows // 2 :, 0] += 2
    moments = START_US + np.arange(rows) * (2 * half_us // rows)
    inputs = {"x": x} if towns is None else {"x": x, "town": towns}
    ids = write_rows(folder, moments, inputs, {"p": np.column_stack([1 - chances, chances]).astype("<f4")})
    if labels:
        truth = np.random.default_rng(1).random(rows) < chances
        write_labels(folder, ids, truth.astype(float).tolist(), moments.tolist())
    middle_us = START_US + half_us
    first, second = Span(START_US, middle_us), Span(middle_us, middle_us + half_us)
    with Lake(lake_of(folder)) as lake:
        base = Selection("homes", first)
        made = reference_window(lake, base, rng=np.random.default_rng(0), created_at=0.0)
        made = replace(made, labelled=read_labelled(lake, base, find_outputs(lake.columns(base))))
        return gather(Question(Selection("homes", second, where=where), 0, second.end_us), lake, made)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    rng = np.random.default_rng(0)
    towns = np.array(["north", HOSTILE, "south"], object)[rng.choice(3, 4000)]
    where = "'<script>' <> '</code>'"
    made = make(
        tmp_path_factory.mktemp("data"), rng.normal(size=(4000, 3)).astype("<f4"), towns=towns, labels=True, where=where
    )
    return replace(made, model=f"homes {HOSTILE}", notes=(*made.notes, f"a note {HOSTILE}"))


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return render(report)


def test_the_page_is_whole_and_asks_nobody_for_anything(html: str) -> None:
    page = Page(html)
    assert page.tags["script"] == page.tags["img"] == page.tags["link"] == page.tags["iframe"] == 0
    assert (page.tags["html"], page.tags["main"], page.tags["h1"], page.tags["style"]) == (1, 1, 1, 1)
    links = [value for _, name, value in page.attributes if name in ("href", "src", "xlink:href", "action", "data")]
    assert links
    assert all(value.startswith("#") for value in links)
    ids = {value for _, name, value in page.attributes if name == "id"}
    assert {value[1:] for value in links} <= ids
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_names_and_conditions_are_text_and_nothing_else(html: str) -> None:
    page = Page(html)
    assert f"homes {HOSTILE}" in page.text
    assert f"A note {HOSTILE}" in page.text
    assert "'<script>' <> '</code>'" in page.text
    assert "<script" not in html


def test_it_says_what_was_found_by_what_and_of_how_many_rows(report: Report, html: str) -> None:
    text = Page(html).text
    assert "Drift: critical" in text
    first = report.features[0]
    verdict = first.verdict
    for words in (first.name, number(verdict.value), number(verdict.threshold), verdict.direction, "2 000", "PSI"):
        assert words in text
    assert "What the estimate cannot see" in text
    assert "95 % interval" in text
    assert "2 000 of 2 000 (100 %)" in text
    assert "seed 0" in text


def test_the_page_says_where_each_threshold_comes_from_and_how_many_rows_are_missing(report: Report) -> None:
    origins = list(Origin)
    features = [
        replace(feature, verdict=replace(feature.verdict, origin=origins[place % len(origins)]))
        for place, feature in enumerate(report.features)
    ]
    thin = replace(features[-1].verdict, state=DriftState.INSUFFICIENT, statistic="", n=150.0, least_rows=200)
    features[-1] = replace(features[-1], state=DriftState.INSUFFICIENT, verdict=thin)
    assert len(features) > len(origins)
    changed = replace(report, features=tuple(features))
    text = Page(render(changed)).text
    for words in ("what warns", "with the samples' error", "the reference's own windows", "the bound: "):
        assert words in text
    assert "150 rows, 200 are needed" in text
    assert any("could not be judged; 200 rows are needed" in line for _, line in headlines(changed))


def test_figures_say_in_words_what_they_show(html: str) -> None:
    page = Page(html)
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    roles = [value for tag, name, value in page.attributes if tag == "svg" and name == "role"]
    hidden = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-hidden"]
    assert len(labels) == len(roles) == page.tags["svg"] - len(hidden)
    assert any(label.startswith("Histogram of x_0") for label in labels)
    assert any(label.startswith("Categories of town") for label in labels)
    assert any("realised and estimated" in label for label in labels)
    assert "nan" not in " ".join(
        value for _, name, value in page.attributes if name in ("x", "y", "d", "points", "height")
    )


def test_widths_and_heights_are_never_negative(html: str) -> None:
    sizes = [
        float(value) for tag, name, value in Page(html).attributes if tag == "rect" and name in ("width", "height")
    ]
    assert len(sizes) > 100
    assert min(sizes) >= 0


@pytest.mark.timeout(300)  # 12 s of CPU, whatever time of the clock that is; what it makes depends on no time
def test_the_widest_model_fits_in_a_megabyte(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    report = make(tmp_path, rng.normal(size=(600, 512)).astype("<f4"), half_us=DAY_US // 8)
    html = render(report)
    assert len(html.encode()) < 1_000_000
    assert len(report.features) == 512 + 4
    assert "more, none worse than these" in Page(html).text


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_are_told_apart_from_what_is_behind_them(html: str, scheme: int) -> None:
    """By WCAG 2: 4.5 for text, 3 for marks."""
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", re.findall(r":root \{(.*?)\}", html, re.S)[scheme]))
    for text, backs in (("ink", ("back", "card")), ("soft", ("back", "card")), ("window", ("back", "card"))):
        assert all(contrast(colours[text], colours[back]) >= 4.5 for back in backs), text
    for state in DriftState:
        name = state.name.lower()
        assert contrast(colours[name], colours[f"{name}-back"]) >= 4.5, name
    assert contrast(colours["ink"], colours["warn-back"]) >= 4.5
    for mark in ("estimated", "crit", "warn"):
        assert contrast(colours[mark], colours["card"]) >= 3, mark


def test_headlines_begin_with_the_worst(report: Report) -> None:
    states = [state for state, _ in headlines(report)]
    assert states == sorted(
        states,
        key=lambda state: (DriftState.CRIT, DriftState.WARN, DriftState.INSUFFICIENT, DriftState.OK).index(state),
    )
    assert "x_0" in headlines(report)[0][1]


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (number(0.12345), "0.123"), (number(1234567.0), "1.23e6"), (number(12345.6), "12 346"), (number(None), "–"),
        (number(float("nan")), "–"), (number(0.0), "0"), (number(2.5e-7), "2.50e-7"), (percent(0.0123), "1.23 %"),
        (length(DAY_US), "1 day"), (length(6 * 3_600_000_000), "6 hours"), (delay(5400.0), "1.5 h"),
        (delay(3.0), "3 s"),
    ],
)  # fmt: skip
def test_numbers_are_short(shown: str, words: str) -> None:
    assert shown == words
