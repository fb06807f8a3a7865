"""Calls over REST, for networks that let no gRPC through; repeated as gRPC repeats them."""

import json
from collections.abc import Mapping
from itertools import count
from random import uniform
from time import monotonic, sleep
from typing import Any, Final
from urllib.parse import quote, urlsplit

from gateway.client.answer import Answer
from gateway.client.call_error import CallError
from gateway.client.channel_target import (
    BACKOFF_MULTIPLIER,
    INITIAL_BACKOFF_S,
    MAX_ATTEMPTS,
    MAX_BACKOFF_S,
    ChannelTls,
    check_secrecy,
)
from gateway.client.inference_call import InferenceCall
from gateway.client.rest_message import JSON_LENGTH, infer_body, infer_path, rest_answer

CODE: Final = "x-gateway-code"
# What a status says where its sender is not the gateway but something on the way.
_CODES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RestCalls:
    """Holds connections to `url` (http://host:port). It may be used by several threads at once.

    Raises: ValueError (no such address, a token in plain text), ImportError (without the extra `rest`).
    """

    def __init__(self, url: str, *, tls: ChannelTls | None, token: str, insecure: bool) -> None:
        import urllib3  # an extra: who speaks gRPC needs none of it

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"rest is {url!r}, it must be http://host:port or https://host:port")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        check_secrecy([f"{parts.hostname}:{port}"], token=token, secure=parts.scheme == "https", insecure=insecure)
        files: dict[str, Any] = {}
        if tls is not None:
            named = {"ca_certs": tls.ca, "cert_file": tls.certificate, "key_file": tls.key}
            files = {name: str(path) for name, path in named.items() if path is not None}
            if tls.name:
                files |= {"server_hostname": tls.name, "assert_hostname": tls.name}
        self._pool = urllib3.PoolManager(retries=False, maxsize=16, **files)
        self._failed: type[Exception] = urllib3.exceptions.HTTPError
        self._authorization = {"authorization": f"Bearer {token}"} if token else {}
        self._url = f"{parts.scheme}://{parts.netloc}"

    def close(self) -> None:
        self._pool.clear()

    def infer(self, call: InferenceCall, limit_s: float) -> Answer:
        """Returns the model's answer. Raises: CallError."""
        body, json_bytes = infer_body(call)
        headers = dict(call.metadata) | {JSON_LENGTH: str(json_bytes), "content-type": "application/octet-stream"}
        until = monotonic() + limit_s
        for attempt in count(1):
            try:
                status, said, data = self._ask("POST", infer_path(call), headers, body, until - monotonic())
                if status == 200:
                    return rest_answer(said, data)
                raise _error(status, said, data)
            except CallError as error:
                pause_s = uniform(0.0, _backoff_s(attempt)) if error.retry_after_s is None else error.retry_after_s
                if error.code != "UNAVAILABLE" or attempt == MAX_ATTEMPTS or monotonic() + pause_s >= until:
                    raise
                sleep(pause_s)
        raise AssertionError("the attempts are counted above")

    def is_ready(self, model: str, version: str, limit_s: float) -> bool:
        """Returns whether the server, or the model, can answer. Raises: CallError."""
        path = "/v2/health/ready"
        if model:
            named = f"/versions/{quote(version, safe='')}" if version else ""
            path = f"/v2/models/{quote(model, safe='')}{named}/ready"
        return self._ask("GET", path, self._authorization, b"", limit_s)[0] == 200

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, limit_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        if limit_s <= 0:
            raise CallError("DEADLINE_EXCEEDED", "the time of the call is over")
        headers = {**headers, "grpc-timeout": f"{max(1, min(int(limit_s * 1000), 99_999_999))}m"}
        try:
            response = self._pool.request(method, self._url + path, body=body, headers=headers, timeout=limit_s)
        except self._failed as error:
            import urllib3

            late = isinstance(error, urllib3.exceptions.TimeoutError)
            raise CallError("DEADLINE_EXCEEDED" if late else "UNAVAILABLE", f"{self._url}: {error}") from None
        return response.status, {name.lower(): value for name, value in response.headers.items()}, response.data


def _error(status: int, headers: Mapping[str, str], body: bytes) -> CallError:
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body[:500].decode(errors="replace") or f"status {status}"
    wait = headers.get("retry-after", "")
    return CallError(
        headers.get(CODE) or _CODES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL"),
        text,
        request_id=headers.get("x-gateway-request-id", ""),
        retry_after_s=float(wait) if wait.isdigit() else None,
        final=status == 413,
    )


def _backoff_s(attempt: int) -> float:
    return float(min(MAX_BACKOFF_S, INITIAL_BACKOFF_S * BACKOFF_MULTIPLIER ** (attempt - 1)))
