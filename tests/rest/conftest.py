"""A worker that serves REST beside gRPC, with the models of the gRPC tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.api.feedback_token import KEY_BYTES, Tokens
from gateway.tensor import Datatype
from tests import models
from tests.api.conftest import ECHOED, LABELLED, LABELS, NUMBERS, echo
from tests.api.stand import Stand, standing
from tests.models import write_version


def fill(repository: Path) -> None:
    """Those of the models of the gRPC tests that are asked for by REST."""
    config = "max_batch_size: 8\nversion_policy { all {} }"
    write_version(repository, "affine", "1", models.affine(2.0))
    write_version(repository, "affine", "2", models.affine(3.0), config=config)
    write_version(repository, "simple", "1", models.add_sub(), config="max_batch_size: 8")
    write_version(repository, "classifier", "1", models.classifier(), config=LABELLED)
    (repository / "classifier" / "labels.txt").write_text(LABELS)
    for name, dims in (("wide", (-1, -1)), ("scalar", ())):
        write_version(repository, name, "1", models.identity(Datatype.FP32, dims))
    write_version(repository, "gather", "1", models.fragile())
    write_version(repository, "turns", "1", models.turns())
    write_version(repository, "broken", "1", b"not a model")
    for datatype in ECHOED:
        write_version(repository, f"echo-{datatype.wire_name}", "1", models.identity(datatype, (-1, 2)))
    write_version(repository, "echo", "1", echo(NUMBERS))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("rest")
    repository = data / "models"
    fill(repository)
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with standing(repository, data, probes=probes, tokens=Tokens(bytes(KEY_BYTES)), rest=True) as made:
        yield made
