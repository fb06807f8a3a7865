"""What a client is made with, and what its calls may be given: the same for both clients."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict, Unpack

from gateway.client.channel_target import ChannelTarget, ChannelTls, target_of
from gateway.client.inference_call import InferenceCall, Inputs, ParameterValue
from gateway.client.rest_calls import RestCalls

LOCAL: Final = "127.0.0.1:8001"
_KEY_METADATA: Final = "x-user-id"
_TIMEOUT_S: Final = 10.0
_CONNECT_S: Final = 2.0


class ClientOptions(TypedDict, total=False):
    """The options of a client.

    `token` proves who calls; in plain text to another host it needs `insecure`. `key_metadata` is where the routes look
    for the key (x-user-id; in a route `key: {from: [metadata:x-user-id]}`). `connections` (1) are used in turn: each of
    them is served by one worker of a host. Where `rest` (http://host:port) is given and gRPC does not connect, calls go
    there.

    Units: `timeout_s` (10) bounds each call that has no limit of its own; `connect_s` (2) until REST is taken.
    """

    token: str
    tls: ChannelTls | None
    key_metadata: str
    timeout_s: float
    connections: int
    rest: str
    connect_s: float
    insecure: bool


class StreamOptions(TypedDict, total=False):
    """What a request may be given: the routing key, the version (else the route decides), the outputs (else all).

    Units: `timeout_s` bounds the call.
    """

    key: str
    version: str
    outputs: Sequence[str]
    parameters: Mapping[str, ParameterValue] | None
    metadata: Mapping[str, str] | None
    timeout_s: float | None


class InferOptions(StreamOptions, total=False):
    """As `StreamOptions`; `request_id` is the id of the one request, else the server makes one."""

    request_id: str


class ClientSettings:
    """The options of a client, checked. Raises: ValueError (addresses, half a pair of files, a token in plain text)."""

    def __init__(self, server: str | Sequence[str], **options: Unpack[ClientOptions]) -> None:
        token, tls = options.get("token", ""), options.get("tls")
        insecure, rest = options.get("insecure", False), options.get("rest", "")
        self.target: ChannelTarget = target_of(
            server, tls=tls, token=token, insecure=insecure, connections=options.get("connections", 1)
        )
        self.rest = RestCalls(rest, tls=tls, token=token, insecure=insecure) if rest else None
        self.connect_s = options.get("connect_s", _CONNECT_S)
        self.authorization = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = options.get("timeout_s", _TIMEOUT_S)
        self._key_metadata = options.get("key_metadata", _KEY_METADATA)

    def limit(self, timeout_s: float | None) -> float:
        """Returns the limit of a call. Units: seconds."""
        return self._timeout_s if timeout_s is None else timeout_s

    def options_of(self, timeout_s: float | None) -> dict[str, Any]:
        """Returns what a call of the control service, or a question for readiness, is sent with."""
        return {"metadata": self.authorization, "timeout": self.limit(timeout_s)}

    def call(self, model: str, inputs: Inputs, options: StreamOptions | InferOptions) -> InferenceCall:
        """Returns what is asked of a model."""
        return InferenceCall(
            model,
            inputs,
            options.get("version", ""),
            tuple(options.get("outputs", ())),
            options.get("request_id", ""),  # type: ignore[arg-type]  # a stream has none
            options.get("parameters") or {},
            self.headers(options),
        )

    def headers(self, options: StreamOptions) -> tuple[tuple[str, str], ...]:
        """Returns the headers of a call: those given, the routing key, and who calls."""
        given = {name.lower(): value for name, value in (options.get("metadata") or {}).items()}
        if key := options.get("key", ""):
            given[self._key_metadata] = key
        return (*given.items(), *self.authorization)
