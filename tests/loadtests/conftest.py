"""A server of this gateway, and one that is not: what load is sent to in these tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.tensor import Datatype
from tests import models
from tests.api.conftest import NUMBERS, echo
from tests.api.stand import Stand, standing

FLAGS = (Datatype.BOOL, Datatype.BYTES, Datatype.INT8)
HALVES = (Datatype.FP16, Datatype.BF16)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """A worker with REST beside gRPC, whose models have every datatype."""
    data = tmp_path_factory.mktemp("loaded")
    repository = data / "models"
    models.write_version(repository, "affine", "1", models.affine(2.0))
    models.write_version(repository, "gather", "1", models.fragile(5))
    models.write_version(repository, "wide", "1", models.identity(Datatype.FP32, (-1, -1)))
    for name, kinds in (("echo", NUMBERS), ("flags", FLAGS), ("halves", HALVES)):
        models.write_version(repository, name, "1", echo(kinds))
    probes: Path = tmp_path_factory.getbasetemp() / "probes"
    async with standing(repository, data, probes=probes, rest=True) as made:
        yield made
