"""The server under test: its addresses, how connections to it are secured, and who calls."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc

from gateway.cli.credential import Credential
from gateway.client import ChannelTls
from gateway.client.channel_target import check_secrecy, target_of
from gateway.errors import InvalidArgument


class TargetFailed(Exception):
    """The server is not there, does not know the model, or is not what the scenario needs; the text says which."""


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """Where calls go. `rest` and `control` are host:port as `server` is; files are PEM.

    `secure` without `ca` trusts the system's authorities. The token is never shown.
    """

    server: str
    rest: str = ""
    control: str = ""
    secure: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    name: str = ""
    token: str = field(default="", repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        for label, address in (("--server", self.server), ("--rest", self.rest), ("--control", self.control)):
            host, colon, port = address.rpartition(":")
            if address and not (host and colon and port.isdigit() and 0 < int(port) < 1 << 16):
                raise InvalidArgument(f"{label}: {address!r} is no host:port")
        if bool(self.certificate) != bool(self.key):
            raise InvalidArgument("--tls-cert and --tls-key need each other")
        for label, path in (("--tls-ca", self.ca), ("--tls-cert", self.certificate), ("--tls-key", self.key)):
            if path and not Path(path).is_file():
                raise InvalidArgument(f"{label}: there is no file {path!r}")
        try:
            hosts = [address for address in (self.server, self.rest, self.control) if address]
            check_secrecy(hosts, token=self.token, secure=self.secure, insecure=self.insecure)
        except ValueError as error:
            text = str(error).replace("give tls, or insecure=True", "use TLS (--tls or --tls-ca), or give --insecure")
            raise InvalidArgument(text) from None

    def tls_context(self, protocol: str) -> ssl.SSLContext | None:
        """Returns what secures a connection of this protocol (of ALPN), None for plain text.

        Raises: InvalidArgument.
        """
        if not self.secure:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"the TLS files cannot be used: {error}") from None
        context.set_alpn_protocols([protocol])
        return context

    def address_of(self, protocol: str) -> tuple[str, int]:
        """Returns host and port that calls of a traffic's protocol go to. Raises: InvalidArgument."""
        address = self.rest if protocol.startswith("rest") else self.server
        if not address:
            raise InvalidArgument("REST traffic needs --rest HOST:PORT")
        host, _, port = address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def authorization(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    @contextmanager
    def channel(self, address: str = "") -> Iterator[grpc.Channel]:
        """Yields a channel that carries the token: to `address`, or the gRPC server."""
        tls = None
        if self.secure:
            tls = ChannelTls(self.ca or None, self.certificate or None, self.key or None, self.name)
        where = target_of(address or self.server, tls=tls, token="", insecure=True, connections=1)
        credentials = where.credentials()
        options = [("grpc.use_local_subchannel_pool", 1)]
        if self.name:
            options.append(("grpc.ssl_target_name_override", self.name))  # type: ignore[arg-type]
        plain = (
            grpc.insecure_channel(address or self.server, options=options)
            if credentials is None
            else grpc.secure_channel(address or self.server, credentials, options=options)
        )
        with plain:
            yield Credential(self.token, insecure=True).joined_to(plain)

    def as_json(self) -> dict[str, Any]:
        """Returns all of it, the token among it: for the pipe to a sender."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "LoadTarget":
        return cls(**said)


def call_text(error: grpc.RpcError) -> str:
    """Returns code and text of a call that failed."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
