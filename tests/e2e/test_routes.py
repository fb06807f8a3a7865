"""Routes through the command line, on the running product: what operators type, and what applications then get."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import pytest
import yaml

from loadtests.samples import request
from loadtests.verdict import share_text
from tests.e2e.calls import infer, refusal
from tests.e2e.conftest import Demo
from tests.e2e.product import Product, command

pytestmark = pytest.mark.usefixtures("no_routes")
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def apply(product: Product, name: str, *words: str) -> str:
    done = product.cli("routes", "apply", "-f", str(EXAMPLES / f"{name}.yaml"), *words)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_ab_keeps_every_user_on_an_arm(product: Product, channels: list[grpc.Channel], demo: Demo) -> None:
    assert re.search(r"digits +\d+ +committed +\S+ % +[\d.]+ ms by 2 workers", apply(product, "ab"))
    row = demo.rows("digits")[0]
    arms: dict[str, str] = {}
    for round_trip in range(2):
        for user in range(200):
            channel = channels[(user + round_trip) % len(channels)]
            answer = infer(channel, "digits", row, key=[("x-user-id", f"user-{user}")])
            assert answer.version == {"a": "1", "b": "2"}[answer.arm]
            assert answer.said["x-gateway-reason"] == "SPLIT"
            assert arms.setdefault(f"user-{user}", answer.arm) == answer.arm
    assert share_text(list(arms.values()).count("b"), 200, 0.5) == ""
    without = infer(channels[0], "digits", row)
    assert (without.arm, without.said["x-gateway-reason"]) == ("a", "DEFAULT")


def test_a_canary_gets_its_share_and_its_rule(product: Product, channels: list[grpc.Channel], demo: Demo) -> None:
    apply(product, "canary")
    row = demo.rows("digits")[0]
    drawn = Counter(infer(channels[number % 8], "digits", row).arm for number in range(800))
    assert share_text(drawn["canary"], 800, 0.1) == ""
    for channel in channels:
        answer = infer(channel, "digits", row, key=[("x-channel", "beta-7")])
        assert (answer.arm, answer.version, answer.said["x-gateway-reason"]) == ("canary", "2", "RULE:beta")


def test_blue_green_flips_and_shows_the_preview(product: Product, channels: list[grpc.Channel], demo: Demo) -> None:
    apply(product, "blue-green")
    row = demo.rows("digits")[0]
    for channel in channels:
        assert infer(channel, "digits", row).arm == "blue"
        assert infer(channel, "digits", row, key=[("x-gateway-preview", "1")]).arm == "green"
    flipped = yaml.safe_load((EXAMPLES / "blue-green.yaml").read_text())
    flipped["spec"]["strategy"]["blueGreen"] |= {"active": "green", "preview": "blue"}
    done = product.cli("routes", "apply", "-f", "-", "-o", "json", text=yaml.safe_dump(flipped))
    [change] = json.loads(done.stdout)
    assert (change["moved_percent"], len(change["applied_by"]), change["laggards"]) == (100.0, 2, [])
    for channel in channels:
        answer = infer(channel, "digits", row)
        assert (answer.arm, answer.version) == ("green", "2")
        assert answer.said["x-gateway-revision"] == str(change["revision"])


def test_pinned_lets_nobody_choose_and_a_tester_choose(
    product: Product, channels: list[grpc.Channel], demo: Demo
) -> None:
    row = demo.rows("digits")[0]
    apply(product, "pinned")
    assert {infer(channel, "digits", row).version for channel in channels} == {"1"}
    apply(product, "fallback")
    assert {infer(channel, "digits", row).version for channel in channels} == {"2"}
    tester = [("x-role", "tester"), ("x-gateway-version", "1")]
    answer = infer(channels[0], "digits", row, key=tester)
    assert (answer.version, answer.said["x-gateway-reason"]) == ("1", "PIN")
    denied = refusal(channels[0], request("digits", row, "x"), key=[("x-gateway-version", "1")])
    assert denied.code is grpc.StatusCode.PERMISSION_DENIED


def test_rollback_says_how_long_it_took(product: Product, channels: list[grpc.Channel], demo: Demo) -> None:
    apply(product, "pinned", "--reason", "start with the old one")
    apply(product, "fallback", "--reason", "now the new one")
    row = demo.rows("digits")[0]
    assert {infer(channel, "digits", row).version for channel in channels} == {"2"}
    done = product.shell("rollback", "digits", "--reason", "too many sevens")
    assert done.returncode == 0, done.stderr
    said = re.search(
        r"revision (\d+) is active again as revision (\d+); followed by 2 workers after ([\d.]+) ms", done.stdout
    )
    assert said is not None, done.stdout
    assert float(said[3]) < 2000
    assert {infer(channel, "digits", row).version for channel in channels} == {"1"}
    history = json.loads(product.cli("routes", "history", "digits", "-o", "json", "--limit", "3").stdout)
    assert [entry["operation"] for entry in history] == ["rollback", "apply", "apply"]
    assert [entry["reason"] for entry in history] == ["too many sevens", "now the new one", "start with the old one"]
    assert [history[0]["revision"], history[2]["revision"]] == [int(said[2]), int(said[1])]
    assert history[0]["document"] == history[2]["document"]


def test_what_is_printed_for_programs_can_be_read(product: Product) -> None:
    apply(product, "canary")
    document = yaml.safe_load(product.cli("routes", "get", "digits").stdout)
    assert document == json.loads(product.cli("routes", "get", "digits", "-o", "json").stdout)
    assert document["spec"]["strategy"]["canary"]["weight"] == "10%"
    again = product.cli("routes", "apply", "-f", "-", text=yaml.safe_dump(document))
    assert "unchanged" in again.stdout
    table = product.cli("routes", "get", "digits", "-o", "table").stdout
    assert re.search(r"canary +2 +10 %", table)
    listed = yaml.safe_load(product.cli("routes", "list", "-o", "yaml").stdout)
    assert [route["document"] for route in listed["routes"]] == [document]
    models = json.loads(product.cli("models", "-o", "json").stdout)
    assert {(entry["model"], entry["version"], entry["state"]) for entry in models if "passed_over" not in entry} == {
        (model, version, "AVAILABLE")
        for model, versions in {"digits": "12", "flight_delay": "12", "breast_cancer": "1"}.items()
        for version in versions
    }
    assert [entry["passed_over"] for entry in models if "passed_over" in entry] == ["README.md"]
    workers = yaml.safe_load(product.cli("workers", "-o", "yaml").stdout)
    assert {worker["pid"] for worker in workers} == {child["pid"] for child in product.children("worker")}


def test_a_dry_run_changes_nothing(product: Product) -> None:
    assert "would be committed" in apply(product, "canary", "--dry-run")
    assert product.cli("routes", "get", "digits").exit_code == 1


@pytest.mark.parametrize(
    ("words", "text", "code", "said"),
    [
        (("routes", "get", "digits"), None, 1, "NOT_FOUND"),
        (("rollback", "digits", "--to-revision", "999999"), None, 1, "999999"),
        (("routes", "apply", "-f", "-", "--expect-revision", "77"), "pinned", 1, "ABORTED"),
        (("routes", "apply", "-f", "-"), "missing version", 1, "FAILED_PRECONDITION"),
        (("routes", "apply", "-f", "-"), "misspelt", 2, "spec.strategy"),
    ],
)
def test_a_refusal_has_its_exit_code_and_its_reason(
    product: Product, words: tuple[str, ...], text: str | None, code: int, said: str
) -> None:
    pinned = (EXAMPLES / "pinned.yaml").read_text()
    texts = {
        "pinned": pinned,
        "missing version": pinned.replace('version: "1"', 'version: "9"'),
        "misspelt": pinned.replace("pinned:", "pined:"),
    }
    done = product.shell(*words, text=texts[text] if text else None)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tour_of_the_readme(product: Product) -> None:
    """Its commands in its order, with what it says of them."""

    def asked() -> str:
        script = [sys.executable, str(EXAMPLES / "infer.py"), product.server]
        return subprocess.run(script, capture_output=True, text=True, check=True, timeout=60).stdout

    assert re.fullmatch(r"version 2 says \d\n", asked())
    apply(product, "pinned")
    assert asked().startswith("version 1 says")
    apply(product, "ab")
    assert asked() == asked()
    assert product.cli("rollback", "digits").exit_code == 0
    assert asked().startswith("version 1 says")
    assert product.cli("log", "tail", "digits", "--no-follow", "-n", "3").stdout.count(" digits/") == 3


def test_the_commands_of_the_banner_work(product: Product) -> None:
    block = product.banner.split("Try next")[1].split("\n\n")[0].splitlines()[1:]
    commands = [line.split()[1:] for line in block]
    assert [words[0] for words in commands] == ["models", "workers", "log"]
    for words in commands:
        follow = ["--no-follow"] if words[0] == "log" else []
        done = command(*words, *follow)
        assert done.returncode == 0, done.stderr
