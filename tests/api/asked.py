"""The control service over HTTP, as the operators' port serves it, and a client for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.access.gatekeeper import Gatekeeper
from gateway.api.control_service import ControlService
from gateway.runtime.control_api import QUIET_S, ControlApi
from gateway.runtime.control_bridge import CONTROL, FOLLOW, ControlBridge, bridge_following, bridge_operation
from gateway.runtime.operators_port import OperatorsPort, served_pages
from gateway.runtime.peers import Peers, PeerServer, worker_socket

WRITE = {"content-type": "application/json", "x-gateway-client": "tests"}


@dataclass
class Asked:
    """Where it is served."""

    port: int

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = WRITE
    ) -> tuple[int, dict[str, str], Any]:
        """The status, the headers and the JSON of an answer."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"host": f"127.0.0.1:{self.port}", "content-length": str(len(data)), "connection": "close", **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *rest = head.decode().split("\r\n")
        told = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        return int(first.split(" ")[1]), told, json.loads(text) if told["content-type"] == "application/json" else text


@asynccontextmanager
async def asked(
    directory: Path,
    service: ControlService,
    *,
    gatekeeper: Gatekeeper | None = None,
    closed: str = "",
    quiet_s: float = QUIET_S,
) -> AsyncIterator[Asked]:
    """Serves the methods until the block ends."""
    bridge = ControlBridge(Peers(directory, own_slot=-1, slots=1), workers=1)
    api = ControlApi(bridge, closed=closed, quiet_s=quiet_s)
    table = {**served_pages({"/openapi.json": api.document}, {}), **api.table()}
    server = OperatorsPort("127.0.0.1", 0, table, gatekeeper)
    answers, followed = {CONTROL: bridge_operation(service)}, {FOLLOW: bridge_following(service)}
    async with PeerServer(worker_socket(directory, 0), answers, followed):
        await server.start()
        try:
            yield Asked(server.port)
        finally:
            await server.close()
