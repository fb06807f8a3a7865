"""REST of the product as its documentation shows it: every curl line of README and docs/rest.md is run."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import Product, command, environment

ROOT = Path(__file__).parents[2]
ANY_PORT = re.compile(r"(?:http://127\.0\.0\.1|localhost):(8000|8002)")
CHANGES = " -X POST "


def lines_of(page: str) -> list[str]:
    """The curl commands in the blocks of a page, each whole, without what they are piped into."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    commands: list[str] = []
    for block in blocks:
        for part in re.split(r"^(?=\S)(?!\s)", block, flags=re.MULTILINE):
            if part.startswith("curl "):
                commands.append(re.sub(r"\s+#.*$| \| .*$", "", part.rstrip(), flags=re.MULTILINE))
    return commands


LINES = [*lines_of("README.md"), *lines_of("docs/rest.md")]


@pytest.fixture(scope="module")
def routed(product: Product) -> Iterator[Product]:
    """The product with a route that can be rolled back."""
    for name in ("pinned", "ab"):
        done = command("routes", "apply", "-f", f"{ROOT}/docs/examples/{name}.yaml", "--reason", "t", *at(product))
        assert done.returncode == 0, done.stderr
    yield product
    assert command("routes", "delete", "digits", "--reason", "t", *at(product)).returncode == 0


def at(product: Product) -> tuple[str, str]:
    return "--server", product.server


def run(product: Product, line: str) -> str:
    ports = {"8000": product.port("http"), "8002": product.port("metrics")}
    shown = ANY_PORT.sub(lambda place: f"127.0.0.1:{ports[place.group(1)]}", line)
    done = subprocess.run(
        ["sh", "-c", shown.replace("curl ", "curl --fail-with-body --max-time 20 ")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, f"{shown}: {done.stdout} {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_documentation(routed: Product, line: str) -> None:
    assert run(routed, line)


def test_there_are_lines_of_each_kind() -> None:
    assert sum(":8000" in line for line in LINES) >= 3
    assert sum(":8002" in line for line in LINES) >= 3
    assert any(CHANGES in line for line in LINES)


def test_both_ports_tell_of_the_same_route(routed: Product) -> None:
    history: Any = json.loads(run(routed, "curl -s localhost:8002/api/v1/routes/digits/history?limit=1"))
    body = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [0] * 64}]})
    told = run(routed, f"curl -s -D- localhost:8000/v2/models/digits/infer -d '{body}'")
    assert f"x-gateway-revision: {history['entries'][0]['revision']}" in told.splitlines()


def test_the_operators_port_says_what_drift_found(product: Product) -> None:
    assert isinstance(json.loads(run(product, "curl -s localhost:8002/api/v1/drift")), dict)
    assert json.loads(run(product, "curl -s localhost:8002/openapi.json"))["openapi"] == "3.1.0"
