"""The token that a command sends: from a file or the environment, never an argument, which every user could read."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from gateway.cli.exits import Exit, Failure
from gateway.loopback import is_this_host

TOKEN_VARIABLE: Final = "GATEWAY_TOKEN"
_LIMIT: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, "" for none; `insecure` allows it to be sent where everybody on the way can read it."""

    token: str = field(default="", repr=False)
    insecure: bool = False

    def check(self, server: str, *, secure: bool) -> None:
        """Raises: Failure where the token would travel in plain text to another host."""
        if self.token and not (secure or self.insecure or is_this_host(server)):
            raise Failure(
                Exit.USAGE,
                f"the token would be sent in plain text to {server}: use TLS (--tls-ca), or give --insecure to accept "
                "that everybody on the way can read it",
            )

    def joined_to(self, channel: grpc.Channel) -> grpc.Channel:
        """Returns a channel whose calls carry the token. Order: after `check`."""
        return grpc.intercept_channel(channel, _Sender(self.token)) if self.token else channel


NO_CREDENTIAL: Final = Credential()


def read_credential(token_file: Path | None, *, insecure: bool) -> Credential:
    """Returns the token of the file, else that of the environment. Raises: Failure."""
    token, where = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
    if token_file is not None:
        where = str(token_file)
        try:
            with token_file.open(encoding="utf-8") as file:
                token = file.read(_LIMIT)
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(Exit.USAGE, f"cannot read {where}: {getattr(error, 'strerror', 'no text')}") from None
        if not token.strip():
            raise Failure(Exit.USAGE, f"{where} holds no token")
    token = token.strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise Failure(Exit.USAGE, f"{where} holds something else than one token")
    return Credential(token, insecure)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Sender(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the header `authorization` to every call."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)

    def _with_token(self, details: Any) -> Any:
        metadata = (*(details.metadata or ()), self._header)
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
