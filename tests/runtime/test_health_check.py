"""The health check of the image: it asks whom the running gateway named, and says why nobody answers."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gateway.runtime.health_check import main, trouble


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/healthz": 200, "/readyz": 503}[self.path])
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server.server_address[1]
        server.shutdown()
        serving.join()


def _write(data_dir: Path, host: str, port: int) -> None:
    (data_dir / "run").mkdir()
    (data_dir / "run" / "state.json").write_text(json.dumps({"host": host, "ports": {"metrics": port}}))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_asks_the_address_that_the_gateway_named(tmp_path: Path, port: int, host: str) -> None:
    _write(tmp_path, host, port)
    assert trouble(tmp_path, "/healthz") == ""
    assert "says 503" in trouble(tmp_path, "/readyz")


def test_nothing_known_is_not_well(tmp_path: Path) -> None:
    assert "nothing is known" in trouble(tmp_path, "/readyz")
    _write(tmp_path, "127.0.0.1", 1)
    assert "no answer" in trouble(tmp_path, "/readyz")
    (tmp_path / "run" / "state.json").write_text("{")
    assert "nothing is known" in trouble(tmp_path, "/readyz")


def test_the_exit_code_is_the_answer(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    _write(tmp_path, "127.0.0.1", port)
    assert [main([]), main(["ready"]), main(["live"]), main(["healthy"])] == [1, 1, 0, 2]
    assert "ready, live" in capsys.readouterr().err


def test_it_loads_nothing_that_costs() -> None:
    program = "import sys, gateway.runtime.health_check; print(*sorted(name for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in loaded if name.split(".")[0] in ("gateway", "msgspec", "yaml", "typer", "grpc", "numpy")}
    assert own == {"gateway", "gateway.runtime", "gateway.runtime.health_check"}


def test_a_port_that_says_nothing_is_no_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=lambda: silent.accept()[0].close()).start()
        _write(tmp_path, "127.0.0.1", silent.getsockname()[1])
        assert "no answer" in trouble(tmp_path, "/healthz")
