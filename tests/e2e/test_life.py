"""From a start to the next one: what is kept, and that the log holds every prediction."""

import json
import queue
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.pb import inference_pb2 as pb
from tests.e2e.calls import infer, refusal
from tests.e2e.conftest import Demo, connect
from tests.e2e.product import GATEWAY, Product, environment

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Served = Counter[tuple[str, str, str, int]]


@pytest.fixture(scope="module")
def living(start_product: Callable[..., Product], tmp_path_factory: pytest.TempPathFactory) -> Product:
    quotas = tmp_path_factory.mktemp("quotas") / "quotas.yaml"
    quotas.write_text("quotas: [{name: spare, models: [spare], requests-per-second: 0.001, concurrency: 8}]")
    return start_product("living", "--reflection", "--quotas", str(quotas))


def test_reflection_lists_the_services_when_it_is_on(living: Product) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with connect(living) as channel:
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=20)
        names = {service.name for service in next(answers).list_services_response.service}
    assert names >= {"inference.GRPCInferenceService", "gateway.v1.Control", "grpc.health.v1.Health"}


def test_quotas_are_enforced_shown_and_counted(living: Product) -> None:
    """By a model that is not there: what is over the quota is not even looked for."""
    asked = pb.ModelInferRequest(model_name="spare")
    with connect(living) as channel:
        codes = [refusal(channel, asked).code.name for _ in range(3)]
    assert codes == ["NOT_FOUND", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    shown = living.cli("quotas", "-o", "json")
    assert shown.exit_code == 0, shown.output
    value = json.loads(shown.stdout)
    (quota,) = value["quotas"]
    workers = len(living.children("worker"))
    assert (value["workers"], quota["name"], quota["concurrency"], quota["refused"]) == (workers, "spare", 8, 2)
    table = living.cli("quotas").stdout
    assert f"{8 // workers} at a time" in table
    assert f"summed over {workers} workers" in table
    assert living.metrics()['gateway_quota_refused_total{limit="requests",quota="spare",who=""}'] == 2
    assert all(living.metrics()[f'gateway_quota_trouble{{worker="{slot}"}}'] == 0 for slot in range(workers))


def test_every_prediction_is_logged_and_the_next_start_goes_on(living: Product, demo: Demo) -> None:
    assert living.cli("routes", "apply", "-f", str(EXAMPLES / "ab.yaml")).exit_code == 0
    with Tail(living) as lines:
        hello = _until_followed(living, demo, lines)
        served = _serve(living, demo, "first", 240)
        # As they come: the gateway runs on.
        shown = [json.loads(lines.get(timeout=20)) for _ in range(240)]
    assert {row["request_id"] for row in shown} == {request_id for request_id, *_ in served}
    served += hello
    assert {(row["version"], row["arm"], row["code"]) for row in shown} == {("1", "a", "OK"), ("2", "b", "OK")}
    living.stop()
    assert _logged(living) == served

    living.start()
    again = _serve(living, demo, "second", 240)
    assert {revision for *_, revision in again} == {revision for *_, revision in served}  # the route was kept
    _explains_from_parquet(living, served)
    living.stop()
    assert _logged(living) == served + again


def _explains_from_parquet(product: Product, served: Served) -> None:
    """What was served is explained though no write-ahead log holds it any more, whatever the route is by now."""
    assert product.cli("weights", "digits", "a=70", "b=30").exit_code == 0
    for request_id, version, arm, revision in list(served)[:6]:
        asked = ("explain", "digits", "--request-id", request_id, "--data-dir", str(product.data), "-o", "json")
        done = product.cli(*asked)
        assert done.exit_code == 0, done.stderr
        explained = json.loads(done.stdout)
        assert explained["agrees"]
        for outcome in (explained["served"], explained["decision"]):
            assert (outcome["version"], outcome["arm"], outcome["revision"]) == (version, arm, revision)
        assert "Parquet files of" in explained["searched"][-1]
    never = product.cli("explain", "digits", "--request-id", "never", "--data-dir", str(product.data))
    assert (never.exit_code, "nor in the Parquet files" in never.stderr) == (1, True)
    elsewhere = product.cli("explain", "digits", "--request-id", "never", "--data-dir", "/nowhere")
    assert (elsewhere.exit_code, "name the gateway's own with --data-dir" in elsewhere.stderr) == (1, True)


def _until_followed(product: Product, demo: Demo, lines: "queue.Queue[str]") -> Served:
    """Predictions until the tail shows one, and until it has shown the last of them."""
    served: Served = Counter()
    number, shown = 0, ""
    while not shown:
        number += 1
        assert number < 200, "the tail shows nothing"
        served += _serve(product, demo, f"hello-{number}", 1)
        with suppress(queue.Empty):
            shown = json.loads(lines.get(timeout=0.2))["request_id"]
    while shown != f"hello-{number}-0":
        shown = json.loads(lines.get(timeout=20))["request_id"]
    return served


def _serve(product: Product, demo: Demo, name: str, count: int) -> Served:
    """What the answers said: request id, version, arm, revision."""
    served: Served = Counter()
    rows = demo.rows("digits")
    channels = [connect(product) for _ in range(4)]
    for number in range(count):
        request_id = f"{name}-{number}"
        user = [("x-user-id", f"user-{number % 60}")]
        answer = infer(channels[number % 4], "digits", rows[number % len(rows)], key=user, request_id=request_id)
        served[(request_id, answer.version, answer.arm, int(answer.said["x-gateway-revision"]))] += 1
    for channel in channels:
        channel.close()
    return served


def _logged(product: Product) -> Served:
    """The same from the Parquet files."""
    files = sorted((product.data / "log" / "lake" / "predictions" / "model_dir=digits").rglob("*.parquet"))
    table = ds.dataset(files, format="parquet").to_table(columns=["request_id", "version", "arm", "rule_rev", "status"])
    rows = table.to_pylist()
    assert {row["status"] for row in rows} == {0}
    return Counter((row["request_id"], row["version"], row["arm"], row["rule_rev"]) for row in rows)


class Tail:
    """`gateway log tail` in a process of its own; the lines that it prints."""

    def __init__(self, product: Product) -> None:
        self._command = [str(GATEWAY), "log", "tail", "digits", "-n", "0", "-o", "json", "--server", product.server]
        self._lines: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> "queue.Queue[str]":
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=environment())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self._lines

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._reader.join(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
