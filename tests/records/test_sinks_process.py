"""The process of the sinks: fed by the compactor, told to end, hanging servers and all."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from gateway.records.lake.outbox import Outbox
from gateway.records.sinks.sinks_process import SinksConfig
from gateway.telemetry.published import published
from tests.machine_load import as_loaded
from tests.records.outboxes import compact, fill
from tests.records.traffic import append, lake_ids, open_log, open_stream
from tests.valkey import Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey").start()
    yield server
    server.kill()


def start(folder: Path, *urls: str) -> "subprocess.Popen[str]":
    config = SinksConfig(str(folder / "lake"), ",".join(urls), "{gw:default}:epoch", str(folder / "published"), 0.05)
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {sys.executable} -m gateway.records.sinks.sinks_process 3>&1 1>&2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(config.to_json() + "\n")
    process.stdin.flush()
    return process


def end(process: "subprocess.Popen[str]") -> str:
    """Ends it by closing its input; what it said on standard error."""
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return errors


def length(valkey: Valkey) -> int:
    with redis.Redis.from_url(valkey.url) as client:
        return int(client.xlen("rows"))  # type: ignore[arg-type, unused-ignore]


def until(read: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + as_loaded(within_s)
    while not read():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_rows_flow_while_it_runs_and_what_comes_last_is_delivered_when_it_ends(
    tmp_path: Path, valkey: Valkey
) -> None:
    process = start(tmp_path, f"{valkey.url}?stream=rows&name=s")
    await fill(tmp_path, "s", segments=2, rows=100)
    until(lambda: length(valkey) == 200)
    until(lambda: _sample(tmp_path, "gateway_log_sink_rows", outcome="delivered") == 200)
    assert _sample(tmp_path, "gateway_log_sink_lag_rows") == 0
    log = open_log(tmp_path / "wal")
    append(open_stream(log), "last")
    await log.close()
    compact(tmp_path, "s")
    assert end(process) == ""
    assert length(valkey) == 201


async def test_it_ends_in_time_though_a_server_hangs_and_goes_on_at_the_next_start(
    tmp_path: Path, valkey: Valkey
) -> None:
    process = start(tmp_path, f"{valkey.url}?stream=rows&name=s")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"ready": True}
    valkey.pause()
    await fill(tmp_path, "s", rows=50)
    assert len(lake_ids(tmp_path / "lake")) == 50  # Parquet waits for nobody
    began = time.monotonic()
    end(process)
    assert time.monotonic() - began < as_loaded(8)
    valkey.resume()
    assert len(Outbox(tmp_path / "lake", "s").items()) == 1
    process = start(tmp_path, f"{valkey.url}?stream=rows&name=s")
    until(lambda: length(valkey) == 50)
    end(process)


async def test_a_process_killed_at_any_moment_loses_nothing(tmp_path: Path, valkey: Valkey) -> None:
    await fill(tmp_path, "s", segments=4, rows=2500)
    rng = random.Random(5)
    for _ in range(4):
        process = start(tmp_path, f"{valkey.url}?stream=rows&name=s")
        enough = length(valkey) + rng.randrange(1, 2500)
        until(lambda enough=enough: length(valkey) >= enough)  # type: ignore[misc]
        process.kill()
        process.communicate()
    end(start(tmp_path, f"{valkey.url}?stream=rows&name=s"))
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        ids = [fields["id"] for _, fields in client.xrange("rows")]  # type: ignore[union-attr, unused-ignore]
    assert len(set(ids)) == 10_000
    assert Outbox(tmp_path / "lake", "s").items() == []


async def test_one_sink_that_is_away_does_not_delay_another(tmp_path: Path, valkey: Valkey) -> None:
    await fill(tmp_path, "s", rows=50)
    for path in (tmp_path / "lake" / "_sinks" / "s").iterdir():
        other = tmp_path / "lake" / "_sinks" / "away" / path.name
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(path.read_bytes())
    process = start(tmp_path, f"{valkey.url}?stream=rows&name=s", "redis://127.0.0.1:1?stream=rows&name=away")
    until(lambda: length(valkey) == 50)
    until(lambda: _sample(tmp_path, "gateway_log_sink_errors", sink="away") > 1)
    assert _sample(tmp_path, "gateway_log_sink_lag_rows", sink="away") == 50
    errors = end(process)
    assert "sink away: " in errors


def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path, "ftp://x")
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, "scheme 'ftp'" in errors) == (2, True)


def _sample(folder: Path, name: str, **labels: str) -> float:
    values = [
        value
        for _, own, value in published(folder / "published").get(name, ())
        if labels.items() <= own.items() and ("sink" in labels or own["sink"] == "s")
    ]
    return values[0] if values else -1.0
