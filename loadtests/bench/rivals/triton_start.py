"""Starts the Triton server that the package nvidia-pytriton ships, with the benchmark's model, over gRPC.

That package has of Triton's backends only the Python one, so ONNX Runtime is run from Python. PyTriton itself, which
would add a process between the server and the model, takes no part.
"""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from loadtests.bench.rivals.scorer import MODEL, VERSION
from loadtests.bench.rivals.start_order import StartOrder
from loadtests.bench.rivals.triton_model import REPOSITORY_VARIABLE

_MODEL_PY: Final = "from loadtests.bench.rivals.triton_model import TritonPythonModel\n"
_STUB: Final = "triton_python_backend_stub"


def model_config(written: str, workers: int) -> str:
    """The `written` config.pbtxt for the Python backend, with so many processes that run the model."""
    for before, after in (
        ('platform: "onnxruntime_onnx"', 'backend: "python"'),
        ("instance_group [ { count: 1 ", f"instance_group [ {{ count: {workers} "),
    ):
        if before not in written:
            raise ValueError(f"config.pbtxt: no {before!r}")
        written = written.replace(before, after)
    return written


def _write_models(order: StartOrder) -> Path:
    folder = order.folder
    written = (order.repository / MODEL / "config.pbtxt").read_text()
    version = folder / "models" / MODEL / VERSION
    version.mkdir(parents=True)
    (version / "model.py").write_text(_MODEL_PY)
    (version.parent / "config.pbtxt").write_text(model_config(written, order.workers))
    return folder / "models"


def _gather_backends(folder: Path, shipped: Path) -> Path:
    """The backend beside the stub of this interpreter's version, where the server looks for it."""
    backends = folder / "backends"
    shutil.copytree(shipped / "backends", backends)
    stub = shipped / "python_backend_stubs" / "{}.{}".format(*sys.version_info[:2]) / _STUB
    shutil.copy(stub, backends / "python" / _STUB)
    return backends


def main(order: StartOrder) -> None:
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        raise SystemExit("nvidia-pytriton is not installed")
    shipped = Path(package.origin).parent / "tritonserver"
    libraries = shipped.parents[1] / "nvidia_pytriton.libs"
    environment = {
        **os.environ,
        REPOSITORY_VARIABLE: str(order.repository),
        # The Python within the backend finds its packages by the first `python3` of the path.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (os.environ.get("LD_LIBRARY_PATH"), str(libraries)))),
    }
    program = shipped / "bin" / "tritonserver"
    arguments = [
        *("--model-repository", str(_write_models(order))),
        *("--backend-directory", str(_gather_backends(order.folder, shipped))),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(order.port)),
        *("--http-address", "127.0.0.1", "--http-port", str(order.spare_ports[0])),
        *("--allow-metrics", "false", "--exit-timeout-secs", "5"),
    ]
    os.execve(program, [str(program), *arguments], environment)


if __name__ == "__main__":
    main(StartOrder.of(sys.argv[1:]))
