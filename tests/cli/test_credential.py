"""The token of a command: from a file or the environment, and never readable on its way to another host."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.cli.exits import Exit
from gateway.loopback import is_this_host
from tests.cli.tree import COMMANDS, options

SECRET = "gwt_secret"


def run(*words: str, **variables: str) -> Result:
    return CliRunner().invoke(app, list(words), env=variables)


def test_no_command_takes_a_token_as_an_argument() -> None:
    # That of `feedback send` names a request, and nobody.
    assert {words for words in COMMANDS if "token" in options(COMMANDS[words])} == {("feedback", "send")}


def test_a_token_is_not_sent_in_plain_text_to_another_host(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(SECRET)
    for words, variables in (
        ((), {"GATEWAY_TOKEN": SECRET}),
        ((), {"GATEWAY_TOKEN_FILE": str(tmp_path / "mine")}),
        (("--token-file", str(tmp_path / "mine")), {}),
    ):
        done = run("models", "--server", "192.0.2.1:8001", *words, **variables)
        assert done.exit_code == Exit.USAGE
        assert "the token would be sent in plain text to 192.0.2.1:8001: use TLS (--tls-ca)" in done.output
        assert SECRET not in done.output


@pytest.mark.parametrize(
    ("content", "said"), [("", "holds no token"), ("\n", "holds no token"), ("a b", "something else"), ("ü", "else")]
)
def test_a_file_that_holds_no_token(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "mine").write_text(content)
    done = run("models", "--token-file", str(tmp_path / "mine"))
    assert (done.exit_code, said in done.output) == (Exit.USAGE, True)


def test_a_file_that_is_not_there() -> None:
    done = run("models", "--token-file", "/no/such")
    assert (done.exit_code, "cannot read /no/such" in done.output) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("server", "here"),
    [
        ("127.0.0.1:8001", True),
        ("127.9.9.9:1", True),
        ("[::1]:8001", True),
        ("localhost:8001", True),
        ("unix:/run/gateway.sock", True),
        ("10.0.0.1:8001", False),
        ("localhost.evil.example:8001", False),
        ("127.0.0.1.evil.example:8001", False),
        ("[::]:8001", False),
        ("0.0.0.0:8001", False),
        ("dns:///127.0.0.1:8001", False),
        ("", False),
    ],
)
def test_which_addresses_are_this_host(server: str, here: bool) -> None:
    assert is_this_host(server) is here
