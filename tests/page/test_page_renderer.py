"""The page's HTML, and the files beside it."""

from hashlib import sha256
from html.parser import HTMLParser
from time import process_time
from typing import Any

import msgspec
import pytest

from gateway.page.overview import overview_of, unanswered
from gateway.page.page_assets import ASSETS, DIGESTS, VENDORED
from gateway.page.page_renderer import SECTIONS, PageRenderer, bar_figure, evidence_share, number, ratio_figure
from gateway.pb import control_pb2 as pb
from gateway.rest.answer_coding import compress
from tests.page.test_overview import ROUTE, host

HOSTILE = "<img src=x onerror=alert(1)>"
ROLLOUT: dict[str, Any] = {
    "model": HOSTILE, "phase": "ramping", "step": 1, "steps": 3, "stable_version": "1", "canary_version": "2",
    "told": HOSTILE, "left_s": 75.0, "paused_by": "ada", "approved_by": "", "approvers": ["olga"], "evidence": 10.0,
    "bound": 100.0, "harmed": 1.5, "arms": [], "costs": [{"arm": "stable", "cpu_seconds_per_1000": 0.25}], "capacity": {
        "cores": 2.0, "now": 0.25, "at_next": 0.5, "after_rollback": 0.125, "next_percent": 50.0, "assumed": True},
    "guardrails": [
        {"kind": "errors", "action": "fail", "verdict": "inconclusive", "evidence": 10.0, "pass_evidence": 0.5,
         "canary": 10, "stable": 90, "canary_events": 1, "stable_events": 2, "ratio_low": 0.5, "ratio_high": None}],
}  # fmt: skip
CHANGE = {
    "model": "m", "revision": 7, "previous_revision": 6, "operation": "apply", "actor": HOSTILE, "source": "cli",
    "reason": HOSTILE, "committed_at": "2026-01-02T03:04:05.678Z", "detail": "",
}  # fmt: skip
VERSION = {
    "model": "m", "version": "1", "state": "FAILED", "reason": HOSTILE, "digest": "abc", "newest_ready": False,
    "merging": "", "in_flight": 0, "workers": {"w": "LOADING"}, "source": HOSTILE, "size_bytes": 3 << 20,
    "trial_memory_bytes": 5 << 20,
}  # fmt: skip


DRIFTING = {
    "at_s": 0.5,
    "arms": [
        {"model": "m", "version": "1", "arm": "a", "state": "crit", "rows": 10, "features": [
            {"feature": HOSTILE, "state": "crit", "statistic": "psi", "direction": "higher", "value": 1.0,
             "threshold": 0.1, "n": 10, "bars": [[HOSTILE, 0.25, 0.75], ["null", 0.75, 0.25]]}]},
    ],
    "mirrors": [],
}  # fmt: skip
PERFORMING = {
    "arms": [
        {"model": "m", "version": "1", "arm": "a",
         "realised": {"rows": 3, "metrics": [{"name": "auc", "value": 0.9, "interval": [0.8, 1.0], "reference": None,
                                              "state": "warn"}]},
         "estimated": {"rows": 0, "metrics": []}},
    ]
}  # fmt: skip


class Tags(HTMLParser):
    """Every tag and attribute that is there."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]


@pytest.fixture(scope="module")
def renderer() -> PageRenderer:
    return PageRenderer()


def view(**given: Any) -> dict[str, Any]:
    given = {"drift": DRIFTING, "performance": PERFORMING} | given
    made = overview_of(
        pb.ListRoutesResponse(routes=[ROUTE], epoch="e", revision=7), [ROLLOUT], [], [VERSION], [CHANGE], host(**given),
        unknown={"Workers": HOSTILE}, also=lambda _: [HOSTILE], moment=lambda _: "2026-01-02T03:04:05.678Z",
    )  # fmt: skip
    builtins: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    return builtins


def test_texts_of_others_are_texts(renderer: PageRenderer) -> None:
    sections = renderer.sections(view(drift=DRIFTING, performance=PERFORMING), lambda _: True)
    page = renderer.page(sections, HOSTILE).decode()
    tags = Tags()
    tags.feed(page)
    assert "img" not in tags.tags
    assert {name for name in tags.attributes if name.startswith("on") or name == "style"} == set()
    assert tags.tags.count("script") == 2
    assert page.count("&lt;img src=x") >= 8
    assert len(tags.ids) == len(set(tags.ids))
    assert list(sections) == list(SECTIONS)


# What callers, labels, headers and routes may bring to the page, in places where HTML would read it as markup or code.
MARKUP = (
    "</script><script>alert(1)</script>",
    "'\"><svg onload=alert(1)>",
    '" autofocus onfocus=alert(1) x="',
    "</template><iframe srcdoc='<script>alert(1)</script>'>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "\u2028\x00<!--",
)


def everywhere(value: Any, text: str) -> Any:
    """The same value with the text in place of each text that is no state and no moment."""
    if isinstance(value, dict):
        fixed = {"state", "at_s", "committed_at", "phase", "kind", "action", "verdict"}
        return {name: one if name in fixed else everywhere(one, text) for name, one in value.items()}
    if isinstance(value, list):
        return [everywhere(one, text) for one in value]
    return text if isinstance(value, str) else value


def tags_of(*parts: str) -> Tags:
    tags = Tags()
    for part in parts:
        tags.feed(part)
    return tags


@pytest.mark.parametrize("text", MARKUP)
def test_no_text_becomes_markup_wherever_it_stands(renderer: PageRenderer, text: str) -> None:
    clean, hostile = (renderer.sections(everywhere(view(), one), lambda _: True) for one in ("x", text))
    # Templates of the page itself fork on few words; what is there of tags is what plain texts give.
    plain, marked = tags_of(*clean.values()), tags_of(*hostile.values())
    assert marked.tags == plain.tags
    assert marked.attributes == plain.attributes
    row = {"request_id": text, "model": text, "version": text, "arm": text, "reason": text, "code": text}
    told = renderer.page(hostile, text).decode()
    assert tags_of(told).tags.count("script") == 2, row
    assert "<script>alert" not in told


def test_three_hundred_models_are_shown_soon_and_in_few_bytes(renderer: PageRenderer) -> None:
    many = view()
    names = [f"team-{number % 17}-model-{number:03}" for number in range(300)]
    for part in ("models", "routes"):
        many[part] = [{**many[part][0], "model": name, "digest": sha256(name.encode()).hexdigest()} for name in names]
    begin = process_time()
    page = renderer.page(renderer.sections(many, lambda _: True), "").decode()
    took_s = process_time() - begin
    assert all(page.count(name) >= 2 for name in names)
    assets = sum(len(asset.compressed) for asset in ASSETS.values())
    assert len(compress(page.encode(), "gzip")) + assets <= 150_000
    assert took_s < 1.0  # 0.06 s where nothing else runs


def test_what_cannot_be_shown_costs_its_part_alone(renderer: PageRenderer, caplog: pytest.LogCaptureFixture) -> None:
    sections = renderer.sections(view(drift={"at_s": 0.5, "arms": [{"model": "m"}]}), lambda _: True)
    assert "cannot be shown" in sections["drift"]
    assert "Requests/s" in sections["routes"]
    assert "the part drift" in caplog.text


def test_the_load_of_the_next_step_is_told(renderer: PageRenderer) -> None:
    rollouts = renderer.sections(view(), lambda _: True)["rollouts"]
    assert "CPUs in use: 25 % of 2; 50 % at 50 %, 12.5 % after a rollback" in rollouts
    assert "stable 0.25" in rollouts


def test_a_bandit_shows_its_arms(renderer: PageRenderer) -> None:
    arms = [
        {"arm": "a", "version": "1", "percent": 10.0, "rewards": 5, "counted": 50.0, "mean": 0.25, "out": ""},
        {"arm": "b", "version": "2", "percent": 0.0, "rewards": 0, "counted": 0.0, "mean": None, "out": HOSTILE},
    ]
    shown = view()
    shown["rollouts"] = [ROLLOUT | {"phase": "learning", "steps": 0, "strategy": "bandit", "arms": arms}]
    rollouts = renderer.sections(shown, lambda _: True)["rollouts"]
    assert ": bandit of 1, 2</h3>" in rollouts
    assert "a 10 %, mean 0.25 of 50 rewards; b 0 % (&lt;img" in rollouts


def test_who_may_not_roll_back_is_not_offered_it(renderer: PageRenderer) -> None:
    assert 'data-action="rollback"' in renderer.sections(view(), lambda _: True)["routes"]
    assert 'data-action="rollback"' not in renderer.sections(view(), lambda _: False)["routes"]


def test_nothing_known_is_not_all_well(renderer: PageRenderer) -> None:
    nobody: dict[str, Any] = msgspec.to_builtins(unanswered(None, "nobody answers"))
    sections = renderer.sections(nobody, lambda _: True)
    for name in ("alerts", "routes", "rollouts", "models", "history", "fleet"):
        assert "nobody answers" in sections[name], name
    assert "Not known" in sections["drift"]
    assert "Not known" in sections["log"]
    assert "No routes" not in sections["routes"]
    assert "silence is not OK" in renderer.sections(view(drift=DRIFTING, at_s=100.0), lambda _: True)["drift"]


@pytest.mark.parametrize("name", VENDORED)
def test_vendored_files_are_unchanged(name: str) -> None:
    assert sha256(ASSETS[name].content).hexdigest() == VENDORED[name]


def test_addresses_change_with_the_files(renderer: PageRenderer) -> None:
    page = renderer.login().decode()
    assert f"/page/static?name=page.js&amp;v={DIGESTS['page.js']}" in page


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0"), (0.12345, "0.123"), (1e-7, "1.00e-07"), ("inf", "∞"), ("x", "x")]
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert number(value) == text


def test_bars_are_as_high_as_their_shares() -> None:
    figure = bar_figure([("a", 0.5, 0.25), ("b", 0.0, 0.0)])
    assert [(bar["x"], bar["reference_y"], bar["window_y"]) for bar in figure["bars"]] == [
        (0, 5.0, 77.5),
        (32, 150.0, 150.0),
    ]
    assert bar_figure([])["bars"] == []


def test_figures_stay_on_their_axes() -> None:
    assert evidence_share({"evidence": 10.0, "bound": 100.0}) == "0.500"
    assert evidence_share({"evidence": 0.1, "bound": 100.0}) == "0"
    assert evidence_share({"evidence": 1e9, "bound": 100.0}) == "1.000"
    assert ratio_figure({"ratio_low": 0.0, "ratio_high": None}) == {"low": 0.0, "width": 200.0, "equal": 100.0}
    assert ratio_figure({"ratio_low": 1.0, "ratio_high": 1.0}) == {"low": 100.0, "width": 2.0, "equal": 100.0}


def test_a_version_shows_its_size_its_source_and_the_memory_of_its_trial(renderer: PageRenderer) -> None:
    shown = renderer.sections(view(), lambda _: True)["models"]
    assert "<td>3.0 MiB</td><td>5.0 MiB</td>" in shown
    assert shown.count("&lt;img src=x") == 2  # the source, and why it failed
