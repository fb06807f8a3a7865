"""TLS of a command's connection: options that every command with `--server` has."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer

from gateway.cli.exits import Exit, Failure


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

_PARAMETERS: Final = {
    "tls_ca": (Path | None, "--tls-ca", "PEM authorities that sign the server's certificate; else the system's."),
    "tls_cert": (Path | None, "--tls-cert", "PEM certificate to show to the server."),
    "tls_key": (Path | None, "--tls-key", "PEM key of that certificate."),
    "tls_name": (str, "--tls-name", "The name in the server's certificate, where --server has another one."),
}


def reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the options of TLS, if it has `--server`; they hold for every connection that it makes."""
    signature = inspect.signature(command)
    if "server" not in signature.parameters:
        return command

    @functools.wraps(command)
    def run(
        *,
        tls_ca: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tls_name: str = "",
        **given: Any,
    ) -> Any:
        with _choice(Tls(tls_ca, tls_cert, tls_key, tls_name)):
            return command(**given)

    parameters = [*signature.parameters.values(), *(_parameter(name) for name in _PARAMETERS)]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@contextmanager
def _choice(tls: Tls) -> Iterator[None]:
    token = chosen.set(tls)
    try:
        yield
    finally:
        chosen.reset(token)


def _parameter(name: str) -> inspect.Parameter:
    kind, flag, text = _PARAMETERS[name]
    # Not GATEWAY_TLS_KEY, which is the server's own where both run on one host.
    option = typer.Option(flag, help=text, envvar=f"GATEWAY_CLI_{name.upper()}")
    default = "" if kind is str else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _content(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {path}: {error.strerror}") from None
