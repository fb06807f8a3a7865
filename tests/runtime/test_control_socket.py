"""The unix socket of operators: whose it is, what may be there before, and that a server serves on it."""

import asyncio
import os
import socket
from pathlib import Path

import grpc.aio
import pytest

from gateway.errors import FailedPrecondition
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import ServerOptions
from gateway.runtime.control_socket import ControlSocket
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import path


async def test_servers_that_inherit_it_serve_there_one_after_the_other(tmp_path: Path) -> None:
    at = tmp_path / "control.sock"
    with ControlSocket(at) as control:
        for _ in range(2):
            server = Ngh2Server(ServerOptions(), listening=socket.socket(fileno=os.dup(control.fileno())))
            register(Behaviour(), server)
            await server.start()
            async with grpc.aio.insecure_channel(f"unix:{at}") as channel:
                echo = channel.unary_unary(path("EchoNow"), None, None)
                assert await echo(b"x" * 300_000, timeout=5) == b"x" * 300_000
                assert server.port == 0
            async with asyncio.timeout(5):
                while server.counts()["open"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await server.stop(0)


def test_only_its_owner_may_connect_and_nothing_is_left(tmp_path: Path) -> None:
    at = tmp_path / "control.sock"
    with ControlSocket(at):
        assert at.stat().st_mode & 0o777 == 0o600
        with pytest.raises(FailedPrecondition, match="another process listens at control-socket"):
            ControlSocket(at)
    assert not at.exists()


def test_one_whose_gateway_was_halted_is_taken_and_holds_up_no_start(tmp_path: Path) -> None:
    at = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as halted, socket.socket(socket.AF_UNIX) as waiting:
        halted.bind(str(at))
        halted.listen(0)
        waiting.connect(str(at))
        with pytest.raises(FailedPrecondition, match="another process listens at control-socket"):
            ControlSocket(at)


def test_what_a_killed_gateway_left_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    at = tmp_path / "control.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(at))
    dead.close()
    ControlSocket(at).close()
    at.write_text("mine")
    with pytest.raises(FailedPrecondition, match="is there and is no socket"):
        ControlSocket(at)
    assert at.read_text() == "mine"
    with pytest.raises(FailedPrecondition, match="AF_UNIX path too long"):
        ControlSocket(tmp_path / ("x" * 200))
    with pytest.raises(FailedPrecondition, match="No such file"):
        ControlSocket(tmp_path / "no" / "where")
