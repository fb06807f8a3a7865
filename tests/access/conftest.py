"""A worker with a store, and guarded ports of it on both transports."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.access.guarded import Guarded, guarded
from tests.access.issuer import Clock
from tests.api.operated import Operated, operated


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operated]:
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with operated(tmp_path_factory.mktemp("access"), probes) as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["ngh2", "grpcio"])
async def port(
    worker: Operated, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    scratch: Path = tmp_path_factory.mktemp("guarded")
    async with guarded(worker, request.param, scratch) as made:
        yield made
