"""A stage whose repository ensembles are added to, and the models of their steps."""

from dataclasses import dataclass
from pathlib import Path

from gateway.serving.call import Call
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import VersionState
from gateway.tensor import Array, Datatype
from tests import models
from tests.serving.ensembles import write_ensemble
from tests.serving.stage import Stage, until
from tests.serving.stage import given as outputs_of


@dataclass
class Floor:
    """A stage whose repository a test may add to."""

    stage: Stage
    repository: Path
    shared: SharedRunState

    async def ensemble(self, name: str, text: str) -> None:
        write_ensemble(self.repository, name, text)
        await self.stage.catalog.load(name)

    async def ask(self, name: str, *inputs: Array) -> Call:
        call = await self.stage.infer(name, *inputs)
        await until(self.stage.idle)  # a run on a thread ends when ONNX Runtime has stopped it
        return call

    async def answer(self, name: str, *inputs: Array) -> list[list[list[float]]]:
        call = await self.ask(name, *inputs)
        assert call.error is None
        return [array.tolist() for array in outputs_of(call)]

    def state(self, name: str) -> tuple[VersionState, str]:
        (status,) = self.stage.catalog.states(name)
        return status.state, status.reason


def fill(repository: Path) -> None:
    models.write_version(repository, "double", "1", models.affine(2.0))
    models.write_version(repository, "double", "2", models.affine(3.0))
    models.write_version(repository, "add", "1", models.affine(1.0, 3.0), config="response_cache { enable: true }")
    models.write_version(repository, "pair", "1", models.add_sub(Datatype.FP32, features=4))
    models.write_version(repository, "echo", "1", models.identity(Datatype.BYTES, (-1, 2)))
    models.write_version(repository, "fragile", "1", models.fragile())
    models.write_version(repository, "turns", "1", models.turns())
