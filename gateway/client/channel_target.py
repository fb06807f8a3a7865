"""Where a gateway is and how to reach it: addresses, TLS, the retries and the balancing of the channel."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from gateway.loopback import is_this_host

MAX_ATTEMPTS: Final = 4
INITIAL_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 1.0
BACKOFF_MULTIPLIER: Final = 3
# Repeating is safe: a call that ends so was not answered. docs/examples/service-config.json says the same.
SERVICE_CONFIG: Final[dict[str, Any]] = {
    "methodConfig": [
        {
            "name": [
                {"service": "inference.GRPCInferenceService", "method": method}
                for method in ("ModelInfer", "ModelMetadata", "ModelReady", "ServerReady")
            ],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": f"{INITIAL_BACKOFF_S:g}s",
                "maxBackoff": f"{MAX_BACKOFF_S:g}s",
                "backoffMultiplier": BACKOFF_MULTIPLIER,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
# By the load that hosts report; those that report none get equal shares. Source: gRPC proposals A58, A51.
_BALANCING: Final = {
    "loadBalancingConfig": [
        {"weighted_round_robin": {"blackoutPeriod": "1s", "weightUpdatePeriod": "1s"}},
        {"round_robin": {}},
    ]
}
_MESSAGE_BYTES: Final = (1 << 31) - 1  # the server's limit counts


@dataclass(frozen=True, slots=True)
class ChannelTls:
    """Files of PEM: the authorities that the client trusts (None: the system's), the certificate it shows and its key.

    `name` is the name in the server's certificate, where the address has another one.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class ChannelTarget:
    """The hosts of a gateway, and how their channel is made. Raises: ValueError at once for what cannot work."""

    hosts: tuple[str, ...]
    tls: ChannelTls | None = None
    connections: int = 1

    def address(self) -> str:
        """Returns the address in gRPC's form. One name may stand for many hosts; several names are looked up now.

        Raises: ValueError (a name without an address; addresses of both families).
        """
        if len(self.hosts) == 1:
            host = self.hosts[0]
            return host if "://" in host or host.startswith("unix:") else f"dns:///{host}"
        families: dict[str, list[str]] = {}
        for host in self.hosts:
            name, port = _split(host)
            try:
                infos = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
            except OSError as error:
                raise ValueError(f"no address of {host!r}: {error.strerror or error}") from None
            family, _, _, _, address = infos[0]
            scheme = "ipv6" if family == socket.AF_INET6 else "ipv4"
            place = f"[{address[0]}]:{port}" if scheme == "ipv6" else f"{address[0]}:{port}"
            families.setdefault(scheme, []).append(place)
        if len(families) > 1:
            raise ValueError(f"{', '.join(self.hosts)}: addresses of IPv4 and IPv6 do not go into one list")
        [(scheme, places)] = families.items()
        return f"{scheme}:{','.join(places)}"

    def options(self) -> list[tuple[str, Any]]:
        """Returns the options of a channel; each has connections of its own, for the kernel gives each one worker."""
        config = SERVICE_CONFIG | _BALANCING
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", json.dumps(config)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            # gRPC repeats no call that has sent more than this, 256 KiB by default; it is what the call holds anyway.
            ("grpc.per_rpc_retry_buffer_size", _MESSAGE_BYTES),
        ]
        if self.tls is not None and self.tls.name:
            options.append(("grpc.ssl_target_name_override", self.tls.name))
        elif len(self.hosts) > 1:
            options.append(("grpc.default_authority", self.hosts[0]))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Returns what the channel is secured with, None for plain text. Raises: OSError (a file)."""
        if self.tls is None:
            return None
        ca, key, certificate = (_content(path) for path in (self.tls.ca, self.tls.key, self.tls.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


def target_of(
    server: str | Sequence[str], *, tls: ChannelTls | None, token: str, insecure: bool, connections: int
) -> ChannelTarget:
    """Returns the target that the arguments of a client describe.

    Raises: ValueError (no host, half a pair of files, a token that would be sent in plain text to another host).
    """
    hosts = (server,) if isinstance(server, str) else tuple(server)
    if not hosts or not all(hosts):
        raise ValueError("server is empty: give host:port, or several of them")
    for host in hosts:
        if not host.startswith("unix") and "://" not in host:
            _split(host)
    if tls is not None and (tls.certificate is None) != (tls.key is None):
        raise ValueError("tls.certificate and tls.key need each other")
    if connections < 1:
        raise ValueError(f"connections is {connections}, it must be 1 or more")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("token holds something else than one token")
    check_secrecy(hosts, token=token, secure=tls is not None, insecure=insecure)
    return ChannelTarget(hosts, tls, connections)


def check_secrecy(hosts: Sequence[str], *, token: str, secure: bool, insecure: bool) -> None:
    """Raises: ValueError where the token would travel in plain text to another host, and nobody accepted that."""
    far = [host for host in hosts if not is_this_host(host)]
    if token and far and not secure and not insecure:
        raise ValueError(
            f"the token would be sent in plain text to {far[0]}: give tls, or insecure=True to accept that everybody "
            "on the way can read it"
        )


def _split(host: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    if not (colon and name and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{host!r} is no host:port")
    return name.strip("[]"), port


def _content(path: Path | str | None) -> bytes | None:
    return Path(path).read_bytes() if path is not None else None
