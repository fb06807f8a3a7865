"""A gateway serves on a host without what Linux alone has. It is no macOS: see `without_linux/sitecustomize.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.runtime.platform_limits import NOT_LINUX
from tests.e2e.product import environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run_here(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs a program on such a host."""
    path = f"{HERE / 'without_linux'}:{ROOT}"
    command = (sys.executable, "-P", *arguments)
    env = {**environment(), "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=seconds)


@pytest.mark.long
def test_it_serves_loses_a_worker_and_stops() -> None:
    done = run_here(str(HERE / "installed_wheel.py"), seconds=170)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "served on darwin, lacking: connections spread over workers" in done.stdout
    first, second = [line for line in done.stderr.splitlines() if "lacks what Linux has" in line]  # one a start
    assert all(limit.feature in first and limit.feature in second for limit in NOT_LINUX)
    assert "Traceback" not in done.stderr


def test_a_transport_that_cannot_share_its_port_is_refused(tmp_path: Path) -> None:
    program = "from gateway.cli import main; main()"
    options = ("--transport", "grpcio", "--data-dir", str(tmp_path), "--model-repository", str(tmp_path))
    done = run_here("-c", program, "serve", *options, seconds=60)
    assert done.returncode == 1
    assert "transport 'grpcio' needs a kernel that spreads connections" in done.stderr
