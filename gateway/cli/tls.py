"""TLS of a command's connection: options that every command with `--server` has."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.signature import Command, extended, option


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client trusts, and shows; plain text if nothing is given."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str = ""

    def channel(self, server: str) -> grpc.Channel:
        """A channel to `server`. Raises: Failure for a file that cannot be read, and half a pair."""
        if self == Tls():
            return grpc.insecure_channel(server)
        if (self.certificate is None) != (self.key is None):
            raise Failure(Exit.USAGE, "--tls-cert and --tls-key need each other")
        credentials = grpc.ssl_channel_credentials(_content(self.ca), _content(self.key), _content(self.certificate))
        named = [("grpc.ssl_target_name_override", self.name)] if self.name else []
        return grpc.secure_channel(server, credentials, options=named)


PLAIN: Final = Tls()
chosen: ContextVar[Tls] = ContextVar("tls", default=PLAIN)


def _option(name: str, kind: object, default: object, text: str) -> inspect.Parameter:
    # Not GATEWAY_TLS_KEY, which is the server's own where both run on one host.
    flag, variable = f"--{name.replace('_', '-')}", f"GATEWAY_CLI_{name.upper()}"
    return option(name, Annotated[kind, typer.Option(flag, help=text, envvar=variable)], default)


_SHARED: Final = (
    _option("tls_ca", Path | None, None, "PEM authorities that sign the server's certificate; else the system's."),
    _option("tls_cert", Path | None, None, "PEM certificate to show to the server."),
    _option("tls_key", Path | None, None, "PEM key of that certificate."),
    _option("tls_name", str, "", "The name in the server's certificate, where --server has another one."),
)


def reaching(command: Command) -> Command:
    """The command with the options of TLS, if it has `--server`; they hold for every connection that it makes."""
    if "server" not in inspect.signature(command).parameters:
        return command

    def run(own: Mapping[str, Any], common: Mapping[str, Any]) -> None:
        tls = Tls(common["tls_ca"], common["tls_cert"], common["tls_key"], common["tls_name"])
        with _choice(tls):
            command(**own)

    return extended(command, _SHARED, run)


@contextmanager
def _choice(tls: Tls) -> Iterator[None]:
    token = chosen.set(tls)
    try:
        yield
    finally:
        chosen.reset(token)


def _content(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {path}: {error.strerror}") from None
