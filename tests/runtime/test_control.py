"""The control process, over real sockets: what workers counted, whatever became of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.access.denials import Reason
from gateway.access.entrance import AccessFiles, Entrance
from gateway.errors import Code, InvalidArgument
from gateway.runtime.access_options import AccessOptions
from gateway.runtime.config import Config
from gateway.runtime.config_parser import parse
from gateway.runtime.control_process import ControlProcess
from gateway.runtime.instance import STATE_FILE, make_directories, write_state
from gateway.runtime.operators_port import HttpRequest
from gateway.runtime.peers import Payload, PeerServer, worker_socket
from gateway.telemetry import names
from gateway.telemetry.counters import Counters
from gateway.telemetry.keys import Gauge
from gateway.telemetry.published import publish
from gateway.telemetry.sample import Sample
from gateway.telemetry.sums import whole

SCRAPE = HttpRequest("GET", "/metrics", {})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = parse({"data-dir": tmp_path, "workers": 2}, {}, {})
    make_directories(made)
    return made


@asynccontextmanager
async def worker(config: Config, slot: int, boot: str, counters: Counters) -> AsyncIterator[None]:
    async def count(_: Payload) -> Payload:
        return {"slot": slot, "boot": boot, "counters": counters.snapshot()}

    async with PeerServer(worker_socket(config.socket_dir, slot), {"counters": count}):
        yield


def counted(calls: int) -> Counters:
    counters = Counters()
    for _ in range(calls):
        counters.series("m", "1", "a").observe(Code.OK, 1, 2, 3)
    counters.add_gauge(Gauge.READY, lambda: 1)
    return counters


def served(sums: Payload) -> int:
    return whole(sums, "series", "m", "1", "a", "codes", "0")


async def test_counts_are_summed_and_survive_workers_and_control(config: Config) -> None:
    clock = asyncio.get_running_loop().time
    control = ControlProcess(config, "run-1", clock)
    async with worker(config, 0, "boot-a", counted(3)), worker(config, 1, "boot-b", counted(4)):
        assert served(await control.counters({})) == 7
    async with worker(config, 0, "boot-c", counted(1)):
        assert served(await control.counters({})) == 8
        await control.step()
        successor = ControlProcess(config, "run-1", clock)
        successor.restore()
        assert served(await successor.counters({})) == 8
        another_run = ControlProcess(config, "run-2", clock)
        another_run.restore()
        assert served(await another_run.counters({})) == 1


async def test_scrapes_at_one_time_are_one(config: Config) -> None:
    """Each of them would ask every worker, on the loop that serves, and in turn."""
    asked = 0
    counters = counted(3)

    async def count(_: Payload) -> Payload:
        nonlocal asked
        asked += 1
        return {"slot": 0, "boot": "boot-a", "counters": counters.snapshot()}

    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    async with PeerServer(worker_socket(config.socket_dir, 0), {"counters": count}):
        async with asyncio.TaskGroup() as group:
            scrapes = [group.create_task(control.metrics(SCRAPE)) for _ in range(50)]
            polls = [group.create_task(control.counters({})) for _ in range(50)]
        assert asked <= 3
        assert len({scrape.result().body for scrape in scrapes}) == 1
        assert {served(poll.result()) for poll in polls} == {3}
        counters.series("m", "1", "a").observe(Code.OK, 1, 2, 3)
        assert served(await control.counters({})) == 4  # never what was there before it was asked for


async def test_a_last_word_holds_what_no_poll_would_find(config: Config) -> None:
    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    async with worker(config, 0, "boot-a", counted(3)):
        await control.poll()
    await control.last_counts({"slot": 0, "boot": "boot-a", "counters": counted(5).snapshot()})
    assert served(await control.counters({})) == 5
    with pytest.raises(InvalidArgument, match="slot"):
        await control.last_counts({"boot": "x"})


async def test_metrics_and_readiness_are_what_the_workers_and_the_supervisor_say(config: Config) -> None:
    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    assert (await control.ready(SCRAPE)).status.value == 503
    child = {"role": "worker", "slot": 0, "state": "READY", "pid": 1, "restarts": 2, "reason": ""}
    write_state(config.run_dir / STATE_FILE, {"children": [child]})
    answer = await control.ready(SCRAPE)
    assert (answer.status.value, json.loads(answer.body)["ready"]) == (200, True)
    async with worker(config, 0, "boot-a", counted(3)):
        body = (await control.metrics(SCRAPE)).body.decode()
    samples = {
        (
            sample.name,
            sample.labels.get("role") or sample.labels.get("worker") or sample.labels.get("code"),
        ): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["gateway_requests_total", "OK"] == 3
    assert samples["gateway_process_restarts_total", "worker"] == 2
    assert samples["gateway_worker_ready", "0"] == 1


async def test_a_damaged_file_of_totals_is_no_obstacle(config: Config) -> None:
    (config.run_dir / "totals.json").write_text('{"instance": "run-1", "totals": "[')
    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    control.restore()
    assert await control.counters({}) == {}


async def test_series_of_versions_that_are_gone_end_within_the_hour(config: Config) -> None:
    now = 0.0
    control = ControlProcess(config, "run-1", lambda: now)
    present = [{"model": "m", "version": name, "state": "AVAILABLE", "reason": ""} for name in ("1", "2")]
    counters = counted(3)
    counters.series("m", "2", "a").observe(Code.OK, 1, 2, 3)
    counters.add_gauge(Gauge.VERSIONS, lambda: present)
    delays = [Sample(names.LABEL_COVERAGE, {"model": "m", "version": name}, 0.5) for name in ("1", "2")]
    publish(config.published_dir, "labels", delays, now_s=0.0)

    async def shown() -> set[str]:
        body = (await control.metrics(SCRAPE)).body.decode()
        return {
            f"{sample.name} {sample.labels['version']}"
            for family in text_string_to_metric_families(body)
            for sample in family.samples
            if "version" in sample.labels and sample.name in ("gateway_requests_total", "gateway_label_coverage_ratio")
        }

    both = {
        f"{name} {version}" for name in ("gateway_requests_total", "gateway_label_coverage_ratio") for version in "12"
    }
    async with worker(config, 0, "boot-a", counters):
        assert await shown() == both
        del present[0]
        assert await shown() == both  # a scraper has the last values
        now = 1801.0
        assert await shown() == {name for name in both if name.endswith("2")}
        assert served(await control.counters({})) == 0
    now = 3700.0
    assert await shown() == {name for name in both if name.endswith("2")}  # while no worker answers nobody is gone


async def test_readiness_names_no_workers_where_callers_must_prove_who_they_are(config: Config) -> None:
    guarded = replace(config, access=AccessOptions(tokens=config.run_dir / "tokens"))
    answer = await ControlProcess(guarded, "run", lambda: 0.0).ready(SCRAPE)
    assert json.loads(answer.body) == {"ready": False}


async def test_whom_the_operators_port_refuses_is_counted_as_whom_workers_refuse(config: Config) -> None:
    async def shown(control: ControlProcess) -> list[str]:
        lines = (await control.metrics(SCRAPE)).body.decode().splitlines()
        return [line for line in lines if line.startswith('gateway_access_denied_total{reason="role"}')]

    nowhere = Entrance(AccessFiles(), wall_s=lambda: 0.0, monotonic_s=lambda: 0.0, kept=None)
    refused = ['gateway_access_denied_total{reason="role"} 2.0']
    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    control.count_callers(nowhere)
    for _ in range(2):
        nowhere.denials.note(Reason.ROLE, "infer", "/metrics")
    assert await shown(control) == refused
    await control.step()
    successor = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    successor.restore()
    assert await shown(successor) == refused


async def test_what_drift_found_last_is_shown_as_it_was_published(config: Config) -> None:
    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    request = HttpRequest("GET", "/api/v1/drift")
    assert json.loads((await control.drift(request)).body) == {}
    config.published_dir.mkdir(parents=True, exist_ok=True)
    report = {"window": {"start_s": 0}, "arms": [{"model": "m", "state": "stable"}]}
    (config.published_dir / "drift.json").write_text(json.dumps(report))
    assert json.loads((await control.drift(request)).body) == report
