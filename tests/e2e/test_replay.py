"""What a gateway has served, replayed and run again by what it leaves behind: its log, its models, its runtime."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml

from gateway.pb import inference_pb2 as pb
from gateway.tensor import Datatype
from tests import models
from tests.e2e.calls import stub
from tests.e2e.conftest import connect
from tests.e2e.product import Product, command, until

REQUESTS = 8


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp("replayed")
    repository = directory / "models"
    for version in ("1", "2"):
        models.write_version(repository, "kinds", version, models.classifier())
    models.write_version(repository, "words", "1", models.identity(Datatype.BYTES, (-1, 2)))
    models.write_version(repository, "images", "1", models.identity(Datatype.FP16, (-1, 2, 3)))
    made = Product(directory, repository).start()
    ask(made)
    made.stop()  # what was logged is in the lake then
    yield made
    made.kill()


def ask(product: Product) -> None:
    """Requests of one to three rows: for version 1 of `kinds`, for texts that are no UTF-8 too, for half precision."""
    rng = np.random.default_rng(4)
    with connect(product) as channel:
        for number in range(REQUESTS):
            rows = number % 3 + 1
            x = rng.normal(size=(rows, 4)).astype("<f4")
            send(stub(channel), "kinds", f"k{number}", "FP32", x.shape, x.tobytes())
            half = rng.normal(size=(rows, 2, 3)).astype("<f2")
            send(stub(channel), "images", f"i{number}", "FP16", half.shape, half.tobytes())
            texts = [b"plain", b"base64:YQ=="] * rows
            send(stub(channel), "words", f"w{number}", "BYTES", (rows, 2), b"".join(map(sized, texts)))


def sized(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


def send(service: object, model: str, request_id: str, datatype: str, shape: tuple[int, ...], content: bytes) -> None:
    message = pb.ModelInferRequest(model_name=model, model_version="1", id=request_id, raw_input_contents=[content])
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    service.ModelInfer(message, timeout=20)  # type: ignore[attr-defined]


def test_what_was_served_is_replayed_and_run_again_by_what_is_left(product: Product) -> None:
    data = "--data-dir", str(product.data)  # the repository is known by what the supervisor has written down

    same = command("replay", "kinds", "--version", "2", "--against", "1", "-o", "json", "--fail-above", "20%", *data)
    assert same.returncode == 0, same.stderr
    report = json.loads(same.stdout)
    rows = sum(number % 3 + 1 for number in range(REQUESTS))
    assert (report["rows"], report["requests"], report["changed"]["rows"]) == (rows, REQUESTS, 0)
    assert (report["comparable"], report["bit_equal"]) == (rows, rows)

    for model, request_id in (("images", "i2"), ("words", "w1")):
        told = command("rerun", model, request_id, "-o", "json", *data)
        assert told.returncode == 0, told.stderr + told.stdout
        made = json.loads(told.stdout)
        assert (made["outcome"], made["environment_known"], made["environment"]) == ("bit-equal", True, [])


@pytest.mark.long
def test_a_canary_begins_with_a_replay_by_the_control_process(product: Product) -> None:
    product.start()
    canary = {"steps": [{"offline": {"window": "1d", "failAbove": "30%"}}, {"weight": "10%", "hold": "1h"}]}
    spec = {"arms": {"stable": {"version": "1"}, "canary": {"version": "2"}}, "strategy": {"canary": canary}}
    document = {"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": "kinds"}, "spec": spec}
    path = product.directory / "route.yaml"
    path.write_text(yaml.safe_dump(document))
    assert product.cli("routes", "apply", "-f", str(path)).exit_code == 0

    def shown() -> dict[str, Any]:
        return dict(json.loads(product.cli("rollout", "show", "kinds", "-o", "json").stdout or "{}"))

    until(lambda: shown().get("step") == 2, 60, "the step with traffic after the replay")
    entries = json.loads(product.cli("audit", "list", "--model", "kinds", "-o", "json").stdout)
    assert [entry["operation"] for entry in entries] == ["promote", "rollout.offline", "apply"]
    assert json.loads(entries[1]["detail"])["verdict"] == "pass"
    verified = product.cli("audit", "verify", "--verdict", str(entries[0]["sequence"]))
    assert verified.exit_code == 0, verified.output
    product.stop()
