"""The servicers of a worker behind a gatekeeper, on both transports, and the callers that it knows."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, process_time_ns
from typing import Any

import grpc.aio

from gateway.access.directory import Directory
from gateway.access.gatekeeper import Gatekeeper
from gateway.access.principal import Role
from gateway.access.quotas import Quotas
from gateway.access.roles_file import parse_roles
from gateway.access.token_file import digest_of, new_token, parse_tokens
from gateway.api.control_service import ControlService
from gateway.api.feedback_intake import FeedbackIntake
from gateway.api.health import HealthService
from gateway.api.inference import InferenceService
from gateway.api.load_reports import LoadReports
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from gateway.routing.store.route_control import RouteControl
from gateway.rpc.server import Server
from gateway.runtime.config import Config
from gateway.runtime.edge import (
    Servicers,
    guard_servicers,
    make_control_server,
    make_rest_server,
    make_server,
    servicers_of,
)
from gateway.runtime.sections import ListenOptions
from gateway.serving.arm_tally import JudgedRoutes
from tests.api.operated import TOKENS, Alone, Operated, Site, no_host
from tests.api.stand import OneWorker

# A bearer of each role for the models of the tenant, one for those of another, and one for each of a draft's hands.
CALLERS: Mapping[str, tuple[str, str]] = {
    **{role.value: (role.value, "affine") for role in Role},
    "other": ("admin", "other*"),
    "author": ("operator", "affine,other"),
    "member": ("infer tenant=acme", "affine"),
    "overseer": ("reader", "*"),
}
NOW_S = 1_790_000_000.0


def token_of(name: str) -> str:
    return new_token(name.encode().ljust(32, b"."))


def header(name: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a caller; of nobody for ""."""
    return (("authorization", f"Bearer {token_of(name)}"),) if name else ()


def tokens_file() -> str:
    lines = [
        f"sha256:{digest_of(token_of(name).encode()).hex()} name={name} role={role} models={models}"
        for name, (role, models) in CALLERS.items()
    ]
    return "\n".join((*lines, f"sha256:{digest_of(b'gwt_late').hex()} name=late role=admin expires=2026-01-01T00:00Z"))


@dataclass
class Guarded:
    """A server whose callers are checked, and a channel to it."""

    server: Server
    operators: Server | None  # at an address of their own
    gatekeeper: Gatekeeper
    channel: grpc.aio.Channel
    control: ControlStub
    inference: GRPCInferenceServiceStub
    servicers: Servicers
    rest_port: int

    def call(self, path: str, *, request_streaming: bool, response_streaming: bool) -> Any:
        """A method of raw messages."""
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        return kinds[request_streaming, response_streaming](path, None, None)


def directory() -> Directory:
    return Directory(parse_tokens(tokens_file()), parse_roles("{}"))


@asynccontextmanager
async def guarded(
    operated: Operated, transport: str, scratch: Path, quotas: Quotas | None = None, *, control_port: int = -1
) -> AsyncIterator[Guarded]:
    """The servicers of the operated worker once more, on a port where every caller is checked."""
    async with AsyncExitStack() as stack:
        stand = operated.stand
        host = OneWorker(stand.catalog, stand.counters)
        inference = InferenceService(
            stand.engine, stand.catalog, repository=host, counts=host, max_answer_bytes=1 << 20, quotas=quotas,
            load_reports=LoadReports(now_ns=monotonic_ns, cpu_ns=process_time_ns, cpus=1.0, admitted=lambda: 0.0),
        )  # fmt: skip
        control = ControlService(
            RouteControl(operated.store, Site(operated.feed, stand.catalog)),
            stand.catalog,
            Alone(),
            feedback=FeedbackIntake(stand.catalog, operated.labels, TOKENS, scratch / "lake", JudgedRoutes()),
            host=no_host,
            quotas=Alone(quotas),
            log_dir=operated.log_dir,
            worker="w0",
            transport=transport,
        )
        gatekeeper = Gatekeeper(directory(), wall_s=lambda: NOW_S)
        config = Config(
            listen=ListenOptions(
                grpc_port=0, http_port=0, transport=transport, reflection=True, control_port=control_port
            )
        )
        servicers = servicers_of(config, inference, control, HealthService(stand.catalog), stand.catalog)
        guard_servicers(servicers)
        server = make_server(config, servicers, gatekeeper, quotas)
        operators = make_control_server(config, servicers, gatekeeper)
        rest = make_rest_server(config, servicers, gatekeeper, quotas)
        assert rest is not None
        for one in (server, operators, rest):
            if one is not None:
                await one.start()
                stack.push_async_callback(one.stop, 0.0)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
        yield Guarded(
            server,
            operators,
            gatekeeper,
            channel,
            ControlStub(channel),  # type: ignore[no-untyped-call]
            GRPCInferenceServiceStub(channel),  # type: ignore[no-untyped-call]
            servicers,
            rest.port,
        )
