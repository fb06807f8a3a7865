"""Labels from a caller's answer to the lake, and rows to everything beside it, by the product as its user has it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis
from moto.server import ThreadedMotoServer
from pyarrow import fs

from loadtests.samples import request
from tests.e2e.calls import stub
from tests.e2e.conftest import Demo, connect
from tests.e2e.product import Product
from tests.valkey import Valkey

COUNT = 20


@pytest.fixture
def stream_server(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey").start()
    yield server
    server.kill()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[fs.S3FileSystem, int]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    made = fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    made.create_dir("product")
    yield made, port
    server.stop()


def ask(product: Product, demo: Demo) -> list[tuple[str, str]]:
    """Request ids and tokens of answers."""
    sample = demo.rows("digits")[0]
    answers = []
    with connect(product) as channel:
        for number in range(COUNT):
            _, done = stub(channel).ModelInfer.with_call(request("digits", sample, f"r{number}", ""), timeout=20)
            answers.append((f"r{number}", str(dict(done.trailing_metadata())["x-gateway-token"])))
    return answers


def test_half_the_answers_get_labels_and_all_reach_the_lake_the_stream_and_the_object_store(
    start_product: Callable[..., Product],
    demo: Demo,
    stream_server: Valkey,
    store: tuple[fs.S3FileSystem, int],
    tmp_path: Path,
) -> None:
    objects, port = store
    sinks = f"{stream_server.url}?stream=rows,s3://product/log?endpoint=http://127.0.0.1:{port}"
    product = start_product("labels", "--feedback-token", "--sink", sinks)
    answers = ask(product, demo)
    for request_id, token in answers[:5]:
        assert product.cli("feedback", "send", "--token", token, "--label", "3").exit_code == 0, request_id
    path = tmp_path / "labels.csv"
    path.write_text("model,request_id,label\n" + "".join(f"digits,{name},4\n" for name, _ in answers[5:10]))
    sent = product.cli("feedback", "send", "-f", str(path), "-o", "json")
    assert json.loads(sent.stdout) == {"accepted": 5}
    refused = product.cli("feedback", "send", "--token", answers[0][1][:-1] + "!", "--label", "3")
    assert (refused.exit_code, "INVALID_ARGUMENT: token: the feedback token" in refused.stderr) == (1, True)
    assert product.metrics()['gateway_labels_total{outcome="accepted"}'] == 10
    product.stop()

    lake = product.data / "log" / "lake"
    files = [path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")]
    files = [path for path in files if not path.startswith("_")]
    rows = [row for path in files if path.startswith("predictions/") for row in _read(lake / path)]
    labels = [row for path in files if path.startswith("labels/") for row in _read(lake / path)]
    by_hash = {row["request_hash"]: row["request_id"] for row in rows}
    assert len(by_hash) == COUNT
    labelled = {by_hash[label["request_hash"]]: label["label_num"] for label in labels}
    assert labelled == {f"r{number}": 3.0 if number < 5 else 4.0 for number in range(10)}

    with redis.Redis.from_url(stream_server.url, decode_responses=True) as client:
        kinds = [fields["kind"] for _, fields in client.xrange("rows")]  # type: ignore[union-attr, unused-ignore]
    assert (kinds.count("prediction"), kinds.count("label")) == (COUNT, 10)
    paths = {info.path for info in objects.get_file_info(fs.FileSelector("product", recursive=True)) if info.is_file}
    assert paths == {f"product/log/{path}" for path in files}

    product.start()
    metrics = product.metrics()
    (coverage,) = [value for name, value in metrics.items() if name.startswith("gateway_label_coverage_ratio{")]
    assert coverage == 0.5
    assert metrics['gateway_label_delay_seconds_count{model="digits"}'] == 10
    lags = [value for name, value in metrics.items() if name.startswith("gateway_log_sink_lag_rows{")]
    assert lags == [0, 0]
    product.stop()


def _read(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(path, partitioning=None).to_pylist()
    return rows
