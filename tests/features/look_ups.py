"""A worker that serves the feature view users, and what is asked of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from gateway.pb import inference_pb2 as pb
from gateway.telemetry.sums import Tree, branch
from gateway.tensor import BY_NAME, Datatype
from tests.api.stand import Stand, standing
from tests.features.views import USERS, write_view

FEATURES = (
    ("score", Datatype.FP32, 1),
    ("visits", Datatype.INT64, 1),
    ("embedding", Datatype.FP32, 2),
    ("status", Datatype.UINT8, 3),
    ("age", Datatype.FP32, 1),
)
PATIENT = {**USERS, "deadline_ms": "1000"}
PARAMETERS = {**PATIENT, "default.score": "-1", "default.visits": "7", "default.embedding": "[0.5, 0.25]"}
TOLD = {**PARAMETERS, "timestamp_field": "at", "status_output": "status", "age_output": "age"}
HOUR = {**TOLD, "max_age_seconds": "3600"}
V, M, S, U, A = range(5)


@asynccontextmanager
async def view(
    tmp_path: Path,
    url: str,
    parameters: Mapping[str, str],
    features: Sequence[tuple[str, Datatype, int]] = FEATURES,
) -> AsyncIterator[Stand]:
    """A worker that serves the feature view `users`."""
    write_view(tmp_path / "models", "users", parameters, features=features)
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": url}
    ) as stand:
        yield stand


def asking(*users: int, outputs: Sequence[str] = ()) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="users")
    request.inputs.add(name="user_id", datatype="INT64", shape=[len(users), 1])
    request.raw_input_contents.append(np.array(users, "<i8").tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    return request


async def ask(
    stand: Stand, *users: int, outputs: Sequence[str] = (), limit_s: float = 10
) -> dict[str, list[list[float]]]:
    answer = await stand.stub.ModelInfer(asking(*users, outputs=outputs), timeout=10)
    return {
        output.name: np.frombuffer(raw, BY_NAME[output.datatype].dtype).reshape(output.shape).tolist()
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def counted(stand: Stand) -> Tree:
    return branch(stand.counters.snapshot(), "sums", "features", "users")
