"""What the issue asks to be shown, with Triton's own client: an application that knows nothing of this gateway."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from gateway.pb import inference_pb2 as pb
from tests.e2e.calls import infer, refusal, stub
from tests.e2e.conftest import Demo
from tests.e2e.product import Product, until

pytestmark = pytest.mark.usefixtures("no_routes")


@pytest.fixture
def client(product: Product) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(product.server) as made:
        yield made


def image(rows: np.ndarray) -> list[Any]:
    tensor = triton.InferInput("image", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return [tensor]


@pytest.fixture(scope="module")
def digits(demo: Demo) -> dict[str, np.ndarray]:
    with np.load(demo.samples / "digits.npz") as file:
        return dict(file)


@pytest.mark.parametrize("version", ["1", "2"])
def test_infer_on_both_versions(
    client: triton.InferenceServerClient, digits: dict[str, np.ndarray], version: str
) -> None:
    result = client.infer("digits", image(digits["inputs/image"][:7]), model_version=version, request_id="seven")
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("digits", version, "seven")
    np.testing.assert_array_equal(result.as_numpy("label"), digits[f"outputs/{version}/label"][:7])
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), digits[f"outputs/{version}/probabilities"][:7], atol=1e-4
    )


def test_without_a_version_the_newest_answers(
    client: triton.InferenceServerClient, digits: dict[str, np.ndarray]
) -> None:
    assert client.infer("digits", image(digits["inputs/image"][:1])).get_response().model_version == "2"


def test_classification_names_the_labels(client: triton.InferenceServerClient, digits: dict[str, np.ndarray]) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    result = client.infer("digits", image(digits["inputs/image"][:1]), model_version="2", outputs=wanted)
    first, second = [text.decode().split(":") for text in result.as_numpy("probabilities")[0]]
    assert first[2] == str(digits["outputs/2/label"][0, 0])
    assert float(first[0]) >= float(second[0])


def test_live_ready_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("no-such-model")
    assert not client.is_model_ready("digits", "99")
    assert client.get_server_metadata().name
    metadata = client.get_model_metadata("digits")
    assert list(metadata.versions) == ["1", "2"]
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in metadata.inputs] == [("image", "FP32", [-1, 64])]


def test_the_configuration(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("flight_delay").config
    assert (config.name, config.max_batch_size) == ("flight_delay", 256)
    assert [tensor.name for tensor in config.input] == ["AIRLINE", "DISTANCE", "TAXI_OUT", "AIR_TIME", "WEEKDAY"]


def test_settings_and_shared_memory(client: triton.InferenceServerClient) -> None:
    client.get_trace_settings()
    client.get_log_settings()
    assert not client.get_system_shared_memory_status().regions
    with pytest.raises(triton.InferenceServerException, match="UNIMPLEMENTED"):
        client.register_system_shared_memory("region", "/region", 64)


def test_a_stream_answers_every_request(client: triton.InferenceServerClient, digits: dict[str, np.ndarray]) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    rows = digits["inputs/image"]
    for number in range(20):
        client.async_stream_infer(
            "digits", image(rows[number : number + 1]), request_id=str(number), model_version=str(number % 2 + 1)
        )
    seen = {}
    for _ in range(20):
        result, error = answers.get(timeout=20)
        assert error is None
        seen[result.get_response().id] = result
    client.stop_stream()
    assert seen.keys() == {str(number) for number in range(20)}
    for text, result in seen.items():
        number = int(text)
        expected = digits[f"outputs/{number % 2 + 1}/label"][number : number + 1]
        np.testing.assert_array_equal(result.as_numpy("label"), expected)


def test_statistics_count_what_was_sent_to_all_workers(
    client: triton.InferenceServerClient, channels: list[grpc.Channel], demo: Demo
) -> None:
    def counted() -> dict[str, tuple[int, int]]:
        return {
            entry.version: (entry.inference_stats.success.count, entry.inference_count)
            for entry in client.get_inference_statistics("digits").model_stats
        }

    before = counted()
    row = demo.rows("digits")[0]
    for number, channel in enumerate(channels * 5):
        infer(channel, "digits", row, version=str(number % 2 + 1))
    wanted = {version: (before[version][0] + 20, before[version][1] + 20) for version in ("1", "2")}
    assert counted() == wanted
    # Every worker tells the same.
    for channel in channels:
        answer = stub(channel).ModelStatistics(pb.ModelStatisticsRequest(name="digits", version="1"), timeout=20)
        assert answer.model_stats[0].inference_stats.success.count == wanted["1"][0]


def test_unload_and_load_reach_all_workers(
    client: triton.InferenceServerClient, channels: list[grpc.Channel], demo: Demo
) -> None:
    row = demo.rows("breast_cancer")[0]
    index = {(entry.name, entry.version): entry.state for entry in client.get_model_repository_index().models}
    assert index[("breast_cancer", "1")] == "READY"
    client.unload_model("breast_cancer")
    try:
        index = {(entry.name, entry.version): entry.state for entry in client.get_model_repository_index().models}
        assert index[("breast_cancer", "1")] == "UNAVAILABLE"
        message = pb.ModelInferRequest(model_name="breast_cancer", inputs=row.tensors, raw_input_contents=row.raw)
        for channel in channels:
            refused = refusal(channel, message)
            assert refused.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND), refused
            assert not ready(channel, "breast_cancer")
    finally:
        client.load_model("breast_cancer")
    for channel in channels:
        assert infer(channel, "breast_cancer", row).version == "1"


def ready(channel: grpc.Channel, model: str, version: str = "") -> bool:
    """Whether this worker serves it; what it does not know it does not serve."""
    try:
        answer = stub(channel).ModelReady(pb.ModelReadyRequest(name=model, version=version), timeout=20)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return bool(answer.ready)


def test_a_new_version_directory_is_served_and_its_removal_too(product: Product, channels: list[grpc.Channel]) -> None:
    """Version 3 is a copy of version 2 under a new number; it is found by the poll."""
    source, added = product.repository / "digits" / "2", product.repository / "digits" / "3"
    staged = product.directory / "staged"
    staged.mkdir()
    (staged / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    staged.rename(added)
    until(lambda: all(ready(channel, "digits", "3") for channel in channels), 30, "version 3 is ready")
    (added / "model.onnx").unlink()
    added.rmdir()
    until(lambda: not any(ready(channel, "digits", "3") for channel in channels), 30, "version 3 is gone")
    assert all(ready(channel, "digits", "2") for channel in channels)
