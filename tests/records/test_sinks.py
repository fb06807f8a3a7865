"""Sinks against real servers: Valkey, moto's S3 server, and the brokers that librdkafka brings for tests (real sockets
and the real protocol, in this process; the sink does not know the difference)."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from moto.server import ThreadedMotoServer
from pyarrow import fs

from gateway.records.lake.keeping import Keeping
from gateway.records.lake.outbox import Outbox
from gateway.records.sinks.courier import Courier
from gateway.records.sinks.kafka import KafkaSink
from gateway.records.sinks.redis_stream import RedisSink
from gateway.records.sinks.s3 import S3Sink
from gateway.records.sinks.sink import Sink, SinkError
from gateway.records.sinks.target import Target, parse_targets
from tests.records.outboxes import compact, fill
from tests.records.traffic import append, lake_ids, open_log, open_stream
from tests.valkey import Valkey

BUCKET = "predictions"
ROUTING_KEY = "{gw:default}:epoch"


def courier(folder: Path, make: Callable[[], Sink], *, keeping: Keeping | None = None, now_s: float = 0.0) -> Courier:
    return Courier(folder / "lake", "s", keeping or Keeping(), make, clock=lambda: now_s or time.time())


def target(url: str) -> Target:
    (target,) = parse_targets(url)
    return target


def waits(folder: Path) -> int:
    return len(Outbox(folder / "lake", "s").items())


def expected(segments: int, rows: int) -> set[str]:
    return {f"{segment}.{number}" for segment in range(segments) for number in range(rows)}


# ---- Redis ----


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey", append_only=True).start()
    yield server
    server.kill()


def redis_sink(valkey: Valkey, options: str = "") -> Callable[[], RedisSink]:
    return lambda: RedisSink(target(f"{valkey.url}?stream=rows{options}"), forbidden=ROUTING_KEY)


def entries_of(valkey: Valkey) -> list[dict[str, Any]]:
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        return [fields for _, fields in client.xrange("rows")]  # type: ignore[union-attr, unused-ignore]


async def test_rows_and_labels_are_entries_of_a_stream_in_order(tmp_path: Path, valkey: Valkey) -> None:
    await fill(tmp_path, "s", segments=2, rows=600, labels=3)
    one = courier(tmp_path, redis_sink(valkey))
    assert one.step() > 0
    sent = entries_of(valkey)
    assert [json.loads(entry["row"])["request_id"] for entry in sent[:1200]] == [
        f"{segment}.{number}" for segment in range(2) for number in range(600)
    ]
    assert [entry["kind"] for entry in sent[1199:]] == ["prediction", "label", "label", "label"]
    row = json.loads(sent[0]["row"])
    assert (row["model"], row["version"], row["f.x_1"], row["out.label"]) == ("flights", "1", row["f.x_0"] + 1, 142)
    assert sent[0]["id"] == f"gw/w0-{row['boot']}-0/0.0"
    assert len({entry["id"] for entry in sent}) == len(sent) == 1203
    report = one.report()
    assert (report.lag_rows, report.errors, report.error, waits(tmp_path)) == (0, 0, "", 0)
    assert report.rows == {"delivered": 1203, "expired": 0, "refused": 0, "evicted": 0}
    one.close()


async def test_a_redis_that_is_away_loses_nothing_and_is_retried_ever_more_seldom(
    tmp_path: Path, valkey: Valkey
) -> None:
    await fill(tmp_path, "s", segments=2, rows=50)
    one = courier(tmp_path, redis_sink(valkey))
    valkey.kill()
    waits_s = [one.step() for _ in range(4)]
    assert waits_s == [0.1, 0.2, 0.4, 0.8]
    assert (one.report().errors, one.report().lag_rows, waits(tmp_path)) == (4, 100, 2)
    assert one.report().error
    valkey.start()
    one.step()
    assert {json.loads(entry["row"])["request_id"] for entry in entries_of(valkey)} == expected(2, 50)
    assert (one.report().error, one.report().lag_rows) == ("", 0)
    one.close()


async def test_a_killed_process_goes_on_behind_the_last_rows_that_were_taken(tmp_path: Path, valkey: Valkey) -> None:
    await fill(tmp_path, "s", rows=1200)
    first = courier(tmp_path, redis_sink(valkey))
    first.step(stopping=chain([False], repeat(True)).__next__)  # ends after 1000 rows, as a kill would
    assert len(entries_of(valkey)) == 1000
    second = courier(tmp_path, redis_sink(valkey))
    second.step()
    sent = entries_of(valkey)
    assert len(sent) == len({entry["id"] for entry in sent}) == 1200
    assert second.report().rows["delivered"] == 200
    for one in (first, second):
        one.close()


async def test_what_waits_longer_than_it_is_kept_is_given_up_oldest_first_and_counted(
    tmp_path: Path, valkey: Valkey
) -> None:
    await fill(tmp_path, "s", segments=3, rows=40)
    items = Outbox(tmp_path / "lake", "s").items()
    keeping = Keeping(max_age_s=1e9, max_bytes=items[1].size_bytes + items[2].size_bytes)
    valkey.kill()
    one = courier(tmp_path, redis_sink(valkey), keeping=keeping)
    one.step()
    assert (one.report().rows["expired"], one.report().lag_rows) == (40, 80)
    valkey.start()
    one.step()
    ids = [json.loads(entry["row"])["request_id"] for entry in entries_of(valkey)]
    assert set(ids) == expected(3, 40) - {f"0.{number}" for number in range(40)}
    one.close()
    later = courier(tmp_path, redis_sink(valkey), now_s=time.time() + 7300)
    await fill(tmp_path, "s", rows=7)
    later.step()
    assert later.report().rows["expired"] == 7
    assert len(lake_ids(tmp_path / "lake")) == 127  # the lake keeps what the sink gave up
    later.close()


async def test_what_a_full_stream_evicts_is_counted(tmp_path: Path, valkey: Valkey) -> None:
    await fill(tmp_path, "s", rows=2000)
    one = courier(tmp_path, redis_sink(valkey, "&maxlen=300"))
    one.step()
    left = len(entries_of(valkey))
    assert 300 <= left < 700
    assert one.report().rows == {"delivered": 2000, "expired": 0, "refused": 0, "evicted": 2000 - left}
    one.close()


async def test_the_redis_with_the_routing_rules_is_refused(tmp_path: Path, valkey: Valkey) -> None:
    await fill(tmp_path, "s", rows=5)
    with redis.Redis.from_url(valkey.url) as client:
        client.set(ROUTING_KEY, "epoch")
    one = courier(tmp_path, redis_sink(valkey))
    one.step()
    assert "holds the routing rules" in one.report().error
    assert (entries_of(valkey), waits(tmp_path)) == ([], 1)
    one.close()


async def test_a_file_that_cannot_be_read_is_counted_and_does_not_hold_up_the_rest(
    tmp_path: Path, valkey: Valkey
) -> None:
    await fill(tmp_path, "s", segments=2, rows=10)
    outbox = Outbox(tmp_path / "lake", "s")
    outbox.rows_of(outbox.items()[0]).unlink()
    one = courier(tmp_path, redis_sink(valkey))
    one.step()
    assert one.report().rows == {"delivered": 10, "expired": 10, "refused": 0, "evicted": 0}
    one.close()


# ---- S3 ----


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def s3_server(port: int = 0) -> ThreadedMotoServer:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    # What moto holds belongs to the process, not to the server.
    with urlopen(Request(f"http://127.0.0.1:{server.get_host_and_port()[1]}/moto-api/reset", method="POST")):
        return server


def store_at(port: int) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
    )


def s3_sink(port: int) -> Callable[[], S3Sink]:
    return lambda: S3Sink(target(f"s3://{BUCKET}/log/one?endpoint=http://127.0.0.1:{port}"))


@pytest.mark.usefixtures("s3_keys")
async def test_published_files_are_objects_under_their_names_in_the_lake(tmp_path: Path) -> None:
    server = s3_server()
    try:
        _, port = server.get_host_and_port()
        store = store_at(port)
        store.create_dir(BUCKET)
        await fill(tmp_path, "s", segments=2, rows=30, labels=2)
        one = courier(tmp_path, s3_sink(port))
        one.step()
        lake = tmp_path / "lake"
        paths = [path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")]
        paths = [path for path in paths if not path.startswith("_")]
        objects = {info.path for info in store.get_file_info(fs.FileSelector(BUCKET, recursive=True)) if info.is_file}
        assert objects == {f"{BUCKET}/log/one/{path}" for path in paths}
        assert len(paths) == 3
        for path in paths:
            with store.open_input_file(f"{BUCKET}/log/one/{path}") as file:
                assert file.read() == (lake / path).read_bytes()
        assert (one.report().rows["delivered"], waits(tmp_path)) == (62, 0)
    finally:
        server.stop()


@pytest.mark.usefixtures("s3_keys")
async def test_an_object_store_that_is_away_or_has_no_bucket_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    await fill(tmp_path, "s", rows=10)
    one = courier(tmp_path, s3_sink(port))
    one.step()
    assert (one.report().errors, one.report().lag_rows) == (1, 10)
    server = s3_server(port)
    try:
        one.step()
        assert "bucket" in one.report().error.lower()
        store_at(port).create_dir(BUCKET)
        one.step()
        assert (one.report().error, one.report().rows["delivered"], waits(tmp_path)) == ("", 10, 0)
    finally:
        server.stop()


@pytest.mark.usefixtures("s3_keys")
async def test_an_upload_that_is_cut_off_is_made_again(tmp_path: Path) -> None:
    await fill(tmp_path, "s", rows=10)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        cutting = threading.Thread(target=_cut_off, args=(listening, 2))
        cutting.start()
        one = courier(tmp_path, s3_sink(port))
        one.step()
        cutting.join()
    assert (one.report().errors, one.report().rows["delivered"], waits(tmp_path)) == (1, 0, 1)
    server = s3_server(port)
    try:
        store_at(port).create_dir(BUCKET)
        one.step()
        assert (one.report().error, one.report().rows["delivered"], waits(tmp_path)) == ("", 10, 0)
    finally:
        server.stop()
    one.close()


def _cut_off(listening: socket.socket, connections: int) -> None:
    """Takes the beginning of a request and hangs up."""
    for _ in range(connections):
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)


# ---- Kafka ----


@pytest.fixture
def brokers() -> Iterator[str]:
    cluster = Producer({"test.mock.num.brokers": 2, "log_level": 0})
    yield ",".join(f"{broker.host}:{broker.port}" for broker in cluster.list_topics(timeout=10).brokers.values())
    cluster.purge()


def kafka_sink(brokers: str, options: str = "") -> Callable[[], KafkaSink]:
    return lambda: KafkaSink(target(f"kafka://{brokers}/rows{options}"))


def messages(brokers: str, count: int) -> list[Any]:
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "tests", "auto.offset.reset": "earliest", "log_level": 0}
    )
    partitions = consumer.list_topics("rows", timeout=10).topics["rows"].partitions
    consumer.assign([TopicPartition("rows", partition, 0) for partition in partitions])
    received: list[Any] = []
    deadline = time.monotonic() + 30
    try:
        while len(received) < count and time.monotonic() < deadline:
            received += [message for message in consumer.consume(500, timeout=0.5) if message.error() is None]
    finally:
        consumer.close()
    return received


async def test_rows_are_messages_with_stable_ids(tmp_path: Path, brokers: str) -> None:
    await fill(tmp_path, "s", segments=2, rows=600, labels=1)
    one = courier(tmp_path, kafka_sink(brokers))
    one.step()
    assert one.report().error == ""
    received = messages(brokers, 1201)
    assert {message.key().decode() for message in received} == expected(2, 600)
    headers = [dict(message.headers()) for message in received]
    assert len({header["id"] for header in headers}) == 1201
    assert {header["kind"] for header in headers} == {b"prediction", b"label"}
    assert json.loads(received[0].value())["request_id"] == received[0].key().decode()
    assert (one.report().rows["delivered"], one.report().lag_rows, waits(tmp_path)) == (1201, 0, 0)
    one.close()


async def test_a_small_queue_of_the_client_is_waited_for(tmp_path: Path, brokers: str) -> None:
    await fill(tmp_path, "s", rows=600)
    one = courier(tmp_path, kafka_sink(brokers, "?queue.buffering.max.messages=7&linger.ms=0"))
    one.step()
    assert (one.report().error, one.report().rows["delivered"]) == ("", 600)
    assert len(messages(brokers, 600)) == 600
    one.close()


async def test_brokers_that_are_away_lose_nothing(tmp_path: Path, brokers: str) -> None:
    await fill(tmp_path, "s", rows=20)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    one = courier(tmp_path, kafka_sink(f"127.0.0.1:{port}", "?message.timeout.ms=300"))
    one.step()
    assert (one.report().errors, one.report().lag_rows, one.report().rows["delivered"]) == (1, 20, 0)
    one.close()
    back = courier(tmp_path, kafka_sink(brokers))
    back.step()
    assert {message.key().decode() for message in messages(brokers, 20)} == expected(1, 20)
    back.close()


async def test_a_row_that_no_broker_would_take_is_counted_and_does_not_hold_up_the_rest(
    tmp_path: Path, brokers: str
) -> None:
    log = open_log(tmp_path / "wal")
    stream = open_stream(log)
    for number in range(20):
        append(stream, f"{number}-" + "long" * (100 if number % 2 else 0))
    await log.close()
    compact(tmp_path, "s")
    one = courier(tmp_path, kafka_sink(brokers, "?message.max.bytes=1000&compression.codec=none"))
    one.step()
    report = one.report()
    assert (report.error, waits(tmp_path)) == ("", 0)
    assert report.rows == {"delivered": 10, "expired": 0, "refused": 10, "evicted": 0}
    assert {message.key().decode() for message in messages(brokers, 10)} == {f"{number}-" for number in range(0, 20, 2)}
    one.close()


def test_an_option_that_the_client_does_not_know_is_an_error_of_the_sink(brokers: str) -> None:
    with pytest.raises(SinkError, match=r"no\.such"):
        kafka_sink(brokers, "?no.such=1")()
