"""Idle connections are held and counted, and one that does not stay open is seen."""

import socket
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from loadtests.bench import body, idle
from loadtests.bench.cases import Case
from loadtests.bench.servers import HOST, Server, ServerFailed, free_port


def test_connections_are_held_and_weighed(bare: Server, tiny: Case) -> None:
    opened: list[int] = []
    cost = idle.hold(bare, 40, tiny.body, advanced=opened.append)
    assert opened == list(range(1, 41))
    assert cost.connections == 40
    assert cost.rss_before_mib > 10
    assert cost.kib_each == pytest.approx((cost.rss_after_mib - cost.rss_before_mib) * 1024 / 40)


def test_a_server_that_closes_is_named(tiny: Case) -> None:
    with socket.create_server((HOST, 0)) as listener:
        closing = Thread(target=lambda: listener.accept()[0].close())
        closing.start()
        server = Server("rude", f"{HOST}:{listener.getsockname()[1]}", 1)
        with pytest.raises(ServerFailed, match=r"closed|connection 1 of 5"):
            idle.hold(server, 5, tiny.body, advanced=_nothing)
        closing.join()


def test_nobody_there_is_an_error_that_names_the_server(tiny: Case) -> None:
    with pytest.raises(ServerFailed, match="away: connection 1 of 5"):
        idle.hold(Server("away", f"{HOST}:{free_port()}", 1), 5, tiny.body, advanced=_nothing)


def test_a_refused_call_is_no_connection_in_use(bare: Server, tiny: Case, tmp_path: Path) -> None:
    body.write(replace(tiny.model, name="nobody"), tmp_path / "nobody.bin")
    with pytest.raises(ServerFailed, match="refused the call"):
        idle.hold(bare, 5, tmp_path / "nobody.bin", advanced=_nothing)


def _nothing(_: int) -> None:
    pass
