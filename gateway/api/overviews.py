"""The read model of a host, put together from what the caller may see."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from gateway.access.principal import Role
from gateway.api.route_messages import principal_of
from gateway.errors import GatewayError
from gateway.page.host_view import HostView
from gateway.page.message_values import entry_value, moment, rollout_value, version_value, worker_value
from gateway.page.overview import overview_of, visible
from gateway.page.route_words import also_decides
from gateway.pb import control_pb2 as pb

SHOWN_CHANGES: Final = 20
_REQUESTS: Final[Mapping[str, Any]] = {
    "ListRoutes": pb.ListRoutesRequest(),
    "ListRollouts": pb.ListRolloutsRequest(),
    "Workers": pb.WorkersRequest(),
    "Models": pb.ModelsRequest(),
    "Audit": pb.AuditRequest(limit=SHOWN_CHANGES),
}


class Overviews:
    """Serves GetOverview. `ask` calls another method of the service, `host` returns what this host does now.

    Each part is asked for as the caller would ask for it, so it holds what that caller may see.
    """

    def __init__(
        self,
        ask: Callable[[str, Any, object], Awaitable[Any]],
        host: Callable[[], Awaitable[HostView]],
    ) -> None:
        self._ask = ask
        self._host = host

    async def get(self, request: pb.GetOverviewRequest, context: object) -> pb.GetOverviewResponse:
        answers, host = await asyncio.gather(
            asyncio.gather(*(self._asked(name, context) for name in _REQUESTS)), self._present()
        )
        parts = dict(zip(_REQUESTS, answers, strict=True))
        unknown = {name: str(answer) for name, answer in parts.items() if isinstance(answer, GatewayError)}
        if isinstance(host, GatewayError):
            unknown["host"] = str(host)
        principal = principal_of(context)
        reader = frozenset({Role.READER})
        seen = visible(
            None if isinstance(host, GatewayError) else host,
            lambda model: not principal.roles_on(model).isdisjoint(reader),
            everything=Role.READER in principal.roles_everywhere(),
        )
        rollouts = _part(parts["ListRollouts"], pb.ListRolloutsResponse).rollouts
        overview = overview_of(
            _part(parts["ListRoutes"], pb.ListRoutesResponse),
            [_mapping(rollout_value(one)) for one in rollouts if one.phase != "stopped"],
            [_mapping(worker_value(one)) for one in _part(parts["Workers"], pb.WorkersResponse).workers],
            [_mapping(version_value(one)) for one in _part(parts["Models"], pb.ModelsResponse).versions],
            [entry_value(one) for one in _part(parts["Audit"], pb.HistoryResponse).entries],
            seen,
            unknown=unknown,
            also=also_decides,
            moment=moment,
        )
        return pb.GetOverviewResponse(overview_json=msgspec.json.encode(overview).decode())

    async def _asked(self, name: str, context: object) -> Any:
        try:
            return await self._ask(name, _REQUESTS[name], context)
        except GatewayError as error:
            return error

    async def _present(self) -> HostView | GatewayError:
        try:
            return await self._host()
        except GatewayError as error:
            return error


def _part(answer: Any, kind: Callable[[], Any]) -> Any:
    """Returns an answer, or an empty one where there is none: `unknown` says so then."""
    return kind() if isinstance(answer, GatewayError) else answer


def _mapping(value: Any) -> Mapping[str, Any]:
    assert isinstance(value, Mapping)
    return value
