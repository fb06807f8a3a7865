from collections.abc import AsyncIterator

import pytest

from tests.rpc.serving import TRANSPORTS, Served, serving


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def fast() -> AsyncIterator[Served]:
    """The test service over ngh2 alone."""
    async with serving("ngh2") as running:
        yield running


@pytest.fixture
async def served(transport: str) -> AsyncIterator[Served]:
    """The test service over each transport."""
    async with serving(transport) as running:
        yield running
