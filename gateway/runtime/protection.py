"""What protects the gRPC port: its certificate, and whether clients must show theirs."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from gateway.errors import InvalidArgument
from gateway.rpc.server_certificate import TlsFiles, check_dates, read
from gateway.runtime.option import Setting
from gateway.runtime.option_value import MAYBE_PATH


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """PEM files of the port's identity; without a certificate it speaks plain text."""

    certificate: Annotated[
        Path | None,
        Setting("PEM chain that clients are shown; gRPC by TLS.", MAYBE_PATH, name="tls-certificate"),
    ] = None
    key: Annotated[
        Path | None, Setting("PEM key of that certificate, not encrypted.", MAYBE_PATH, name="tls-key")
    ] = None  # fmt: skip
    client_ca: Annotated[
        Path | None,
        Setting("PEM authorities of clients, who must show theirs.", MAYBE_PATH, name="tls-client-ca"),
    ] = None

    @property
    def files(self) -> TlsFiles | None:
        if self.certificate is None or self.key is None:
            return None
        return TlsFiles(self.certificate, self.key, self.client_ca)

    @property
    def mutual(self) -> bool:
        """Whether only clients that show a certificate are let in."""
        return self.files is not None and self.client_ca is not None

    def proven(self, now_s: float) -> "TlsOptions":
        """Returns the options with absolute paths, once their files were read.

        Raises: InvalidArgument if no client would take what they hold.
        """
        tls = replace(self, **{name: path.absolute() for name, path in asdict(self).items() if path is not None})
        if tls.files is not None:
            check_dates(read(tls.files), tls.files, now_s)
        return tls


def check_protection(tls: TlsOptions, option: str, host: str, *, reachable: bool, insecure: bool, tokens: bool) -> None:
    """Raises: InvalidArgument for half an identity, and where strangers could connect unasked, or read tokens."""
    if (tls.certificate is None) != (tls.key is None) or (tls.client_ca is not None and tls.certificate is None):
        raise InvalidArgument("tls-certificate and tls-key need each other, and tls-client-ca needs both")
    if reachable and not (tls.mutual or insecure or (tokens and tls.files is not None)):
        if tokens:
            lacking = "tokens could be read on their way"
        else:
            lacking = "nobody has to say who he is" if tls.files is not None else "nothing protects the gateway"
        raise InvalidArgument(
            f"{option} is {host!r}, which other hosts can reach, and {lacking} there: listen on 127.0.0.1, ask clients "
            "for certificates (--tls-certificate, --tls-key and --tls-client-ca) or for tokens by TLS (--access-tokens "
            "or --jwt-keys with --tls-certificate and --tls-key), or give --insecure to accept that"
        )


def exposure(tls: TlsOptions, host: str, at_metrics: str, metrics_port: int, *, tokens: bool) -> str:
    """Returns what strangers can do where other hosts can connect, "" for nothing; to be read at the start.

    `at_metrics` is the address of the operators' port, "" where other hosts do not reach it.
    """
    apart = "--metrics-address 127.0.0.1 keeps it on this host, for a proxy with TLS"
    if tokens and tls.files is None:
        return f"there is no TLS: whoever is on the way to {at_metrics or host} can read the tokens that are sent to it"
    if tokens and at_metrics:
        what = f"whoever is on the way to {at_metrics} can read the tokens that are sent to it"
        return f"metrics-port {metrics_port} has no TLS: {what}; {apart}"
    if tls.mutual and at_metrics:
        what = f"everyone who can connect to {at_metrics} reads metrics, health and events there, without TLS and login"
        return f"metrics-port {metrics_port}: {what}; {apart}"
    if tokens or tls.mutual:
        return ""
    lacking = "there is no login" if tls.files is not None else "there is no TLS and no login"
    return f"--insecure: everyone who can connect to {at_metrics or host} is an operator; {lacking}"
