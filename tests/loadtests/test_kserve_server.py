"""A real KServe model server is driven as this gateway is: by gRPC, JSON and binary tensors, and it has no streams."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.job.arrivals import steady
from loadtests.job.figures import figures_of
from loadtests.job.model_signature import ask_signature
from loadtests.job.scenario_plan import PROTOCOLS, TrafficPlan
from loadtests.job.sender import SenderOrder
from loadtests.job.target import LoadTarget, TargetFailed
from tests.e2e.product import until
from tests.loadtests.test_sender import sent

KSERVE = Path(sys.prefix) / "kserve"
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long,
    pytest.mark.skipif(not KSERVE.is_dir(), reason="no KServe on this platform"),
]


@pytest.fixture(scope="module")
def kserve() -> Iterator[LoadTarget]:
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as bound:
            ports.append(str(bound.getsockname()[1]))
    target = LoadTarget(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    path = os.pathsep.join((str(Path(__file__).parents[2]), str(KSERVE)))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.loadtests.kserve_server", *ports],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None
        try:
            return bool(ask_signature(target, "m").inputs and ask_signature(target, "m", rest=True).inputs)
        except TargetFailed:
            return False

    try:
        until(answers, 60, "KServe's server")
        yield target
    finally:
        process.terminate()
        process.wait(30)


async def test_kserves_own_server_is_driven(kserve: LoadTarget) -> None:
    plans = tuple(TrafficPlan(one, steady(30, "constant"), model="m", protocol=one, connections=8) for one in PROTOCOLS)
    tally = await sent(SenderOrder(kserve, plans, 1.0))
    for protocol in PROTOCOLS:
        made = figures_of(tally, 1.0, protocol)
        if protocol == "grpc-stream":
            assert made.right == 0
            assert all(text.startswith("UNIMPLEMENTED") for text in made.failures), made.failures
        else:
            assert (made.offered, made.right, dict(made.failures)) == (30, 30, {}), protocol
