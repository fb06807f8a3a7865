"""A machine whose clock is set while the gateway runs: an hour forward, and two back."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from gateway.pb import inference_pb2 as pb
from tests import models
from tests.e2e.calls import stub
from tests.e2e.conftest import connect
from tests.e2e.product import Product

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux" or not COMPILER, reason="needs Linux and a C compiler"),
]


class Clock:
    """The wall clock of the product, as much beside the machine's as somebody has set it."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        self._file = path
        self.step_s = 0

    def set(self, step_s: int) -> None:
        with self._file.open("r+b") as file:
            file.write(step_s.to_bytes(8, sys.byteorder, signed=True))
        self.step_s = step_s

    def hour(self) -> str:
        return time.strftime("date=%Y-%m-%d/hour=%H", time.gmtime(time.time() + self.step_s))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    library = tmp_path / "set_clock.so"
    source = Path(__file__).with_name("set_clock.c")
    subprocess.run([str(COMPILER), "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    made = Clock(tmp_path / "clock")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("SET_CLOCK_FILE", str(tmp_path / "clock"))
    return made


@pytest.fixture
def product(tmp_path: Path, clock: Clock) -> Iterator[Product]:
    repository = tmp_path / "models"
    config = "max_batch_size: 8 version_policy { all {} }"
    for version, slope in (("1", 1.0), ("2", 2.0)):
        models.write_version(repository, "affine", version, models.affine(slope), config=config)
    made = Product(tmp_path, repository)
    yield made.start()
    made.kill()


def route(product: Product, share: int) -> None:
    spec = {
        "arms": {"old": {"version": "1"}, "new": {"version": "2"}},
        "strategy": {"canary": {"stable": "old", "canary": "new", "weight": f"{share}%"}},
    }
    document = {"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": "affine"}, "spec": spec}
    path = product.directory / "route.yaml"
    path.write_text(yaml.safe_dump(document))
    done = product.cli("routes", "apply", "-f", str(path))
    assert done.exit_code == 0, done.output


def ask(product: Product, name: str, count: int) -> None:
    """So many calls, each with a deadline that is shorter than the steps of the clock."""
    with connect(product) as channel:
        for number in range(count):
            message = pb.ModelInferRequest(model_name="affine", id=f"{name}-{number}")
            message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
            message.raw_input_contents.append(np.ones(4, np.float32).tobytes())
            stub(channel).ModelInfer(message, timeout=10)


def hours(product: Product) -> dict[str, str]:
    """The folder of each request that is in the lake."""
    folders = {}
    for path in (product.data / "log" / "lake" / "predictions").rglob("*.parquet"):
        folder = "/".join(path.parts[-3:-1])
        for request_id in pq.read_table(path, columns=["request_id"], partitioning=None)["request_id"].to_pylist():
            folders[request_id] = folder
    return folders


def test_steps_of_the_clock_move_nothing_but_the_folders_of_later_rows(product: Product, clock: Clock) -> None:
    expected: dict[str, str] = {}
    boots = [child["boot"] for child in product.children("worker")]
    for turn, step_s in enumerate((0, 3600, -3600, 0)):
        clock.set(step_s)
        began = clock.hour()
        ask(product, f"turn{turn}", 40)
        route(product, 10 + turn)  # every worker follows and acknowledges within its time
        status = product.cli("workers", "-o", "json")
        assert status.exit_code == 0, status.output
        workers = yaml.safe_load(status.stdout)
        assert [worker["state"] for worker in workers] == ["LIVE"] * 2, workers
        if clock.hour() == began:  # the hour did not end meanwhile
            expected |= {f"turn{turn}-{number}": began for number in range(40)}
    assert [child["boot"] for child in product.children("worker")] == boots  # nobody hung, nobody was replaced
    assert "silent for" not in product.events()
    product.stop()
    told = hours(product)
    assert len(told) == 160
    assert {name: told[name] for name in expected} == expected
