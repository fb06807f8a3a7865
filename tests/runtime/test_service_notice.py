"""What systemd is told."""

import socket
from pathlib import Path

import pytest

from gateway.runtime.service_notice import READY, STOPPING, notify
from tests.runtime.supervised import Supervised


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_arrive_as_one_datagram(tmp_path: Path, abstract: bool) -> None:
    address = f"@gateway-{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + address[1:] if abstract else address)
        assert notify(READY, "STATUS=2 workers serve", environ={"NOTIFY_SOCKET": address})
        assert heard.recv(1024) == b"READY=1\nSTATUS=2 workers serve"


def test_nobody_who_asks_is_told_nothing_and_a_lost_socket_harms_nobody(tmp_path: Path) -> None:
    assert not notify(READY, environ={})
    assert not notify(READY, environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_a_supervisor_says_when_it_serves_and_when_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Supervised(tmp_path / "data", workers=1) as supervised:
            assert heard.recv(1024).decode().splitlines()[0] == READY
            supervised.process.terminate()
            assert heard.recv(1024).decode() == STOPPING
