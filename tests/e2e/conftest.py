"""The real product, and what its users bring: demo models, samples with known answers, connections."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

import gateway.demo
from gateway.pb import control_pb2
from loadtests.samples import Sample, load
from tests.e2e.calls import control
from tests.e2e.product import Product, environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A start of the product is part of the first test that needs it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180))


# Channels of one process to one address share a connection otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True, slots=True)
class Demo:
    repository: Path
    samples: Path

    def rows(self, model: str) -> list[Sample]:
        return load(self.samples, model)


@pytest.fixture(scope="session")
def demo(request: pytest.FixtureRequest) -> Demo:
    """The demo repository and its samples, made once for each state of the code that makes them."""
    sources = sorted(Path(gateway.demo.__path__[0]).glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    assert request.config.cache is not None
    directory = request.config.cache.mkdir("demo") / digest
    made = Demo(directory / "models", directory / "samples")
    with (directory.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run beside these make the same
        subprocess.run(
            [sys.executable, "-m", "gateway.demo", made.repository, "--samples", made.samples],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment(),
        )
    return made


@pytest.fixture(scope="session")
def start_product(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Product]]:
    """Starts a gateway with a demo repository of its own; whatever still runs at the end is killed."""
    started: list[Product] = []

    def start(name: str, *arguments: str) -> Product:
        directory = tmp_path_factory.mktemp(name)
        shutil.copytree(demo.repository, directory / "models")
        product = Product(directory, directory / "models", *arguments)
        started.append(product)
        return product.start()

    yield start
    for product in started:
        product.kill()


@pytest.fixture(scope="session")
def product(start_product: Callable[..., Product]) -> Iterator[Product]:
    """The gateway that all tests share that leave it as it was. Its end must be a clean one."""
    running = start_product("shared")
    yield running
    running.stop()


@pytest.fixture
def channel(product: Product) -> Iterator[grpc.Channel]:
    with connect(product) as opened:
        yield opened


def connect(product: Product) -> grpc.Channel:
    """A connection of its own: the kernel chooses the worker."""
    return grpc.insecure_channel(product.server, options=OWN_CONNECTION)


@pytest.fixture
def channels(product: Product) -> Iterator[list[grpc.Channel]]:
    """Eight connections; that all are one worker's happens once in 128 times."""
    opened = [connect(product) for _ in range(8)]
    yield opened
    for one in opened:
        one.close()


@pytest.fixture
def no_routes(product: Product) -> Iterator[None]:
    """No model has a route, before and after."""

    def remove() -> None:
        with connect(product) as opened:
            stub = control(opened)
            for route in stub.ListRoutes(control_pb2.ListRoutesRequest(), timeout=10).routes:
                stub.DeleteRoute(
                    control_pb2.DeleteRouteRequest(
                        model=route.model, wait=control_pb2.WaitFor(applied=True), override=True
                    ),
                    timeout=20,
                )

    remove()
    yield
    remove()
