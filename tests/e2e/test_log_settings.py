"""What the log keeps and hides, as configuration and routes say it, by the product as its user has it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from gateway.pb import inference_pb2 as pb
from gateway.tensor import Datatype
from tests import models
from tests.e2e.calls import stub
from tests.e2e.conftest import connect
from tests.e2e.product import Product, until

SECRET, CITY = b"Ada Lovelace", b"Marylebone"
KEY = b"correct horse battery staple"


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    repository = tmp_path / "models"
    models.write_version(
        repository,
        "people",
        "1",
        models.identity(Datatype.BYTES, (-1, 2)),
        config='max_batch_size: 8 parameters { key: "feature_names" value { string_value: "name, city" } }',
    )
    key = tmp_path / "redaction.key"
    key.write_bytes(KEY + b"\n")
    config = tmp_path / "gateway.yaml"
    rules = {"x": {"features": {0: "hash", 1: None}}, "y": "drop"}
    section = {"revision": 7, "key-id": "2026-11", "key-file": str(key), "models": {"people": rules}}
    config.write_text(yaml.safe_dump({"log-rate": 0.0, "redaction": section}))
    made = Product(tmp_path, repository, "--config", str(config))
    yield made.start()
    made.kill()


def ask(product: Product, name: str, count: int) -> None:
    text = b"".join(len(word).to_bytes(4, "little") + word for word in (SECRET, CITY))
    with connect(product) as channel:
        for number in range(count):
            message = pb.ModelInferRequest(model_name="people", id=f"{name}-{number}", raw_input_contents=[text])
            tensor = message.inputs.add(name="x", datatype="BYTES", shape=[1, 2])
            assert tensor.name == "x"
            answer = stub(channel).ModelInfer(message, timeout=20)
            assert SECRET in answer.raw_output_contents[0]  # the caller is told everything


def log(product: Product, **policy: object) -> None:
    spec = {"arms": {"one": {"version": "1"}}, "strategy": {"pinned": {"arm": "one"}}, "log": policy}
    document = {"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": "people"}, "spec": spec}
    path = product.directory / "route.yaml"
    path.write_text(yaml.safe_dump(document))
    assert product.cli("routes", "apply", "-f", str(path)).exit_code == 0


def written(product: Product) -> float:
    return product.metrics()['gateway_log_records_total{outcome="written"}']


def test_rates_follow_the_route_at_once_and_no_clear_text_reaches_the_disk(product: Product) -> None:
    ask(product, "unrouted", 3)  # by --log-rate: none
    log(product, rate="100%")
    ask(product, "all", 5)
    until(lambda: written(product) == 5, 20, "the rows of a rate of 100 %")
    log(product, arms={"one": "0%"}, keep={"first": 0})
    ask(product, "none", 4)
    until(lambda: product.metrics()['gateway_log_records_total{outcome="sampled_out"}'] == 7, 20, "what is left out")
    assert written(product) == 5
    disk = product.data / "log"
    assert b"all-0" in b"".join(path.read_bytes() for path in disk.rglob("*.wal"))
    assert not clear_text(product.data)
    product.stop()

    assert not clear_text(product.data)
    for word in (KEY, KEY.hex().encode()):
        assert word not in (product.directory / "stderr").read_bytes() + product.banner.encode()
    tables = [
        pq.read_table(path, partitioning=None) for path in (disk / "lake").glob("predictions/model_dir=*/**/*.parquet")
    ]
    rows = [row for table in tables for row in table.to_pylist()]
    assert sorted(row["request_id"] for row in rows) == [f"all-{n}" for n in range(5)]
    assert {row["redaction_rev"] for row in rows} == {7}
    assert {row["f.name"][:13] for row in rows} == {"hmac:2026-11:"}
    assert {row["f.city"] for row in rows} == {None}
    assert "out.y" not in rows[0]


def test_predictions_go_on_while_the_log_cannot_be_written_and_every_row_is_accounted_for(product: Product) -> None:
    log(product, rate="100%")
    ask(product, "before", 4)
    until(lambda: written(product) == 4, 20, "rows before the trouble")
    wal = product.data / "log" / "wal"
    hidden = wal.with_name("hidden")
    wal.rename(hidden)
    wal.write_bytes(b"in the way")
    ask(product, "during", 30)  # each is answered
    until(lambda: accounted(product) == 34, 20, "an account of every row")
    assert product.metrics()['gateway_log_dropped_total{reason="disk_error"}'] > 0
    wal.unlink()
    before = written(product)
    ask(product, "after", 10)
    until(lambda: accounted(product) == 44, 20, "an account of every row")
    assert written(product) > before
    assert product.metrics()["gateway_log_flush_seconds_count"] > 0
    product.stop()


def accounted(product: Product) -> float:
    """Rows that were seen, if each of them was written, sampled out or dropped; else -1."""
    metrics = product.metrics()
    rows = {
        name: metrics[f'gateway_log_records_total{{outcome="{name}"}}'] for name in ("seen", "written", "sampled_out")
    }
    dropped = sum(value for name, value in metrics.items() if name.startswith("gateway_log_dropped_total"))
    return rows["seen"] if rows["seen"] == rows["written"] + rows["sampled_out"] + dropped else -1


def clear_text(folder: Path) -> list[str]:
    """The files that hold what redaction hides, or the key."""
    return [
        os.fspath(path)
        for path in folder.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in (SECRET, CITY, KEY))
    ]
