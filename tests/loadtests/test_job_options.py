"""What the options make of a scenario and of the server: tokens, TLS, ports, budgets."""

import argparse
from pathlib import Path

import pytest

from gateway.errors import InvalidArgument
from loadtests.job.command import main, parser
from loadtests.job.job_options import scenario_from, target_from
from loadtests.job.run_result import RunExit
from loadtests.job.scenario_file import load_scenario
from loadtests.job.scenario_plan import FlipPlan, Scenario
from tests.rpc.serving import CERTIFICATES


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment names a server or a token."""
    for name in (
        "GATEWAY_TOKEN",
        "GATEWAY_TOKEN_FILE",
        *(f"GATEWAY_CLI_TLS_{one}" for one in ("CA", "CERT", "KEY", "NAME")),
    ):
        monkeypatch.delenv(name, raising=False)


def options(*words: str) -> argparse.Namespace:
    return parser().parse_args(["run", "steady", "--model", "m", *words])


def scenario(*words: str, name: str = "steady") -> Scenario:
    return scenario_from(load_scenario(name), options(*words))


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("from-file\n")
    assert target_from(options("--token-file", str(tmp_path / "token"))).authorization == "Bearer from-file"
    monkeypatch.setenv("GATEWAY_TOKEN", "from-environment")
    assert target_from(options()).authorization == "Bearer from-environment"
    monkeypatch.setenv("GATEWAY_TOKEN_FILE", str(tmp_path / "token"))
    assert target_from(options()).authorization == "Bearer from-file"
    with pytest.raises(InvalidArgument, match=r"--token-file: cannot read .*nosuch"):
        target_from(options("--token-file", "nosuch"))
    with pytest.raises(InvalidArgument, match="plain text to example:1: use TLS"):
        target_from(options("--server", "example:1"))
    assert target_from(options("--server", "example:1", "--insecure")).token == "from-file"


def test_tls_and_ports_are_those_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = target_from(options("--server", "10.0.0.1:9001"))
    assert (plain.rest, plain.secure, plain.tls_context("h2")) == ("10.0.0.1:8000", False, None)
    ca = str(CERTIFICATES / "ca.pem")
    monkeypatch.setenv("GATEWAY_CLI_TLS_CA", ca)
    secure = target_from(options("--rest", "10.0.0.1:9000"))
    assert (secure.ca, secure.secure, secure.address_of("rest-json")) == (ca, True, ("10.0.0.1", 9000))
    assert secure.tls_context("h2") is not None
    assert target_from(options("--tls")).secure


def test_options_change_a_scenario() -> None:
    words = (
        "--rate",
        "200",
        "--seconds",
        "7",
        "--key",
        "x-user-id=5",
        "--header",
        "a=b",
        "--deadline",
        "250ms",
        "--rows",
        "3",
    )
    made = scenario(*words, "--shape", "x=1,2", "--protocol", "rest-json", "--connections", "9")
    [one] = made.traffic
    assert (made.highest, made.seconds, one.deadline_s, one.connections) == (200, 7, 0.25, 9)
    assert (one.payload.rows, one.payload.inputs["x"].shape) == (3, (1, 2))
    assert (one.headers, one.protocol) == ({"a": "b"}, "rest-json")
    assert one.key is not None
    assert (one.key.metadata, one.key.count) == ("x-user-id", 5)
    assert scenario("--versions", "3,4", name="flips").change == FlipPlan(0.5, ("3", "4"))


def test_a_budget_replaces_the_one_that_limits_the_same() -> None:
    made = scenario("--budget", "failures=1%", "--budget", "throughput=-5%", "--budget", "p99=1s")
    assert [one.title for one in made.budgets] == ["throughput 95%", "failures 1%", "throughput -5%", "p99 1s"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "0"), "--rate: more than 0"),
        (("--seconds", "0.5"), "--seconds: 1 or more"),
        (("--budget", "p99"), "--budget: 'p99' is not NAME=VALUE"),
        (("--budget", "p99=x"), "--budget: 'x' is not a time"),
        (("--shape", "x=a"), "--shape: 'a' is not sizes"),
        (("--inputs", "a", "--log", "b"), "--inputs and --log: one of them"),
        (("--versions", "1,2"), "--versions: two different ones, of a scenario that changes routes"),
        (("--processes", "0"), "--processes: 1 or more"),
        (("--bytes", "1MB"), "--bytes: '1MB' is not a size"),
        (("--baseline", "nosuch.json"), "--baseline: nosuch.json: No such file"),
    ],
)
def test_what_cannot_be_meant_is_usage(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "steady", "--model", "m", *words]) == RunExit.USAGE
    assert said in capsys.readouterr().err
