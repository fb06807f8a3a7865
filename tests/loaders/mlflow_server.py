"""A real MLflow server, as `mlflow server` starts it, and what its own client does there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.routing.servers import free_port

PACKAGES = Path(sys.prefix) / "mlflow"  # where the Makefile puts MLflow and what it needs
needs_mlflow = pytest.mark.skipif(not PACKAGES.is_dir(), reason="MLflow is not installed beside the other packages")
_BEGIN = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
"""


@dataclass(frozen=True)
class RealMlflow:
    """The server's address, and the environment in which MLflow can be imported."""

    address: str
    environ: dict[str, str]

    def client(self, program: str, *words: str) -> None:
        """Runs a program in which `client` is MLflow's; `words` are sys.argv from 2 on."""
        command = [sys.executable, "-c", f"{_BEGIN}\n{program}", self.address, *words]
        subprocess.run(command, env=self.environ, check=True, timeout=300)


@contextmanager
def real_mlflow(directory: Path) -> Iterator[RealMlflow]:
    """Runs a server until the block ends, with all that it keeps in the directory."""
    port = free_port()
    environ = {**os.environ, "PYTHONPATH": str(PACKAGES), "MLFLOW_DISABLE_TELEMETRY": "true"}
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{directory}/m.db", "--artifacts-destination", str(directory / "a")]
    with subprocess.Popen([sys.executable, "-m", "mlflow", "server", *words], env=environ, cwd=directory) as process:
        try:
            yield RealMlflow(f"http://127.0.0.1:{port}", environ)
        finally:
            process.terminate()
