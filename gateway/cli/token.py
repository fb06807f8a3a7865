"""`gateway token`: static tokens of callers, of which the gateway's file holds hashes only."""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.access.principal import Grant, Role, check_pattern
from gateway.access.token_file import (
    NAME,
    StaticToken,
    date_text,
    digest_of,
    parse_line,
    parse_tokens,
    random_token,
    without,
)
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, say, show
from gateway.cli.shared_options import Output
from gateway.errors import GatewayError, InvalidArgument
from gateway.page.message_values import Value

_UNITS_S: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([mhdw])", re.ASCII)
TokensFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The file of --access-tokens.", envvar="GATEWAY_ACCESS_TOKENS"),
]

app = typer.Typer(help="Tokens by which callers prove who they are.", no_args_is_help=True)


@app.command(epilog="Example: gateway token new --role operator --models 'fraud*' --expires 90d -f tokens")
def new(
    role: Annotated[
        list[Role], typer.Option("--role", help="What the bearer may do; once for each role.", show_default=False)
    ],
    models: Annotated[
        str, typer.Option("--models", help="On these models, with commas between; * is any characters.")
    ] = "*",
    name: Annotated[str, typer.Option("--name", help="Who bears it, for history and log; else from its hash.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant that the bearer belongs to.")] = "",
    expires: Annotated[str, typer.Option("--expires", help="How long it is valid, such as 90d; else for ever.")] = "",
    file: TokensFile = None,
) -> None:
    """Makes a token, prints it once, and adds its line to the file, or prints that as well."""
    try:
        if name and NAME.fullmatch(name) is None:
            raise InvalidArgument(f"--name {name[:64]!r}, allowed: {NAME.pattern}")
        until_s = time.time() + _duration_s(expires) if expires else 0.0
        patterns = tuple(check_pattern(pattern) for pattern in models.split(","))
        token = random_token()
        digest = digest_of(token.encode())
        grants = tuple(Grant(one, patterns) for one in role)
        made = StaticToken(digest, name or f"token-{digest.hex()[:8]}", grants, tenant, float(int(until_s)))
        line = made.to_line()
        parse_line(line)
        if file is not None:
            with _changed(file):
                text = _read(file, missing_is_empty=True)
                parse_tokens(text)
                _write(file, text + ("" if text.endswith("\n") or not text else "\n") + line + "\n")
    except GatewayError as error:
        raise Failure(Exit.USAGE, str(error)) from None
    typer.echo(token)
    if file is None:
        say("Add this line to the file of --access-tokens:")
        say(line)
    else:
        say(f"{made.name} was added to {file}. This is the only time that the token is shown.")


@app.command("list", epilog="Example: gateway token list -f tokens")
def list_(file: TokensFile = None, output: Output = Format.TABLE) -> None:
    """Lists the tokens of the file: whose they are and what they allow; a token itself is nowhere to be read."""
    path = _named(file)
    with _named_in_errors(path):
        tokens = list(parse_tokens(_read(path)))
    show(
        [_value(token) for token in tokens],
        output,
        columns=("NAME", "HASH", "ROLES", "MODELS", "TENANT", "EXPIRES"),
        rows=[_row(token) for token in tokens],
    )


@app.command(epilog="Example: gateway token revoke ci-deploy -f tokens")
def revoke(
    name: Annotated[str, typer.Argument(help="The name of the token, or how its hash begins.")], file: TokensFile = None
) -> None:
    """Takes tokens off the file. A gateway that reads it refuses them within seconds."""
    path = _named(file)
    with _changed(path):
        _write(path, without(_read(path), name))
    say(f"{name} was revoked in {path}")


def _value(token: StaticToken) -> dict[str, Value]:
    return {
        "name": token.name,
        "hash": token.digest.hex()[:12],
        "roles": [grant.role.value for grant in token.grants],
        "models": list(token.grants[0].models),
        "tenant": token.tenant,
        "expires": date_text(token.expires_s) if token.expires_s else "",
    }


def _row(token: StaticToken) -> list[Value]:
    roles, models = ", ".join(grant.role for grant in token.grants), ", ".join(token.grants[0].models)
    expires = date_text(token.expires_s) if token.expires_s else "never"
    return [token.name, token.digest.hex()[:12], roles, models, token.tenant, expires]


def _duration_s(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"--expires {text[:32]!r}, allowed: a number with m, h, d or w, such as 90d")
    return int(match[1]) * _UNITS_S[match[2]]


def _named(file: Path | None) -> Path:
    if file is None:
        raise Failure(Exit.USAGE, "--file: name the file of --access-tokens, or set GATEWAY_ACCESS_TOKENS")
    return file


def _read(path: Path, *, missing_is_empty: bool = False) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if missing_is_empty:
            return ""
        raise InvalidArgument("there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"it cannot be read: {getattr(error, 'strerror', 'no text')}") from None


def _write(path: Path, text: str) -> None:
    """Replaces the file as a whole, so that a gateway never reads half of it; only its owner can read a new one."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        staged.touch(0o600)
        staged.write_text(text, encoding="utf-8")
        staged.chmod(mode)
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise InvalidArgument(f"it cannot be written: {error.strerror}") from None


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    """Names the file before what is wrong with it."""
    try:
        yield
    except GatewayError as error:
        raise Failure(Exit.USAGE, f"{path}: {error}") from None


@contextmanager
def _changed(path: Path) -> Iterator[None]:
    """Keeps other commands from writing the file meanwhile, and names it before what is wrong with it."""
    with _named_in_errors(path):
        try:
            descriptor = os.open(path.absolute().parent, os.O_RDONLY)
        except OSError as error:
            raise InvalidArgument(f"its directory cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
