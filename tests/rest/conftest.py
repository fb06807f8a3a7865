"""A worker that serves REST beside gRPC, with the models of the gRPC tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.api.feedback_token import KEY_BYTES, Tokens
from tests.api.conftest import fill
from tests.api.stand import Stand, standing


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("rest")
    repository = data / "models"
    fill(repository)
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with standing(repository, data, probes=probes, tokens=Tokens(bytes(KEY_BYTES)), rest=True) as made:
        yield made
