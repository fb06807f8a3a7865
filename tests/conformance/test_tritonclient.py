"""Triton's own clients against the gateway: everything that tritonclient.grpc can ask for."""

import asyncio
import queue
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from gateway.tensor import Datatype
from tests import models
from tests.api.stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["ngh2", "grpcio"])
async def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("triton")
    repository = data / "models"
    models.write_version(repository, "simple", "1", models.add_sub(), config="max_batch_size: 8")
    models.write_version(repository, "affine", "1", models.affine(2.0))
    models.write_version(repository, "classifier", "1", models.classifier())
    for datatype in (Datatype.BYTES, Datatype.BF16, Datatype.FP16, Datatype.BOOL):
        models.write_version(repository, f"echo-{datatype.wire_name}", "1", models.identity(datatype, (-1, 2)))
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with standing(repository, data, probes=probes, transport=request.param) as made:
        yield made


def simple_inputs(value: int = 1, rows: int = 1) -> tuple[Any, list[Any]]:
    data = np.full((rows, 16), value, np.int32) + np.arange(16, dtype=np.int32)
    inputs = [triton.InferInput(name, [rows, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for item in inputs:
        item.set_data_from_numpy(data)
    return data, inputs


async def in_thread(stand: Stand, use: Any) -> Any:
    """What `use` makes of a blocking client, on a thread of its own."""

    def run() -> Any:
        with triton.InferenceServerClient(stand.address) as client:
            return use(client)

    return await asyncio.to_thread(run)


async def test_health_and_metadata(stand: Stand) -> None:
    def use(client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("simple")
        assert client.is_model_ready("simple", "1")
        assert client.get_server_metadata().name == "gateway"
        metadata = client.get_model_metadata("simple", as_json=True)
        assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": ["-1", "16"]}
        config = client.get_model_config("simple", as_json=True)["config"]
        assert config["name"] == "simple"
        assert config["max_batch_size"] == 8
        with pytest.raises(
            InferenceServerException, match="Request for unknown model: 'nobody' is not found"
        ) as caught:
            client.get_model_metadata("nobody")
        assert caught.value.status() == "StatusCode.NOT_FOUND"

    await in_thread(stand, use)


async def test_inference(stand: Stand) -> None:
    def use(client: Any) -> None:
        for value in range(5):
            data, inputs = simple_inputs(value, rows=2)
            result = client.infer("simple", inputs, request_id=f"id-{value}")
            assert result.get_response().id == f"id-{value}"
            assert (result.as_numpy("OUTPUT0") == data * 2).all()
            assert (result.as_numpy("OUTPUT1") == 0).all()
            outputs = [triton.InferRequestedOutput("OUTPUT1")]
            result = client.infer("simple", inputs, outputs=outputs, model_version="1", priority=1, timeout=10_000_000)
            assert result.as_numpy("OUTPUT0") is None
            assert result.as_numpy("OUTPUT1").shape == (2, 16)
        result = client.infer("simple", inputs, parameters={"tier": "beta", "n": 1, "b": True}, headers={"x-user": "u"})
        assert (result.as_numpy("OUTPUT0") == data * 2).all()
        sequence = client.infer("simple", inputs, sequence_id="s", sequence_start=True)
        assert (sequence.as_numpy("OUTPUT0") == data * 2).all()

    await in_thread(stand, use)


async def test_text_and_half_floats(stand: Stand) -> None:
    values = {
        "BYTES": np.array([["ü".encode(), b""], [b"a\0b", b"\n"]], np.object_),
        "BF16": np.array([[1.5, -2.0]], ml_dtypes.bfloat16),
        "FP16": np.array([[1.5, np.inf]], np.float16),
        "BOOL": np.array([[True, False]]),
    }

    def use(client: Any) -> None:
        for datatype, data in values.items():
            item = triton.InferInput("x", list(data.shape), datatype)
            item.set_data_from_numpy(data)
            answer = client.infer(f"echo-{datatype}", [item]).as_numpy("y")
            assert answer.tolist() == data.tolist()

    await in_thread(stand, use)


async def test_classification(stand: Stand) -> None:
    def use(client: Any) -> None:
        item = triton.InferInput("x", [2, 4], "FP32")
        item.set_data_from_numpy(np.array([[9, 0, 0, 0], [0, 0, 9, 0]], np.float32))
        outputs = [triton.InferRequestedOutput("scores", class_count=1)]
        top = client.infer("classifier", [item], outputs=outputs).as_numpy("scores")
        assert [row[0].split(b":")[1] for row in top] == [b"0", b"2"]

    await in_thread(stand, use)


async def test_errors_have_status_and_text(stand: Stand) -> None:
    def use(client: Any) -> None:
        _, inputs = simple_inputs(rows=9)
        with pytest.raises(InferenceServerException, match="batch-size must be <= 8 for 'simple'") as caught:
            client.infer("simple", inputs)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        item = triton.InferInput("INPUT0", [1, 16], "INT32")
        item.set_shared_memory("region", 64)
        with pytest.raises(InferenceServerException, match="shared memory is not supported") as caught:
            client.infer("simple", [item, simple_inputs()[1][1]])
        data, inputs = simple_inputs()
        assert (client.infer("simple", inputs).as_numpy("OUTPUT0") == data * 2).all()

    await in_thread(stand, use)


async def test_callbacks_and_cancellation(stand: Stand) -> None:
    def use(client: Any) -> None:
        done: queue.Queue[tuple[Any, Any]] = queue.Queue()
        data, inputs = simple_inputs()
        for _ in range(10):
            client.async_infer("simple", inputs, callback=lambda result, error: done.put((result, error)))
        for _ in range(10):
            result, error = done.get(timeout=10)
            assert error is None
            assert (result.as_numpy("OUTPUT0") == data * 2).all()
        context = client.async_infer("simple", inputs, callback=lambda result, error: done.put((result, error)))
        context.cancel()
        done.get(timeout=10)

    await in_thread(stand, use)


async def test_streaming(stand: Stand) -> None:
    def use(client: Any) -> None:
        done: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(callback=lambda result, error: done.put((result, error)))
        for value in range(20):
            client.async_stream_infer("simple", simple_inputs(value)[1], request_id=str(value))
        seen = {}
        for _ in range(20):
            result, error = done.get(timeout=10)
            assert error is None
            seen[int(result.get_response().id)] = result.as_numpy("OUTPUT0")[0, 0]
        assert seen == {value: 2 * value for value in range(20)}
        client.async_stream_infer("nobody", simple_inputs()[1])
        _, error = done.get(timeout=10)
        assert "is not found" in str(error)
        client.async_stream_infer("simple", simple_inputs(7)[1], enable_empty_final_response=True)
        result, error = done.get(timeout=10)
        assert result.get_response().parameters["triton_final_response"].bool_param
        client.stop_stream()

    await in_thread(stand, use)


async def test_repository_and_statistics(stand: Stand, tmp_path: Path) -> None:
    models.write_version(stand.repository, "late", "1", models.affine(4.0))

    def use(client: Any) -> None:
        client.load_model("late")
        assert client.is_model_ready("late")
        index = {item["name"]: item for item in client.get_model_repository_index(as_json=True)["models"]}
        assert index["late"]["state"] == "READY"
        client.infer("late", [_floats()])
        (stats,) = client.get_inference_statistics("late", as_json=True)["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == "1"
        assert stats["execution_count"] == "1"
        client.load_model("late", config='{"max_batch_size": 2}')
        assert client.get_model_config("late").config.max_batch_size == 2
        with pytest.raises(InferenceServerException, match="not taken from requests"):
            client.load_model("late", config='{"max_batch_size": 2}', files={"file:1/model.onnx": b"x"})
        client.unload_model("late")
        client.unload_model("late", unload_dependents=True)
        with pytest.raises(InferenceServerException):
            client.infer("late", [_floats()])

    await in_thread(stand, use)


async def test_settings_and_shared_memory(stand: Stand) -> None:
    def use(client: Any) -> None:
        assert client.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
        assert "log_info" in client.get_log_settings(as_json=True)["settings"]
        client.update_trace_settings("simple", {"trace_level": None})
        with pytest.raises(InferenceServerException, match="cannot be changed by a call"):
            client.update_trace_settings(settings={"trace_rate": "1"})
        with pytest.raises(InferenceServerException, match="cannot be changed by a call"):
            client.update_log_settings({"log_verbose_level": 3})
        assert not client.get_system_shared_memory_status().regions
        assert not client.get_cuda_shared_memory_status().regions
        with pytest.raises(InferenceServerException, match="shared memory is not supported") as caught:
            client.register_system_shared_memory("r", "/k", 64)
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()

    await in_thread(stand, use)


async def test_the_asyncio_client(stand: Stand) -> None:
    async with triton_aio.InferenceServerClient(stand.address) as client:
        assert await client.is_server_ready()
        data, inputs = simple_inputs(3)
        results = await asyncio.gather(*(client.infer("simple", inputs) for _ in range(50)))
        assert all((result.as_numpy("OUTPUT0") == data * 2).all() for result in results)

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for value in range(5):
                yield {"model_name": "simple", "inputs": simple_inputs(value)[1], "request_id": str(value)}

        seen = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            seen.append(int(result.get_response().id))
        assert sorted(seen) == list(range(5))


async def test_what_perf_analyzer_asks_for(stand: Stand) -> None:
    """Its start: server metadata, model metadata, configuration, statistics before and after the load."""

    def use(client: Any) -> None:
        assert "statistics" in client.get_server_metadata().extensions
        metadata = client.get_model_metadata("affine")
        config = client.get_model_config("affine").config
        assert config.max_batch_size > 0
        assert list(metadata.inputs[0].shape) == [-1, *config.input[0].dims]
        before = client.get_inference_statistics("affine").model_stats[0].inference_stats
        for _ in range(3):
            client.infer("affine", [_floats()])
        after = client.get_inference_statistics("affine").model_stats[0].inference_stats
        assert after.success.count - before.success.count == 3
        for part in ("queue", "compute_input", "compute_infer", "compute_output"):
            assert getattr(after, part).count - getattr(before, part).count == 3

    await in_thread(stand, use)


def _floats() -> Any:
    item = triton.InferInput("x", [1, 4], "FP32")
    item.set_data_from_numpy(np.ones((1, 4), np.float32))
    return item
