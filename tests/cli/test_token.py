"""`gateway token`: made once, shown once, listed without the secret, revoked."""

import json
import threading
from pathlib import Path

from typer.testing import CliRunner, Result

from gateway.access.principal import Grant, Role
from gateway.access.token_file import parse_tokens
from gateway.cli.app import app
from gateway.cli.exits import Exit


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["token", *words])


def test_a_token_is_shown_once_and_the_file_keeps_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    roles = ("--role", "operator", "--role", "infer", "--models", "fraud*,risk")
    made = run("new", *roles, "--expires", "90d", "-f", str(file))
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    known = parse_tokens(file.read_text()).find(token.encode())
    assert known is not None
    assert known.grants == (Grant(Role.OPERATOR, ("fraud*", "risk")), Grant(Role.INFER, ("fraud*", "risk")))
    assert known.expires_s > 0


def test_without_a_file_the_line_is_printed(tmp_path: Path) -> None:
    made = run("new", "--role", "reader", "--name", "scraper", "--tenant", "acme")
    token, line = made.stdout.strip(), made.stderr.splitlines()[-1]
    known = parse_tokens(line).find(token.encode())
    assert known is not None
    assert (known.name, known.tenant, known.expires_s) == ("scraper", "acme", 0.0)


def test_tokens_are_listed_and_revoked(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    for name in ("ci", "batch"):
        assert run("new", "--role", "infer", "--name", name, "-f", str(file)).exit_code == 0
    file.chmod(0o640)
    listed = json.loads(run("list", "-f", str(file), "-o", "json").stdout)
    assert [one["name"] for one in listed] == ["ci", "batch"]
    assert run("revoke", "ci", "-f", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o640
    assert [token.name for token in parse_tokens(file.read_text())] == ["batch"]
    again = run("revoke", "ci", "-f", str(file))
    assert (again.exit_code, "there is no token of the name 'ci'" in again.output) == (Exit.USAGE, True)


def test_many_at_once_lose_no_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens"

    def add(name: str) -> None:
        app(["token", "new", "--role", "infer", "--name", name, "-f", str(file)], standalone_mode=False)

    threads = [threading.Thread(target=add, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in parse_tokens(file.read_text())} == {f"t{number}" for number in range(8)}


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("oops\n")
    for words, said in (
        (("new", "--role", "root"), "'root'"),
        (("new", "--role", "infer", "--models", "a/b"), "model pattern 'a/b'"),
        (("new", "--role", "infer", "--expires", "soon"), "--expires 'soon'"),
        (("new", "--role", "infer", "--name", "a b"), "--name 'a b', allowed:"),
        (("new", "--role", "infer", "-f", str(tmp_path / "broken")), "line 1:"),
        (
            ("new", "--role", "infer", "-f", "/no/such/place/tokens"),
            "/no/such/place/tokens: its directory cannot",
        ),
        (("new", "--role", "infer", "-f", str(tmp_path)), f"{tmp_path}: it cannot be read"),
        (("revoke", "ci", "-f", "/no/such/place/tokens"), "/no/such/place/tokens: its directory cannot"),
        (("revoke", "ci", "-f", str(tmp_path / "broken")), "the first word is not sha256:"),
        (("list",), "name the file of --access-tokens"),
        (("list", "-f", "/no/such"), "there is no such file"),
        (("list", "-f", str(tmp_path / "broken")), "line 1:"),
    ):
        done = run(*words)
        assert done.exit_code == Exit.USAGE, words
        assert said in done.output
        if "-f" in words:
            assert done.output.count(words[-1]) == 1
