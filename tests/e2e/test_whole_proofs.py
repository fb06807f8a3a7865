"""The promises in the numbers that they are given in: as much of everything as `make test` has no time for.

The load is that of 16 connections, each of which calls again as soon as it has its answer; every answer is checked.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from gateway.pb import control_pb2 as pb
from loadtests import documents
from tests.e2e.calls import control
from tests.e2e.conftest import OWN_CONNECTION, Demo
from tests.e2e.load_run import load
from tests.e2e.product import Product, until
from tests.e2e.test_faults import BACK_WITHIN_S, EAGER, RETRYING
from tests.e2e.traffic import traffic
from tests.machine_load import as_loaded, assert_kept, times
from tests.routing.live import kill_feeds

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
CONNECTIONS = 16
ROLLBACKS = 100
RESTARTS = 20
FOLLOWED_WITHIN_S = 2.0  # also by a worker whose feed was cut at that moment
FOLLOWS_AT_ALL_S = 30.0  # else the test waits no longer
CHANGE = pb.Change(actor="tests", reason="whole proof", source="api")
MIGRATION = Path("/proc/sys/net/ipv4/tcp_migrate_req")


@pytest.fixture(scope="module", params=["ngh2", "grpcio"])
def four(request: pytest.FixtureRequest, start_product: Callable[..., Product]) -> Iterator[Product]:
    """A gateway of four workers."""
    running = start_product(f"four-{request.param}", "--workers", "4", "--transport", request.param)
    yield running
    running.stop()


def test_two_hundred_flips_in_a_minute_let_no_call_fail_or_mix(four: Product, demo: Demo) -> None:
    """P1."""
    asked = {"--seconds": 60, "--flips": 200, "--users": CONNECTIONS, "--calls-per-second": 0}
    words = [word for name, value in asked.items() for word in (name, str(value))]
    code, verdict, everything = load(four, demo, "flips", *words, timeout_s=300)
    print(verdict, [line for line in everything.splitlines() if line.startswith("flips:")])
    assert (code, verdict["failures"], verdict["found"]) == (0, 0, []), everything
    assert verdict["flips"] >= 200


@pytest.mark.parametrize("cut", [False, True], ids=["feeds live", "feeds cut"])
def test_a_hundred_rollbacks_load_nothing_and_are_followed_in_time(four: Product, demo: Demo, cut: bool) -> None:
    """P4: from the commit's answer, for which no worker is waited, to the last call that the old version answered."""
    store = f"unix://{four.data / 'run' / 'valkey.sock'}"
    lags: list[float] = []
    killed = 0
    with (
        grpc.insecure_channel(four.server, options=RETRYING) as channel,  # a busy store is asked again
        traffic(four.server, demo.rows("digits"), OWN_CONNECTION, clients=CONNECTIONS, pause_s=0.0) as calls,
    ):
        apply(channel, "a")
        loaded = loads(four)
        assert loaded >= 8
        for _ in range(ROLLBACKS):
            apply(channel, "b")
            since = len(calls.outcomes)
            if cut:
                killed += asyncio.run(kill_feeds(store))
            control(channel).Rollback(pb.RollbackRequest(model="digits", change=CHANGE), timeout=30)
            answered_s = time.monotonic()
            calls.wait_for(4 * CONNECTIONS)
            while any(one.version == "2" for one in calls.outcomes[-4 * CONNECTIONS :]):
                assert time.monotonic() - answered_s < as_loaded(FOLLOWS_AT_ALL_S)
                calls.wait_for(CONNECTIONS)
            late = [one.began_s - answered_s for one in calls.outcomes[since:] if one.version == "2"]
            lags.append(max([0.0, *late]))
    assert calls.failures() == []
    assert killed >= 2 * ROLLBACKS * cut  # those that are back from the time before
    lags.sort()
    print(f"{len(calls.outcomes)} calls; after the answer {1e3 * lags[49]:.1f} ms p50, {1e3 * lags[98]:.1f} ms p99")
    assert loads(four) == loaded
    assert_kept(lags[-1], FOLLOWED_WITHIN_S, times())


def apply(channel: grpc.Channel, arm: str) -> None:
    """All traffic is on the arm, in every worker."""
    wanted = pb.ApplyRequest(
        document_json=documents.blue_green("digits", arm), change=CHANGE, wait=pb.WaitFor(applied=True)
    )
    control(channel).Apply(wanted, timeout=30)


def loads(product: Product) -> int:
    """How often a worker has loaded a version since the start."""
    return product.events().count("version available: model=digits ")


def test_each_worker_that_any_signal_ends_is_back_and_costs_its_own_calls(four: Product, demo: Demo) -> None:
    """P5."""
    rows = demo.rows("digits")
    took_s: list[float] = []
    with (
        traffic(four.server, rows, RETRYING, clients=CONNECTIONS // 2, pause_s=0.0) as patient,
        traffic(four.server, rows, EAGER, clients=CONNECTIONS // 2, pause_s=0.0) as calls,
    ):
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
            for victim in four.children("worker"):
                killed_s = time.monotonic()
                os.kill(victim["pid"], number)
                until(lambda gone=victim: back(four, gone), 30, "the worker is back")  # type: ignore[misc]
                took_s.append(time.monotonic() - killed_s)
                calls.wait_for(CONNECTIONS)
                patient.wait_for(CONNECTIONS)
    print(f"back after {max(took_s):.1f} s at most; {len(patient.outcomes)} calls that are repeated, none failed;")
    print(f"{len(calls.failures())} of {len(calls.outcomes)} others failed")
    assert patient.failures() == []
    assert {outcome.failure for outcome in calls.failures()} <= {"UNAVAILABLE"}
    own = [outcome for outcome in calls.failures() if "failed to connect" not in outcome.text]
    assert len(own) <= CONNECTIONS // 2 * len(took_s)
    assert_kept(max(took_s), BACK_WITHIN_S, times())


def back(product: Product, gone: dict[str, object]) -> bool:
    """Another process serves in the place of this one."""
    return any(
        child["slot"] == gone["slot"] and child["pid"] != gone["pid"] and child["state"] == "READY"
        for child in product.children("worker")
    )


@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
@pytest.mark.parametrize("migrates", [0, 1])
def test_twenty_restarts_are_noticed_by_nobody(demo: Demo, tmp_path: Path, transport: str, migrates: int) -> None:
    """P7, in a network of its own, where the kernel hands the connections of a closing socket on, or does not."""
    if not MIGRATION.exists() or shutil.which("unshare") is None:
        pytest.skip(f"no {MIGRATION} (Linux from 5.14 on) or no unshare")
    network = ["unshare", "--net", "sh", "-c", f'ip link set lo up && echo {migrates} > {MIGRATION} && exec "$@"', "sh"]
    tried = subprocess.run([*network, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network of its own (as root, or with --cap-add SYS_ADMIN): {tried.stderr.strip()}")
    shutil.copytree(demo.repository, tmp_path / "models")
    arguments = [str(tmp_path), str(demo.samples), transport, str(RESTARTS)]
    done = subprocess.run(
        [*network, sys.executable, "-m", "tests.e2e.many_restarts", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert told["restarts"] == RESTARTS
    assert told["failures"] == []
