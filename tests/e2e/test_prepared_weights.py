"""Weights that workers have mapped, and a file that is cut short under them."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.pb import inference_pb2 as pb
from gateway.serving.session import WEIGHTS_FILENAME
from tests import models
from tests.e2e.calls import stub
from tests.e2e.conftest import OWN_CONNECTION
from tests.e2e.product import Product, until
from tests.serving.prepared_models import WIDTH, multiplied, weights

pytestmark = pytest.mark.long  # a start of its own, and each worker dies and starts again


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    models.write_version(tmp_path / "models", "m", "1", multiplied())
    running = Product(tmp_path, tmp_path / "models", "--prepare-min-bytes", "1").start()
    try:
        yield running
        running.stop()
    finally:
        running.kill()


def asked(product: Product, seed: int) -> grpc.StatusCode:
    """The status of a call with inputs of its own, on a connection of its own; an answer is right."""
    x = weights(1, WIDTH, seed=seed)
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    message.raw_input_contents.append(x.tobytes())
    with grpc.insecure_channel(product.server, options=[*OWN_CONNECTION, ("grpc.enable_retries", 0)]) as channel:
        call = stub(channel).ModelInfer.future(message, timeout=20)
        if call.exception() is None:
            answer = np.frombuffer(call.result().raw_output_contents[0], np.float32)
            assert np.allclose(answer, (x @ weights(WIDTH, WIDTH))[0], rtol=1e-4, atol=1e-4)
        code: grpc.StatusCode = call.code()
        return code


def test_a_weights_file_that_is_cut_short_costs_calls_of_its_workers_and_no_request_is_blamed(product: Product) -> None:
    assert "version=1 " in product.events()
    assert product.events().count("weights=shared") >= 2
    assert asked(product, 0) is grpc.StatusCode.OK
    [file] = (product.data / "prepared").glob(f"*/{WEIGHTS_FILENAME}")
    file.chmod(0o600)
    os.truncate(file, 0)
    codes: list[grpc.StatusCode] = []

    def has_healed() -> bool:
        codes.append(asked(product, len(codes)))
        return product.events().count("its own: its prepared form was damaged, and thrown away") >= 2

    until(has_healed, 60, "each worker has its own weights")
    until(lambda: all(one["state"] == "READY" for one in product.children("worker")), 30, "all workers are back")
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert {asked(product, seed) for seed in range(len(codes) + 20)} == {
        grpc.StatusCode.OK
    }  # the same ones, and others
    assert not file.exists()
    metrics = product.metrics()
    assert {metrics[name] for name in metrics if name.startswith("gateway_refused_inputs{")} <= {0.0}
    assert {metrics[name] for name in metrics if name.startswith("gateway_version_quarantined{")} <= {0.0}
