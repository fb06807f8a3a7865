"""Triton's own HTTP clients, whole: every public method of the blocking client and of the asyncio one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import tritonclient.http as blocking
import tritonclient.http.aio as cooperative
from tritonclient.utils import InferenceServerException

from tests.api.calls import is_well
from tests.api.stand import Stand

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
_NO_CALLS = {"close", "plugin", "register_plugin", "unregister_plugin"}  # of the client alone
Refused = InferenceServerException


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _well_after(stand: Stand) -> AsyncIterator[None]:
    yield
    await is_well(stand)


def x(data: Any = ROWS, *, binary: bool = True) -> Any:
    tensor = blocking.InferInput("x", list(data.shape), "FP32")
    return tensor.set_data_from_numpy(data, binary_data=binary)


class Method:
    """How a method is called, and what is true of its result; or with which status it is refused."""

    def __init__(self, *arguments: Any, holds: Callable[[Any], Any] = lambda _: True, refused: str = "", **named: Any):
        self.arguments, self.named, self.holds, self.refused = arguments, named, holds, refused


METHODS: dict[str, list[Method]] = {
    "is_server_live": [Method(holds=lambda live: live is True)],
    "is_server_ready": [Method(holds=lambda ready: ready is True)],
    "is_model_ready": [
        Method("affine", holds=lambda ready: ready is True),
        Method("affine", "2", holds=lambda ready: ready is True),
        Method("nobody", holds=lambda ready: ready is False),
        Method("broken", holds=lambda ready: ready is False),
    ],
    "get_server_metadata": [Method(holds=lambda told: "binary_tensor_data" in told["extensions"])],
    "get_model_metadata": [
        Method("affine", holds=lambda told: told["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}),
        Method("affine", "1", query_params={"a": ["b c", 1]}, holds=lambda told: told["versions"] == ["1", "2"]),
        Method("no model/at all", refused="404"),
    ],
    "get_model_config": [Method("affine", holds=lambda told: told["input"][0]["dims"] == [4])],
    "get_model_repository_index": [Method(holds=lambda told: {"affine"} <= {one["name"] for one in told})],
    "load_model": [
        Method("gather"),
        Method("affine", config="{", refused="400"),
        Method("affine", config="{}", files={"file:1/model.onnx": b"x"}, refused="501"),
    ],
    "unload_model": [Method("gather", unload_dependents=True), Method("nobody", refused="404")],
    "get_inference_statistics": [
        Method(holds=lambda told: "affine" in {one["name"] for one in told["model_stats"]}),
        Method("affine", "1", holds=lambda told: len(told["model_stats"]) == 1),
        Method("nobody", refused="404"),
    ],
    "get_trace_settings": [
        Method(holds=lambda told: told["trace_level"] == ["OFF"]),
        Method("affine", holds=lambda told: told["trace_rate"] == "1000"),
        Method("nobody", refused="404"),
    ],
    "update_trace_settings": [
        Method("affine", {"trace_level": ["OFF"], "trace_rate": None}, holds=lambda told: told["trace_file"] == ""),
        Method(settings={"trace_level": ["TIMESTAMPS"]}, refused="501"),
        Method(settings={"nothing": "1"}, refused="400"),
    ],
    "get_log_settings": [Method(holds=lambda told: told["log_format"] == "default")],
    "update_log_settings": [
        Method({"log_format": "default"}, holds=lambda told: "log_info" in told),
        Method({"log_verbose_level": 3}, refused="501"),
    ],
    "get_system_shared_memory_status": [Method(holds=lambda told: told == []), Method("r", refused="404")],
    "register_system_shared_memory": [Method("r", "/k", 8, refused="501")],
    "unregister_system_shared_memory": [Method(), Method("r")],
    "get_cuda_shared_memory_status": [Method(holds=lambda told: told == []), Method("r", refused="404")],
    "register_cuda_shared_memory": [Method("r", b"handle", 0, 8, refused="501")],
    "unregister_cuda_shared_memory": [Method(), Method("r")],
    "infer": [
        Method("affine", [x()], holds=lambda got: np.array_equal(got.as_numpy("y"), ROWS * 3)),
        Method("affine", [x(binary=False)], model_version="1", request_id="r", priority=1, timeout=5_000_000),
        Method("affine", [x()], parameters={"own": "p"}, headers={"x-user-id": "u"}, query_params={"q": 1}),
        Method("affine", [x()], outputs=[blocking.InferRequestedOutput("y", binary_data=False)]),
        Method("affine", [x()], outputs=[blocking.InferRequestedOutput("y")], request_id="r 1"),
        Method("affine", [x()], request_compression_algorithm="gzip", response_compression_algorithm="gzip"),
        Method("affine", [x(binary=False)], request_compression_algorithm="deflate"),
        Method(
            *("classifier", [x()]),
            outputs=[blocking.InferRequestedOutput("scores", class_count=1)],
            holds=lambda got: got.as_numpy("scores").shape == (2, 1),
        ),
        Method("affine", [x()], sequence_id=7, sequence_start=True),
        Method("nobody", [x()], refused="404"),
        Method("affine", [x(ROWS[:, :2])], refused="400"),
        Method("affine", [blocking.InferInput("x", [2, 4], "FP32").set_shared_memory("r", 32)], refused="501"),
    ],
    "async_infer": [
        Method("affine", [x()], holds=lambda got: np.array_equal(got.get_result().as_numpy("y"), ROWS * 3)),
        Method("affine", [x()], model_version="1", holds=lambda got: got.get_result().get_response()["outputs"]),
    ],
    "generate_request_body": [Method([x()], holds=lambda made: made[1])],
    "parse_response_body": [Method(b'{"outputs":[]}', holds=lambda got: got.get_response() == {"outputs": []})],
}


def methods_of(client: type) -> set[str]:
    return {name for name in dir(client) if not name.startswith("_")} - _NO_CALLS


async def test_every_method_of_the_clients_is_called() -> None:
    every = methods_of(blocking.InferenceServerClient)
    assert every == set(METHODS)
    assert methods_of(cooperative.InferenceServerClient) <= every


@pytest.mark.parametrize("name", METHODS)
async def test_the_blocking_client(stand: Stand, name: str) -> None:
    def call() -> None:
        with blocking.InferenceServerClient(f"127.0.0.1:{stand.rest_port}") as client:
            for method in METHODS[name]:
                if not method.refused:
                    assert method.holds(getattr(client, name)(*method.arguments, **method.named)), method.arguments
                    continue
                with pytest.raises(Refused) as caught:
                    getattr(client, name)(*method.arguments, **method.named)
                assert caught.value.status() == method.refused, caught.value

    await asyncio.to_thread(call)


@pytest.mark.parametrize("name", sorted(methods_of(cooperative.InferenceServerClient) & set(METHODS)))
async def test_the_asyncio_client(stand: Stand, name: str) -> None:
    async with cooperative.InferenceServerClient(f"127.0.0.1:{stand.rest_port}") as client:
        for method in METHODS[name]:
            called = getattr(client, name)(*method.arguments, **method.named)
            if not method.refused:
                result = await called if asyncio.iscoroutine(called) else called
                assert method.holds(result), method.arguments
                continue
            with pytest.raises(Refused) as caught:
                await called
            assert caught.value.status() == method.refused, caught.value


async def test_bytes_of_any_kind_travel_in_binary(stand: Stand) -> None:
    texts = np.array([["a", "grün"], ["", "\x00"]], np.object_)
    tensor = cooperative.InferInput("x", [2, 2], "BYTES")
    async with cooperative.InferenceServerClient(f"127.0.0.1:{stand.rest_port}") as client:
        for binary in (True, False):
            tensor.set_data_from_numpy(texts, binary_data=binary)
            wanted = [cooperative.InferRequestedOutput("y", binary_data=binary)]
            got = (await client.infer("echo-BYTES", [tensor], outputs=wanted)).as_numpy("y")
            assert [one if isinstance(one, str) else one.decode() for one in got.flat] == list(texts.flat)


async def test_many_calls_on_one_client(stand: Stand) -> None:
    async with cooperative.InferenceServerClient(f"127.0.0.1:{stand.rest_port}", conn_limit=8) as client:
        results = await asyncio.gather(*(client.infer("affine", [x(ROWS + n)], model_version="1") for n in range(64)))
    for n, result in enumerate(results):
        assert np.array_equal(result.as_numpy("y"), (ROWS + n) * 2)
