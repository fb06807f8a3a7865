"""The control service for the other processes of the host: they ask a worker, in the name of their own caller.

A question holds the method, the request as protobuf's JSON, and the caller as this host has proven it; the worker's
handlers check what that caller may do, as for a call that came over gRPC.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from google.protobuf import json_format

from gateway.access.principal import Grant, Principal, Role
from gateway.errors import InvalidArgument, Unavailable
from gateway.pb import control_pb2
from gateway.runtime.peers import Followed, Operation, Payload, PeerGone, Peers

if TYPE_CHECKING:  # the control process asks, and loads no models
    pass

CONTROL: Final = "control"
FOLLOW: Final = "control.follow"
MOST_MESSAGES: Final = 1000  # of a method that streams
_TIMEOUT_S: Final = 15.0
_SERVICE: Final = control_pb2.DESCRIPTOR.services_by_name["Control"]


class ControlBridge:
    """Calls methods of the control service from a process that does not serve it."""

    def __init__(self, peers: Peers, workers: int) -> None:
        self._peers = peers
        self._workers = workers

    async def call(self, method: str, request: Any, principal: Principal, *, timeout_s: float = _TIMEOUT_S) -> Any:
        """Returns the answer of a unary method, from the first worker of this host that answers.

        Raises: Unavailable where none does; what the method raises.
        """
        [answer] = await self.messages(method, request, principal, timeout_s=timeout_s)
        return answer

    async def messages(
        self, method: str, request: Any, principal: Principal, *, timeout_s: float = _TIMEOUT_S
    ) -> list[Any]:
        """Returns the messages of a method that streams, which has to end by itself; at most `MOST_MESSAGES`.

        Raises: as `call`.
        """
        if "change" in request.DESCRIPTOR.fields_by_name and not request.change.idempotency_key:
            # A worker that went away may have done it: the next one answers what came of it.
            request.change.idempotency_key = uuid4().hex
        payload = _question(method, request, principal)
        output = _message(_SERVICE.methods_by_name[method].output_type.name)
        for slot in range(self._workers):
            try:
                answer = await self._peers.ask_one(slot, CONTROL, payload, timeout_s=timeout_s)
            except PeerGone:
                continue
            messages = answer.get("messages")
            return [json_format.ParseDict(one, output()) for one in messages] if isinstance(messages, list) else []
        raise Unavailable("no worker of this host answers")

    async def follow(self, method: str, request: Any, principal: Principal) -> AsyncGenerator[Any, None]:
        """Yields the messages of a method that streams, for as long as it goes on.

        The first worker of this host that takes it is asked; where that one goes away it ends with an error.

        Raises: as `call`.
        """
        payload = _question(method, request, principal)
        output = _message(_SERVICE.methods_by_name[method].output_type.name)
        refusal = Unavailable("no worker of this host answers")
        for slot in range(self._workers):
            async with aclosing(self._peers.follow_one(slot, FOLLOW, payload)) as messages:
                try:
                    async with asyncio.timeout(_TIMEOUT_S):
                        first = await anext(messages)
                except PeerGone:
                    continue
                except Unavailable as error:  # it leaves, or has too many who follow
                    refusal = error
                    continue
                except (StopAsyncIteration, TimeoutError):
                    continue
                yield json_format.ParseDict(first, output())
                async for one in messages:
                    yield json_format.ParseDict(one, output())
                return
        raise refusal


class BridgeContext:
    """What a handler reads of the context of a call that came from another process of the host."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    def time_remaining(self) -> float | None:
        return _TIMEOUT_S

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()


def bridge_operation(control: object) -> Operation:
    """Returns what a worker, whose control service it is, answers to the other processes of its host."""

    async def answer(payload: Payload) -> Payload:
        outcome = _begun(control, payload)
        messages: list[Any] = []
        if inspect.isasyncgen(outcome):
            async for one in outcome:
                messages.append(one)
                if len(messages) == MOST_MESSAGES:
                    break
            await outcome.aclose()
        else:
            messages.append(await outcome)
        return {"messages": [_as_payload(one) for one in messages]}

    return answer


def bridge_following(control: object) -> Followed:
    """Returns what a worker tells the other processes of its host of a method that streams."""

    async def pieces(payload: Payload) -> AsyncGenerator[Payload, None]:
        outcome = _begun(control, payload)
        if not inspect.isasyncgen(outcome):
            outcome.close()
            raise InvalidArgument(f"method is {payload.get('method')!r}, which does not stream")
        async with aclosing(outcome):
            async for one in outcome:
                yield _as_payload(one)

    return pieces


def _question(method: str, request: Any, principal: Principal) -> Payload:
    return {"method": method, "request": _as_payload(request), "principal": principal_value(principal)}


def _as_payload(message: Any) -> Payload:
    value: Payload = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return value


def _begun(control: object, payload: Payload) -> Any:
    """Returns what the handler that is asked for returns. Raises: InvalidArgument for what is no question."""
    method, request, principal = payload.get("method"), payload.get("request"), payload.get("principal")
    if method not in _SERVICE.methods_by_name or not isinstance(request, dict) or not isinstance(principal, dict):
        raise InvalidArgument(f"method is {method!r}, allowed: one of {_SERVICE.full_name}, with its request")
    descriptor = _SERVICE.methods_by_name[str(method)]
    try:
        message = json_format.ParseDict(request, _message(descriptor.input_type.name)())
    except json_format.ParseError as error:
        raise InvalidArgument(f"{descriptor.input_type.name}: {error}") from None
    return getattr(control, str(method))(message, BridgeContext(principal_from(principal)))


def principal_value(principal: Principal) -> dict[str, object]:
    """Returns a caller as JSON can hold it."""
    return {
        "name": principal.name,
        "tenant": principal.tenant,
        "method": principal.method,
        "grants": [[grant.role.value, list(grant.models)] for grant in principal.grants],
        "expires_s": principal.expires_s,
        "within": list(principal.within),
    }


def principal_from(value: Mapping[str, Any]) -> Principal:
    """Returns the caller that `principal_value` described. Raises: InvalidArgument."""
    try:
        return Principal(
            str(value["name"]),
            str(value["tenant"]),
            value["method"],
            tuple(Grant(Role(role), tuple(models)) for role, models in value["grants"]),
            float(value["expires_s"]),
            tuple(value["within"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"principal is none: {error!r}") from None


def _message(name: str) -> Any:
    return getattr(control_pb2, name)
