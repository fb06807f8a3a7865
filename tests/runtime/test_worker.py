"""A whole gateway: the real supervisor, store, compactor, control process and workers, and grpcio's client."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.pb import control_pb2, control_pb2_grpc, inference_pb2, inference_pb2_grpc
from gateway.runtime.config_parser import parse
from tests.models import affine, fragile, write_version
from tests.runtime.supervised import Supervised, alive, wait_until
from tests.telemetry.otlp_collector import OtlpCollector, collecting, value

RETRY = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "inference.GRPCInferenceService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


class Client:
    """Calls of both services, over one channel that retries what is safe to repeat."""

    def __init__(self, port: int) -> None:
        options = [("grpc.service_config", RETRY), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.inference = inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.control = control_pb2_grpc.ControlStub(self.channel)  # type: ignore[no-untyped-call]

    def infer(self) -> tuple[str, float]:
        """The version that answered, and the first element of its answer to ones."""
        request = inference_pb2.ModelInferRequest(model_name="affine")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(np.ones(4, np.float32).tobytes())
        answer = self.inference.ModelInfer(request, timeout=10)
        return answer.model_version, float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])

    def apply(self, version: str) -> control_pb2.ApplyResponse:
        document = {
            "apiVersion": "gateway/v1",
            "kind": "Route",
            "metadata": {"model": "affine"},
            "spec": {"arms": {"one": {"version": version}}, "strategy": {"pinned": {"arm": "one"}}},
        }
        request = control_pb2.ApplyRequest(document_json=json.dumps(document), wait=control_pb2.WaitFor(applied=True))
        answer: control_pb2.ApplyResponse = self.control.Apply(request, timeout=20)
        return answer

    def counted(self) -> int:
        """Successful calls of all versions, by the statistics of the whole host."""
        answer = self.inference.ModelStatistics(inference_pb2.ModelStatisticsRequest(name="affine"), timeout=10)
        return sum(int(stats.inference_stats.success.count) for stats in answer.model_stats)


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpCollector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, collector: OtlpCollector) -> Iterator[Supervised]:
    root = tmp_path_factory.mktemp("whole")
    (root / "models").mkdir()
    for version, scale in (("1", 2.0), ("2", 3.0)):
        config = "version_policy { latest { num_versions: 1 } }"
        write_version(root / "elsewhere", "affine", version, affine(scale), config=config)
    (root / "models" / "affine").symlink_to(root / "elsewhere" / "affine")
    write_version(root / "models", "fragile", "1", fragile())
    options = {"model-repository": root / "models", "allow-links-to": str(root / "elsewhere"), "log-format": "json"}
    options |= {"otlp-endpoint": collector.url, "trace-ratio": 1.0}
    with Supervised(root / "data", real=True, options=options, errors=root / "stderr") as whole:
        yield whole.wait_serving()


@pytest.fixture
def client(gateway: Supervised) -> Iterator[Client]:
    made = Client(gateway.port("grpc"))
    yield made
    made.channel.close()


def test_it_serves_routes_rolls_back_and_counts(gateway: Supervised, client: Client) -> None:
    assert client.infer() == ("2", 3.0)
    applied = client.apply("1").change  # a version that no policy selects is loaded before the route is committed
    assert len(applied.applied_by) == 2
    assert not applied.laggards
    assert client.infer() == ("1", 2.0)
    client.apply("2")
    back = client.control.Rollback(control_pb2.RollbackRequest(model="affine"), timeout=20)
    assert (back.restored_revision, len(back.applied_by)) == (applied.revision, 2)
    assert client.infer() == ("1", 2.0)
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port('metrics')}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'gateway_requests_total{arm="one",code="OK",model="affine",version="1"} 2.0' in text
    assert 'gateway_route_revision{worker="1"} 3.0' in text


def test_an_overwritten_version_is_audited_once_and_told_with_both_digests(gateway: Supervised, client: Client) -> None:
    repository = Path(gateway.config.models.repository)
    write_version(repository, "loose", "1", affine(2.0))
    before = wait_until(lambda: _digest(client, "loose"))
    # Who tells of the other content must have seen this one: the control process looks once a second.
    wait_until(lambda: [one for one in _events(gateway, "version.ready") if one["data"]["model"] == "loose"])
    write_version(repository, "loose", "1", affine(5.0))
    after = wait_until(lambda: _digest(client, "loose", other_than=before))
    request = control_pb2.AuditRequest(model="loose", limit=10)
    (entry,) = client.control.Audit(request, timeout=10).entries
    assert (entry.operation, entry.detail) == ("version.replaced", f"version 1: {before} -> {after}")
    (told,) = wait_until(lambda: _events(gateway, "version.replaced"))
    assert told["data"] == {"model": "loose", "version": "1", "digest": after, "previous_digest": before}


def test_traces_reach_a_collector_and_latencies_name_them(
    gateway: Supervised, client: Client, collector: OtlpCollector
) -> None:
    client.infer()
    wait_until(lambda: any(span.name == "run" for span in collector.spans))
    (server,) = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER][-1:]
    assert value(server, "gateway.model") == "affine"
    scrape = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port('metrics')}/metrics", headers={"accept": "application/openmetrics-text"}
    )
    with urllib.request.urlopen(scrape, timeout=10) as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    exemplars = [one.exemplar for one in families["gateway_request_seconds"].samples if one.exemplar]
    sampled = {span.trace_id.hex() for span in collector.spans}
    assert sampled & {exemplar.labels["trace_id"] for exemplar in exemplars}
    spans = {one.labels["outcome"]: one.value for one in families["gateway_trace_spans"].samples}
    assert spans["exported"] >= 3
    assert spans["failed"] == 0


def test_every_line_of_every_process_is_one_object(gateway: Supervised, client: Client) -> None:
    request = inference_pb2.ModelInferRequest(model_name="fragile", id="beyond the end")
    request.inputs.add(name="i", datatype="INT64", shape=[1])
    request.raw_input_contents.append(np.array([99], np.int64).tobytes())
    with pytest.raises(grpc.RpcError):
        client.inference.ModelInfer(request, timeout=10)
    errors = gateway.data_dir.parent / "stderr"

    def logged() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in errors.read_text().splitlines()]
        return lines if any("request_id" in line for line in lines) else []

    lines = wait_until(logged)
    for line in lines:
        assert line.keys() >= {"time", "level", "process", "pid", "logger", "event", "message"}
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    assert {line["process"] for line in lines} >= {"supervisor", "control-0", "worker-0", "worker-1"}
    (ready,) = [line for line in lines if line["event"] == "gateway.ready"]
    assert ready["ports"]["grpc"] == gateway.port("grpc")
    assert {line["data"]["model"] for line in lines if line["event"] == "version.ready"} >= {"affine", "fragile"}
    (failed,) = [line for line in lines if line.get("request_id")]
    assert failed.items() >= {"model": "fragile", "version": "1", "level": "error"}.items()
    assert len(failed["trace_id"]) == 32
    assert failed["message"].startswith("model fragile version 1 failed on request")


def _digest(client: Client, model: str, other_than: str = "") -> str:
    """The digest that all workers serve as version 1 of the model, once it is another one."""
    versions = client.control.Models(control_pb2.ModelsRequest(model=model), timeout=10).versions
    ready = [version for version in versions if version.state == "AVAILABLE" and not version.workers]
    return ready[0].digest if ready and ready[0].digest != other_than else ""


def _events(gateway: Supervised, kind: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{gateway.port('metrics')}/events?follow=false", timeout=10
    ) as answer:
        lines = [json.loads(line) for line in answer.read().decode().splitlines() if line.startswith("{")]
    return [line for line in lines if line["type"] == kind]


def test_a_route_to_a_version_that_is_not_there_is_refused(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        client.apply("7")
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "'7'" in str(raised.value.details())


def test_a_killed_worker_costs_nobody_a_call_and_no_wait(gateway: Supervised, client: Client) -> None:
    before = client.counted()
    victim = gateway.wait_ready("worker", 0)
    os.kill(victim, signal.SIGKILL)
    for _ in range(20):
        assert client.infer()[0] in ("1", "2")
    gateway.wait_ready("worker", 0, other_than=victim, within_s=10)
    assert client.counted() >= before + 20
    applied = client.apply("2").change
    assert len(applied.applied_by) == 2
    assert not applied.laggards


def test_serving_outlives_the_store_and_rules_work_again_after_it(gateway: Supervised, client: Client) -> None:
    version, _ = client.infer()
    server = gateway.wait_ready("valkey")
    os.kill(server, signal.SIGKILL)
    assert client.infer()[0] == version
    gateway.wait_ready("valkey", other_than=server)
    other = "1" if version == "2" else "2"
    wait_until(lambda: _applied(client, other))
    assert client.infer()[0] == other


def _applied(client: Client, version: str) -> bool:
    try:
        return bool(client.apply(version).change.applied_by)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


def test_unloading_holds_in_every_worker_and_for_those_to_come(gateway: Supervised, client: Client) -> None:
    client.control.DeleteRoute(control_pb2.DeleteRouteRequest(model="affine"), timeout=10)
    unload = inference_pb2.RepositoryModelUnloadRequest(model_name="affine")
    unload.parameters["force"].bool_param = True  # not every worker has seen the route go
    client.inference.RepositoryModelUnload(unload, timeout=20)
    victim = gateway.wait_ready("worker", 1)
    os.kill(victim, signal.SIGKILL)
    gateway.wait_ready("worker", 1, other_than=victim)
    for _ in range(8):
        one = Client(gateway.port("grpc"))
        with pytest.raises(grpc.RpcError) as raised:
            one.infer()
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        one.channel.close()
    client.inference.RepositoryModelLoad(inference_pb2.RepositoryModelLoadRequest(model_name="affine"), timeout=30)
    for _ in range(8):
        one = Client(gateway.port("grpc"))
        assert one.infer() == ("2", 3.0)
        one.channel.close()


def test_a_stop_leaves_every_call_in_the_lake_and_nothing_else(gateway: Supervised) -> None:
    pids = gateway.pids()
    assert gateway.stop() == 0
    assert not [pid for pid in pids if alive(pid)]
    files = list(gateway.config.lake_dir.rglob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) > 20
    assert not [path for path in gateway.config.wal_dir.rglob("*") if path.suffix in (".wal", ".sealed")]


def test_what_goes_wrong_at_the_start_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    config = parse({"data-dir": tmp_path / "data"}, {}, {})
    command = [sys.executable, "-m", "gateway.runtime.supervisor"]
    done = subprocess.run(command, input=config.to_json(), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("gateway: data-dir")
    assert len(done.stderr.splitlines()) == 1
