"""Starts Ray Serve with the benchmark's model, over gRPC: its proxy is given the protocol's own service."""

import signal
import sys
import threading
from typing import Final

import ray
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from loadtests.bench.rivals.ray_deployment import ADD_SERVICER, RayOnnx
from loadtests.bench.rivals.scorer import MODEL
from loadtests.bench.rivals.start_order import StartOrder

_MOST_CALLS_AT_A_TIME: Final = 256  # of a replica; its default, 5, is for slow models


def main(order: StartOrder) -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        _serve(order, stopping)
    finally:
        serve.shutdown()
        ray.shutdown()


def _serve(order: StartOrder, stopping: threading.Event) -> None:
    ray.init(include_dashboard=False, num_cpus=order.workers, _temp_dir=str(order.folder), log_to_driver=False)
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=order.spare_ports[0]),
        grpc_options=gRPCOptions(port=order.port, grpc_servicer_functions=[ADD_SERVICER]),
    )
    deployment = serve.deployment(RayOnnx).options(
        num_replicas=order.workers,
        max_ongoing_requests=_MOST_CALLS_AT_A_TIME,
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
    )
    serve.run(deployment.bind(str(order.repository)), name=MODEL)
    stopping.wait()


if __name__ == "__main__":
    main(StartOrder.of(sys.argv[1:]))
