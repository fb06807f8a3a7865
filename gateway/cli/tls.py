"""TLS and token of a command's connection: options that every command with `--server` has."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer
from typer.core import TyperCommand

from gateway.cli.credential import TOKEN_VARIABLE, chosen_credential, read_credential
from gateway.cli.exits import Exit, Failure


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Holds the authorities that a client trusts and the certificate it shows; without either it speaks plain text."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str = ""

    def channel(self, server: str) -> grpc.Channel:
        """Returns a channel to `server`. Raises: Failure for a file that cannot be read, and half a pair."""
        if self == ClientTls():
            return grpc.insecure_channel(server)
        if (self.certificate is None) != (self.key is None):
            raise Failure(Exit.USAGE, "--tls-cert and --tls-key need each other")
        credentials = grpc.ssl_channel_credentials(_content(self.ca), _content(self.key), _content(self.certificate))
        named = [("grpc.ssl_target_name_override", self.name)] if self.name else []
        return grpc.secure_channel(server, credentials, options=named)


PLAIN: Final = ClientTls()
chosen: ContextVar[ClientTls] = ContextVar("tls", default=PLAIN)
_options = typer.Typer(add_completion=False)


# The variables are not GATEWAY_TLS_KEY and so on: those belong to the server, which may run on the same host.
@_options.command()
def choose(
    context: typer.Context,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="GATEWAY_CLI_TLS_CA", help="PEM authorities that sign the server's certificate; else the system's."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="GATEWAY_CLI_TLS_CERT", help="PEM certificate to show to the server.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="GATEWAY_CLI_TLS_KEY", help="PEM key of that certificate.")
    ] = None,
    tls_name: Annotated[
        str,
        typer.Option(
            envvar="GATEWAY_CLI_TLS_NAME",
            help="The name in the server's certificate, where --server has another one.",
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="GATEWAY_TOKEN_FILE",
            help=f"Holds the token that says who you are; or {TOKEN_VARIABLE} in the environment.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send the token in plain text to another host, too.")
    ] = False,
) -> None:
    """Makes every connection of the command use this TLS and this token, until the command ends."""
    before = chosen.set(ClientTls(tls_ca, tls_cert, tls_key, tls_name))
    context.call_on_close(lambda: chosen.reset(before))
    anonymous = chosen_credential.set(read_credential(token_file, insecure=insecure))
    context.call_on_close(lambda: chosen_credential.reset(anonymous))


_CHOOSE: Final = typer.main.get_command(_options)


class ServerCommand(TyperCommand):
    """Adds the options of `choose` to those of a command that has `--server`."""

    def __init__(self, name: str | None, *, params: Sequence[Any], **settings: Any) -> None:
        has_server = any(parameter.name == "server" for parameter in params)
        self._tls = _CHOOSE.params if has_server else []
        super().__init__(name, params=[*params, *self._tls], **settings)

    def invoke(self, ctx: Any) -> Any:
        given = {str(option.name): ctx.params.pop(option.name) for option in self._tls}
        if given and _CHOOSE.callback is not None:
            _CHOOSE.callback(**given)
        return super().invoke(ctx)


def _content(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {path}: {error.strerror}") from None
