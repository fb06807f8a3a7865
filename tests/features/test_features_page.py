"""docs/features.md, followed as it stands: by redis-cli's words, by Feast, asked by the client, and as a step."""

import asyncio
import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from os import environ
from pathlib import Path

import numpy as np
import pytest
import redis

from gateway.features.feature_queue import MAX_BYTES, MAX_ROWS, MAX_VALUES
from gateway.features.feature_store import MAX_WAITING
from gateway.features.feature_view import FeatureStatus
from gateway.features.view_parameters import (
    DEFAULT,
    DEFAULT_CACHE_BYTES,
    DEFAULT_DEADLINE_MS,
    MAX_FEATURES,
    PARAMETERS,
    STORED_AS,
)
from gateway.pb import inference_pb2 as pb
from tests import models
from tests.api.stand import standing
from tests.routing.servers import Server

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "features.md").read_text("utf-8")
FEAST = Path(environ.get("FEAST_PACKAGES", Path(sys.prefix) / "feast"))  # where `make feast` puts it
needs_feast = pytest.mark.skipif(not FEAST.is_dir(), reason="Feast is not installed: make feast")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rows(heading: str) -> Mapping[str, list[str]]:
    """The cells of the table under a heading, by what stands in the first one."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in table[2:]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("store"), {}).start()
    yield started
    started.kill()


@pytest.fixture
def store(server: Server) -> Iterator["redis.Redis"]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def write(repository: Path, name: str, text: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)


def follow(program: str, address: str) -> str:
    """What a program of the page prints, asked of that address."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(program.replace("127.0.0.1:8001", address), "docs/features.md", "exec"), {})
    return said.getvalue()


async def test_the_page_is_followed(server: Server, store: "redis.Redis", tmp_path: Path) -> None:
    for line in blocks("redis")[0].splitlines():
        store.execute_command(*shlex.split(line))  # type: ignore[no-untyped-call]
    repository = tmp_path / "models"
    users, _, scored = blocks("pbtxt")
    patient = 'parameters { key: "deadline_ms" value { string_value: "1000" } }\n'
    write(repository, "users", users + patient)
    models.write_version(repository, "affine", "1", models.affine(features=2), config="max_batch_size: 64")
    write(repository, "scored", scored)
    async with standing(
        repository, tmp_path, probes=tmp_path / "probes", feature_stores={"default": server.url}
    ) as stand:
        assert await asyncio.to_thread(follow, blocks("python")[0], stand.address) == blocks("text")[0]
        request = pb.ModelInferRequest(model_name="scored", raw_input_contents=[np.array([1, 3], "<i8").tobytes()])
        request.inputs.add(name="user_id", datatype="INT64", shape=[2, 1])
        answer = await stand.stub.ModelInfer(request, timeout=10)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [1, 3, 0, 0]


def run_feast(program: str, directory: Path, *arguments: str) -> str:
    """What a program prints that is run beside Feast, in that directory."""
    environment = {**environ, "PYTHONPATH": str(FEAST), "FEAST_USAGE": "False"}
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
@needs_feast
async def test_rows_that_feast_writes_are_served(server: Server, store: "redis.Redis", tmp_path: Path) -> None:
    program = blocks("feast")[0].replace("127.0.0.1:6379", server.address)
    await asyncio.to_thread(run_feast, program, tmp_path)
    write(tmp_path / "models", "user_stats", blocks("pbtxt")[1])
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": server.url}
    ) as stand:
        request = pb.ModelInferRequest(model_name="user_stats", raw_input_contents=[np.array([2, 1], "<i8").tobytes()])
        request.inputs.add(name="user_id", datatype="INT64", shape=[2, 1])
        answer = await stand.stub.ModelInfer(request, timeout=10)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [0.75, 0.25]
        assert np.frombuffer(answer.raw_output_contents[1], "<i8").tolist() == [4, 3]


@pytest.mark.long
@pytest.mark.timeout(600)
@needs_feast
def test_what_was_recorded_is_what_feast_writes_today(server: Server, store: "redis.Redis", tmp_path: Path) -> None:
    program = (HERE / "record_feast.py").read_text("utf-8")
    said = run_feast(program, tmp_path, server.address, str(tmp_path))
    assert json.loads(said.splitlines()[-1]) == json.loads((HERE / "feast_rows.json").read_text("utf-8"))


def test_the_page_has_every_parameter() -> None:
    table = rows("Parameters")
    assert list(table) == [f"`{name}`" for name in (*PARAMETERS, f"{STORED_AS}NAME", f"{DEFAULT}NAME")]
    assert table["`deadline_ms`"][0] == f"`{DEFAULT_DEADLINE_MS:g}`"
    assert table["`cache_bytes`"][0] == f"`{DEFAULT_CACHE_BYTES}`"


def test_the_page_has_every_status() -> None:
    assert list(rows("Where there is no value")) == [f"{one.value} {one.name}" for one in FeatureStatus]


def test_the_page_has_the_limits() -> None:
    limits = rows("Limits")
    assert limits["rows of a request"][0].endswith(f" {MAX_ROWS}")
    assert limits["values of a request"][0].replace(" ", "").startswith(f"{MAX_VALUES}:")
    assert limits["features of a view"][0].startswith(f"{MAX_FEATURES},")
    assert limits["an answer"][0].startswith(f"{MAX_BYTES >> 20} MiB")
    assert limits["rows that wait for a store"][0].replace(" ", "").startswith(str(MAX_WAITING))


def test_the_user_of_the_page_can_read_rows(server: Server, store: "redis.Redis") -> None:
    store.execute_command(*shlex.split(blocks("acl")[0]))  # type: ignore[no-untyped-call]
    with redis.Redis(port=server.port, username="gateway-features", password="reader-password") as reader:
        assert reader.ping()
        assert reader.hmget("user:1", ["score"]) == [None]
        with pytest.raises(redis.exceptions.NoPermissionError):
            reader.hset("user:1", "score", "1")
        with pytest.raises(redis.exceptions.NoPermissionError):
            reader.hmget("{gw:default}:routes", ["score"])
