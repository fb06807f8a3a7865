"""Every command of docs/tutorial.md, in its order, as it stands there: from training to a rollback."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.product import Product, environment, until
from tests.machine_load import as_loaded

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
COMMANDS = [
    line for block in re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Product]:
    (tmp_path / "tour" / "models").mkdir(parents=True)
    made = Product(tmp_path, tmp_path / "tour" / "models", "--drift-window", "1m").start()
    yield made
    made.kill()


def in_force(line: str, serving: Product) -> list[str]:
    """The command, for this gateway in place of that of the page."""
    line = line.replace("tour/data", str(serving.data)).replace("127.0.0.1:8001", serving.server)
    return [str(ROOT / word) if word.startswith("docs/") else word for word in shlex.split(line)]


def test_the_page_begins_with_a_gateway_of_its_own() -> None:
    assert COMMANDS[0] == "mkdir -p tour/models"
    assert COMMANDS[1].startswith(".venv/bin/gateway serve --model-repository tour/models --data-dir tour/data")
    assert COMMANDS[2].startswith("export PATH=")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_command_of_the_page_does_what_it_says(serving: Product) -> None:
    variables = {**environment(), "GATEWAY_SERVER": serving.server, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    told: dict[str, str] = {}

    def run(words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=serving.directory, env=variables, capture_output=True, text=True, timeout=as_loaded(600)
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    for line in COMMANDS[3:]:
        if "fly.py" in line:  # asks at once
            until(lambda: "AVAILABLE" in run(["gateway", "models", "delays"]), 60, "a version serves")
        told[line] = run(in_force(line, serving))

    def of(beginning: str) -> str:
        return next(text for line, text in reversed(told.items()) if line.startswith(beginning))

    assert re.search(r"contract +pass", of("gateway publish tour/2"))  # beside version 1
    assert "promoted" in of("gateway rollout show")
    assert re.search(r"AIRLINE +crit +vanished +US", of("gateway drift status"))
    assert "is active again" in of("gateway rollback")
    assert "version 1" in run(["gateway", "routes", "get", "delays", "-o", "table"]) + run(["gateway", "status"])
