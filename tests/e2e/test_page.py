"""The operators' page in a real browser, against the product."""

import json
import os
import re
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from gateway.client import Client
from tests.e2e.browser import CHROMIUM, Visit, browsing
from tests.e2e.conftest import Demo
from tests.e2e.product import Product, until

if CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.usefixtures("no_routes")
LIMIT_MS = 30_000
ROUTE = """\
apiVersion: gateway/v1
kind: Route
metadata: {{model: digits}}
spec:
  arms: {{stable: {{version: "1"}}, canary: {{version: "2"}}}}
  key: {{from: [metadata:x-user-id]}}
  strategy: {{canary: {{steps: [{{weight: {share}}}, {{weight: 50%}}]}}}}
"""
JUDGED = """\
apiVersion: gateway/v1
kind: Route
metadata: {model: digits}
spec:
  arms: {stable: {version: "1"}, canary: {version: "2"}}
  key: {from: [metadata:x-user-id]}
  strategy:
    canary:
      steps: [{weight: 30%, hold: 3s, minEvents: 30}, {weight: 60%, hold: 10m}]
      analysis: {onInconclusive: advance, guardrails: [{kind: errors, passBelow: 50%}]}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    made = Visit(browser)
    yield made
    assert not made.errors
    made.close()


@pytest.fixture
def address(product: Product) -> str:
    return f"http://127.0.0.1:{product.port('metrics')}"


def apply(product: Product, share: str = "10%") -> None:
    done = product.shell("routes", "apply", "-f", "-", text=ROUTE.format(share=share))
    assert done.returncode == 0, done.stderr


def call(product: Product, demo: Demo, calls: int = 20) -> None:
    image = np.zeros((1, 64), np.float32)
    with Client(product.server) as client:
        for number in range(calls):
            client.infer("digits", {"image": image}, key=f"user-{number}")


def live(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#connection")).to_have_text("Live", timeout=LIMIT_MS)


def section(page: Page, name: str) -> str:
    return page.locator(f'[data-section="{name}"]').inner_text()


def test_every_part_is_there_and_follows(product: Product, demo: Demo, visit: Visit, address: str) -> None:
    page = visit.page
    live(page, address)
    assert page.title() == "Model serving gateway"
    expect(page.locator('[data-section="models"]')).to_contain_text("flight_delay")
    delays = page.locator('[data-section="models"] tbody tr', has=page.get_by_role("rowheader", name="flight_delay"))
    expect(delays.first).to_contain_text(re.compile(r"\d MiB.*models", re.DOTALL))
    expect(page.locator('[data-section="fleet"]')).to_contain_text("worker 0")
    apply(product)
    expect(page.locator('[data-section="routes"]')).to_contain_text("canary", timeout=LIMIT_MS)
    expect(page.locator('[data-section="routes"]')).to_contain_text("step 1 of 2")
    expect(page.locator('[data-section="history"]')).to_contain_text("apply")
    call(product, demo)
    expect(page.locator(".chart canvas")).to_have_count(1, timeout=LIMIT_MS)
    row = page.locator('[data-section="routes"] .scroll tbody tr', has=page.get_by_role("rowheader", name="stable"))
    expect(row).to_contain_text(re.compile(r"[1-9]\S* ms"), timeout=LIMIT_MS)
    apply(product, "20%")
    expect(row).to_contain_text("80 %", timeout=LIMIT_MS)
    visit.shoot("page")
    models = page.locator('[data-section="models"] tbody tr:visible')
    every = models.count()
    page.get_by_label("Models with").fill("DIGITS")
    expect(models.filter(has_text="flight_delay")).to_have_count(0)
    assert 0 < models.count() < every
    apply(product, "10%")  # what comes later is filtered as well
    expect(row).to_contain_text("90 %", timeout=LIMIT_MS)
    expect(models.filter(has_text="flight_delay")).to_have_count(0)
    page.get_by_label("Models with").fill("")
    expect(models).to_have_count(every)


def test_a_canary_is_followed_live(product: Product, demo: Demo, visit: Visit, address: str) -> None:
    done = product.shell("routes", "apply", "-f", "-", text=JUDGED)
    assert done.returncode == 0, done.stderr
    live(visit.page, address)
    rollouts = visit.page.locator('[data-section="rollouts"]')
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            call(product, demo, 100)

    calls = threading.Thread(target=busy)
    calls.start()
    try:
        expect(rollouts).to_contain_text("step 1 of 2", timeout=LIMIT_MS)
        expect(rollouts).to_contain_text("What the judge saw", timeout=LIMIT_MS)
        expect(rollouts).to_contain_text(re.compile(r"errors.*\d+ of [1-9]", re.DOTALL), timeout=LIMIT_MS)
        visit.shoot("rollout")
        expect(rollouts).to_contain_text("step 2 of 2", timeout=2 * LIMIT_MS)
    finally:
        over.set()
        calls.join()


def test_it_comes_back_by_itself(start_product: Callable[..., Product], browser: Browser) -> None:
    product = start_product("page")
    visit = Visit(browser)
    live(visit.page, f"http://127.0.0.1:{product.port('metrics')}")
    [control] = product.children("control")
    os.kill(int(control["pid"]), signal.SIGKILL)
    expect(visit.page.locator("#connection")).to_have_text("Reconnecting…", timeout=LIMIT_MS)
    expect(visit.page.locator("#connection")).to_have_text("Live", timeout=LIMIT_MS)
    visit.close()
    product.stop()


def test_a_rollback_asks_once_and_says_how_fast_it_was(product: Product, visit: Visit, address: str) -> None:
    apply(product, "10%")
    apply(product, "30%")
    page = visit.page
    live(page, address)
    page.locator("#rollback-digits").click()
    expect(page.locator("#confirm")).to_contain_text("digits goes back from revision")
    page.locator("#confirm-no").click()
    assert page.locator("#told").inner_text() == ""
    page.locator("#rollback-digits").focus()
    page.keyboard.press("Enter")
    page.locator("#confirm-reason").fill("complaints <b>of clients</b>")
    page.locator("#confirm-yes").click()
    told = page.locator("#told")
    expect(told).to_contain_text("followed within", timeout=LIMIT_MS)
    assert re.search(r"All 2 workers followed within \d+ ms", told.inner_text())
    expect(page.locator('[data-section="routes"]')).to_contain_text("90 %", timeout=LIMIT_MS)
    expect(page.locator('[data-section="history"]')).to_contain_text("complaints <b>of clients</b>", timeout=LIMIT_MS)
    expect(page.locator('[data-section="history"]')).to_contain_text("(page)")
    page.locator('[data-section="history"] button').first.click()
    expect(page.locator("#detail")).to_contain_text("spec.strategy.canary", timeout=LIMIT_MS)


def test_a_prediction_is_explained_by_one_click(product: Product, demo: Demo, visit: Visit, address: str) -> None:
    apply(product)
    call(product, demo, 3)
    page = visit.page
    live(page, address)

    def shown() -> bool:
        page.locator("#predictions").click()
        page.wait_for_timeout(200)
        return page.locator("#rows button").count() > 0

    until(shown, 30, "the predictions are in the write-ahead log")
    page.locator("#rows button").first.click()
    expect(page.locator("#detail")).to_contain_text("The replay agrees", timeout=LIMIT_MS)
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nobody_is_shut_out(product: Product, demo: Demo, browser: Browser, address: str, dark: bool) -> None:
    apply(product)
    call(product, demo, 5)
    visit = Visit(browser, dark=dark)
    live(visit.page, address)
    expect(visit.page.locator('[data-section="routes"]')).to_contain_text("canary", timeout=LIMIT_MS)
    visit.page.locator("details").first.evaluate("one => { one.open = true }")
    results = Axe().run(visit.page)
    assert results.violations_count == 0, results.generate_report()
    visit.shoot("dark" if dark else "light")
    assert visit.errors == []
    visit.close()


def test_it_is_light(visit: Visit, address: str) -> None:
    live(visit.page, address)
    assert 0 < visit.transferred <= 150_000


def test_another_site_can_change_nothing(product: Product, address: str) -> None:
    apply(product)
    body = json.dumps({"model": "digits"}).encode()
    own = {"Content-Type": "application/json", "X-Gateway-Client": "1"}
    refused: list[tuple[int, Mapping[str, str]]] = [
        (403, {"Content-Type": "application/json"}),
        (415, {"Content-Type": "text/plain", "X-Gateway-Client": "1"}),
        (403, own | {"Origin": "http://evil.example"}),
        (403, own | {"Sec-Fetch-Site": "cross-site"}),
        (403, own | {"Host": "evil.example", "Origin": "http://evil.example"}),
    ]
    for status, headers in refused:
        request = urllib.request.Request(f"{address}/page/rollback", body, dict(headers))
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=10)
        assert raised.value.code == status, headers
        raised.value.close()
    for path in ("/", "/events?follow=false", "/api/v1/routes"):
        request = urllib.request.Request(f"{address}{path}", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=10)
        assert raised.value.code == 421, path
        raised.value.close()
    with urllib.request.urlopen(f"{address}/", timeout=10) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_and_the_command_show_one_model(product: Product, address: str) -> None:
    apply(product)
    done = product.cli("status", "-o", "json")
    assert done.exit_code == 0, done.output
    command = json.loads(done.stdout)
    with urllib.request.urlopen(f"{address}/page/overview", timeout=10) as answer:
        page = json.loads(answer.read())
    assert command.keys() == page.keys()
    assert command["routes"][0]["document"] == page["routes"][0]["document"]
    assert page["unknown"] == {}
    assert page["host"]["traffic_known"]
