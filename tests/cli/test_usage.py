"""The command line without a gateway: its help, what it refuses by itself, and nobody being there."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import gateway
from gateway.cli.app import app
from gateway.pb import control_pb2
from tests.cli.tree import COMMANDS, options

CLI = "".join(path.read_text("utf-8") for path in Path(gateway.__file__).with_name("cli").glob("*.py"))
DOCUMENT = """
apiVersion: gateway/v1
kind: Route
metadata: {model: digits}
spec: {arms: {a: {version: "1"}, b: {version: "2"}}, strategy: {ab: {control: a, weights: {a: 50%, b: 49%}}}}
"""


def run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=text)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert f"Example: gateway {' '.join(words)}" in re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_that_asks_a_server_can_do_so_by_tls(words: tuple[str, ...]) -> None:
    tls = {"tls_ca", "tls_cert", "tls_key", "tls_name", "token_file", "insecure", "connect_timeout"}
    named = options(COMMANDS[words])
    assert named >= tls if "server" in named else words in (("serve",), ("doctor",)) or not named & tls


@pytest.mark.parametrize("words", [words for words in COMMANDS if "server" in options(COMMANDS[words])], ids=" ".join)
def test_a_command_that_asks_a_server_has_an_output_for_programs(words: tuple[str, ...]) -> None:
    assert options(COMMANDS[words]) & {"output", "json_out"}  # a report is written to files


def test_half_a_certificate_and_a_missing_file_are_usage_errors() -> None:
    half = run("models", "--tls-cert", "me.pem")
    assert (half.exit_code, "--tls-cert and --tls-key need each other" in half.stderr) == (2, True)
    missing = run("models", "--tls-ca", "/no/such.pem")
    assert (missing.exit_code, "cannot read /no/such.pem" in missing.stderr) == (2, True)
    assert run("version", "--server", "", "--tls-cert", "me.pem").exit_code == 0  # nobody is asked


def test_the_help_names_the_exit_codes() -> None:
    assert "3 not reachable" in re.sub(r"\s+", " ", run("--help").output)


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-command"],
        ["rollback"],
        ["models", "--no-such-option"],
        ["models", "-o", "xml"],
        ["routes", "history", "digits", "--limit", "0"],
        ["routes", "apply", "-f", "/no/such/file.yaml"],
        ["serve", "--workers", "many"],
        ["serve", "--grpc-port", "70000"],
        ["serve", "--host", "0.0.0.0"],
    ],
    ids=" ".join,
)
def test_usage_errors_end_with_two(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def test_a_wrong_document_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "route.yaml"
    path.write_text(DOCUMENT)
    result = run("routes", "apply", "-f", str(path), "--server", "127.0.0.1:1")
    assert result.exit_code == 2
    assert "spec.strategy.ab.weights: weights sum to 99 %" in result.output


@pytest.mark.parametrize("method", sorted(control_pb2.DESCRIPTOR.services_by_name["Control"].methods_by_name))
def test_a_command_calls_every_method_of_control(method: str) -> None:
    assert re.search(rf"\.{method}\b|\"{method}\"", CLI)


def test_a_document_comes_from_standard_input_too() -> None:
    result = run("routes", "apply", "-f", "-", text=DOCUMENT)
    assert result.exit_code == 2
    assert "weights sum to 99 %" in result.output


def test_nobody_there_ends_with_three() -> None:
    result = run("models", "--server", "127.0.0.1:1", "--connect-timeout", "0.3")
    assert result.exit_code == 3
    assert "no gateway answers at 127.0.0.1:1" in result.output


def test_the_configuration_in_force_is_printed_without_secrets_and_can_be_read_again(tmp_path: Path) -> None:
    words = ["serve", "--model-repository", str(tmp_path), "--data-dir", str(tmp_path / "data"), "--print-config"]
    result = run(*words, "--workers", "3", "--redis-url", "redis://me:s3cret@store:1/0")
    assert (result.exit_code, "s3cret" in result.output) == (0, False)
    assert "redis-url: redis://me:***@store:1/0" in result.output
    file = tmp_path / "gateway.yaml"
    file.write_text(result.stdout.replace("***", "other"))
    again = run("serve", "--config", str(file), "--print-config")
    assert again.stdout == result.stdout
    assert not (tmp_path / "data").exists()


def test_the_version_is_an_option_too() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"gateway {gateway.__version__}\n")


def test_the_version_needs_no_gateway() -> None:
    result = run("version", "-o", "json")
    assert result.exit_code == 0
    assert '"gateway": "0.1.0"' in result.output


def test_serve_does_not_start_without_its_repository(tmp_path: Path) -> None:
    result = run("serve", "--model-repository", str(tmp_path / "absent"), "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert "absent' is not a directory: make it, mount its volume" in " ".join(result.output.split())
