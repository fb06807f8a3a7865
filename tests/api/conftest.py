"""A stand for the tests that talk to a server."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from onnx import helper

from gateway.tensor import Datatype
from tests import models
from tests.api.operated import Operated, operated
from tests.api.stand import Stand, standing

LABELS = "setosa\nversicolor\nvirginica\n"
LABELLED = """
max_batch_size: 16
output [{ name: "scores" data_type: TYPE_FP32 dims: [3] label_filename: "labels.txt" }]
"""


ECHOED = (Datatype.BOOL, Datatype.BYTES, Datatype.FP16, Datatype.BF16, Datatype.INT8)
NUMBERS = tuple(datatype for datatype in Datatype if datatype not in ECHOED)


def echo(datatypes: Sequence[Datatype]) -> bytes:
    """A model that gives each of its inputs, `x-<datatype>`, back as `y-<datatype>`; all [-1, 2]."""
    names = [datatype.wire_name for datatype in datatypes]
    model = models.model_of(
        [helper.make_node("Identity", [f"x-{name}"], [f"y-{name}"]) for name in names],
        [models.tensor_value(f"x-{datatype.wire_name}", datatype, (-1, 2)) for datatype in datatypes],
        [models.tensor_value(f"y-{datatype.wire_name}", datatype, (-1, 2)) for datatype in datatypes],
    )
    return bytes(model.SerializeToString())


def row_sum() -> bytes:
    """`y` is the sum of the row `x`; x: FP32 [-1, 2] -> y: FP32 [-1, 1]."""
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "ones"], ["y"])],
        [models.tensor_value("x", Datatype.FP32, (-1, 2))],
        [models.tensor_value("y", Datatype.FP32, (-1, 1))],
        [models.weight("ones", np.ones((2, 1), np.float32))],
    )
    return bytes(model.SerializeToString())


def fill(repository: Path) -> None:
    """The models that tests talk to."""
    models.write_version(repository, "affine", "1", models.affine(2.0))
    models.write_version(
        repository, "affine", "2", models.affine(3.0), config="max_batch_size: 8\nversion_policy { all {} }"
    )
    models.write_version(repository, "simple", "1", models.add_sub(), config="max_batch_size: 8")
    models.write_version(repository, "classifier", "1", models.classifier(), config=LABELLED)
    (repository / "classifier" / "labels.txt").write_text(LABELS)
    models.write_version(repository, "gather", "1", models.fragile())
    models.write_version(repository, "wide", "1", models.identity(Datatype.FP32, (-1, -1)))
    models.write_version(repository, "shapeless", "1", models.without_shapes(models.identity(Datatype.FP32)))
    models.write_version(repository, "scalar", "1", models.identity(Datatype.FP32, ()))
    models.write_version(repository, "slow", "1", models.slow(100_000))
    models.write_version(repository, "turns", "1", models.turns())
    policy = "default_queue_policy { allow_timeout_override: true }"
    hasty = f"max_batch_size: 1\ndynamic_batching {{ {policy} }}\n"
    models.write_version(repository, "hasty", "1", models.slow(100_000), config=hasty)
    models.write_version(repository, "cached", "1", models.affine(2.0), config="response_cache { enable: true }")
    models.write_version(repository, "broken", "1", b"not a model")
    models.write_version(repository, "one", "1", models.affine(1.0, features=1))
    named = 'parameters { key: "feature_names" value { string_value: "height,width" } }'
    models.write_version(repository, "named", "1", row_sum(), config=f"max_batch_size: 8\n{named}")
    for datatype in ECHOED:
        models.write_version(repository, f"echo-{datatype.wire_name}", "1", models.identity(datatype, (-1, 2)))
    models.write_version(repository, "echo", "1", echo(NUMBERS))
    models.write_version(repository, "echo-INT64", "1", models.identity(Datatype.INT64, (-1, 2)))


def fill_small(repository: Path) -> None:
    """One model, for tests that need a stand of their own."""
    models.write_version(repository, "affine", "1", models.affine(2.0))


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "probes"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stand(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("data")
    repository = data / "models"
    fill(repository)
    async with standing(repository, data, probes=probes) as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def operators(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> AsyncIterator[Operated]:
    async with operated(tmp_path_factory.mktemp("operated"), probes) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def op(operators: Operated) -> Operated:
    """The worker that operators ask, without a route."""
    await operators.clear()
    return operators
