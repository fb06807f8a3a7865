"""Starts MLServer with the benchmark's model, over gRPC: it takes this process's place."""

import json
import os
import sys
from pathlib import Path

from loadtests.bench.rivals.scorer import INPUT, MODEL, VERSION, WIDTH
from loadtests.bench.rivals.start_order import StartOrder


def settings(order: StartOrder) -> dict[str, object]:
    """settings.json. `parallel_workers` 0 would run the model in the server's own process."""
    http_port, metrics_port = order.spare_ports
    return {
        "host": "127.0.0.1",
        "grpc_port": order.port,
        "http_port": http_port,
        "metrics_port": metrics_port,
        "parallel_workers": order.workers if order.workers > 1 else 0,
        "debug": False,
    }


def model_settings(order: StartOrder) -> dict[str, object]:
    """model-settings.json."""
    return {
        "name": MODEL,
        "implementation": "loadtests.bench.rivals.mlserver_runtime.MlserverOnnx",
        "parameters": {"uri": str(order.repository), "version": VERSION},
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, WIDTH]}],
    }


def main(order: StartOrder) -> None:
    (order.folder / "settings.json").write_text(json.dumps(settings(order)))
    (order.folder / "model-settings.json").write_text(json.dumps(model_settings(order)))
    program = Path(sys.executable).with_name("mlserver")
    os.execv(program, [str(program), "start", str(order.folder)])


if __name__ == "__main__":
    main(StartOrder.of(sys.argv[1:]))
