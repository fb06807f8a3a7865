"""A command's connection: TLS, token, patience; options that every command with `--server` has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import grpc
import typer

from gateway.cli.credential import NO_CREDENTIAL, TOKEN_VARIABLE, Credential, read_credential
from gateway.cli.exits import Exit, Failure
from gateway.cli.option_set import ExtendedCommand, OptionSet


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


@dataclass(frozen=True, slots=True)
class Connecting:
    """Holds how a command connects to its server. Units: `limit_s` until it gives up."""

    tls: ClientTls = PLAIN
    credential: Credential = NO_CREDENTIAL
    limit_s: float = 5.0


# The variables are not GATEWAY_TLS_KEY and so on: those belong to the server, which may run on the same host.
def connecting(
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
    connect_timeout: Annotated[
        float,
        typer.Option(envvar="GATEWAY_CLI_CONNECT_TIMEOUT", help="Seconds to wait for a connection.", min=0.1, max=600),
    ] = 5.0,
) -> Connecting:
    """Returns how every connection of the command is made."""
    credential = read_credential(token_file, insecure=insecure)
    return Connecting(ClientTls(tls_ca, tls_cert, tls_key, tls_name), credential, connect_timeout)


CONNECTING: Final = OptionSet(connecting)


class ServerCommand(ExtendedCommand):
    """Adds the options of a connection to a command that has `--server`."""

    sets: ClassVar[tuple[OptionSet[Any], ...]] = (CONNECTING,)

    def adds(self, one: OptionSet[Any], params: Sequence[Any]) -> bool:
        added = [option for other in self.sets if other is not CONNECTING for option in other.params]
        return one is not CONNECTING or any(option.name == "server" for option in (*params, *added))


def _content(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {path}: {error.strerror}") from None
