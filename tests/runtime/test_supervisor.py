"""The supervisor over real processes: what is killed comes back, what hangs is replaced, what stops leaves nothing."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.records.lake.compactor import CompactorConfig
from gateway.records.lake.retention import RetentionLimits
from gateway.runtime import valkey
from gateway.runtime.child import Settings
from gateway.runtime.child_programs import for_compactor
from gateway.runtime.config_parser import parse
from tests.machine_load import as_loaded
from tests.runtime.supervised import Supervised, alive, answers, start, wait_until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """One gateway for the tests that leave it as they found it."""
    with Supervised(tmp_path_factory.mktemp("shared") / "data") as gateway:
        yield gateway.wait_serving()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_crashed_worker_is_back_at_once(shared: Supervised, number: signal.Signals) -> None:
    slot = 0 if number is signal.SIGKILL else 1
    shared.wait_ready("worker", 0)
    victim, other = shared.wait_ready("worker", slot), shared.pid("worker", 1 - slot)
    begun = time.monotonic()
    os.kill(victim, number)
    shared.wait_ready("worker", slot, other_than=victim, within_s=5.0)
    assert time.monotonic() - begun < as_loaded(5.0)
    assert shared.child("worker", slot)["reason"] == f"killed by {number.name}"
    assert shared.pid("worker", 1 - slot) == other
    assert answers(shared.port("grpc"))


def test_a_hung_worker_is_replaced(shared: Supervised) -> None:
    """Its successor gets ready while it is merely silent, so that the start is not part of what is waited for."""
    victim = shared.wait_ready("worker", 0)
    before = shared.processes()
    os.kill(victim, signal.SIGSTOP)
    begun = time.monotonic()
    [successor] = wait_until(lambda: shared.processes() - before, 4.0)
    assert alive(victim)
    assert shared.pid("worker", 0) == victim
    wait_until(lambda: not alive(victim), 4.0)
    assert time.monotonic() - begun > 1.5, "a pause is no hang"
    assert shared.wait_ready("worker", 0, other_than=victim, within_s=2.0) == successor
    assert "hung" in str(shared.child("worker", 0)["reason"])


def test_a_pause_is_forgiven(shared: Supervised) -> None:
    victim = shared.wait_ready("worker", 1)
    before = shared.processes()
    restarts = shared.child("worker", 1)["restarts"]
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: shared.processes() != before, 4.0)  # a successor gets ready
    os.kill(victim, signal.SIGCONT)
    wait_until(lambda: shared.processes() == before, 4.0)  # and goes
    time.sleep(1.0)
    assert (shared.pid("worker", 1), shared.child("worker", 1)["restarts"]) == (victim, restarts)


def test_a_supervisor_that_was_paused_kills_nobody(shared: Supervised) -> None:
    before = [shared.wait_ready("worker", slot) for slot in (0, 1)]
    shared.process.send_signal(signal.SIGSTOP)
    time.sleep(3.2)  # longer than a child may be silent
    shared.process.send_signal(signal.SIGCONT)
    time.sleep(0.7)
    assert [shared.pid("worker", slot) for slot in (0, 1)] == before


def test_workers_that_get_little_time_are_not_taken_for_hung(shared: Supervised) -> None:
    """Eight programs that never pause for each CPU, for longer than a worker may be silent."""
    before = [shared.wait_ready("worker", slot) for slot in (0, 1)]
    greedy = "import time\nend = time.monotonic() + 3.0\nwhile time.monotonic() < end: pass"
    hogs = [subprocess.Popen([sys.executable, "-S", "-c", greedy]) for _ in range(8 * (os.cpu_count() or 1))]
    assert [hog.wait(60) for hog in hogs] == [0] * len(hogs)
    assert [shared.pid("worker", slot) for slot in (0, 1)] == before


@pytest.mark.parametrize(("days", "size"), [(30, 64 << 30), (2, 1 << 30)])
def test_the_compactor_is_told_how_long_and_how_much_the_log_keeps(days: int, size: int) -> None:
    config = parse({"log-retention-days": days, "log-retention-bytes": size}, {}, {})
    told = CompactorConfig.from_json(for_compactor(Settings(config, "compactor", 0, "i", "b", 1))).retention
    assert told == RetentionLimits(max_age_s=days * 86400.0, max_bytes=size)
    assert (RetentionLimits() == told) == (parse({}, {}, {}).log == config.log)


def test_control_and_compactor_are_kept_alive_too(shared: Supervised) -> None:
    for role in ("control", "compactor"):
        victim = shared.wait_ready(role)
        os.kill(victim, signal.SIGKILL)
        shared.wait_ready(role, other_than=victim, within_s=5.0)


def test_a_second_start_refuses_and_says_who_is_there(shared: Supervised) -> None:
    process = start(shared.config)
    assert process.wait(timeout=10) == 1
    process.communicate()
    shared.wait_ready("worker", 0)


def test_rolling_restart_replaces_every_worker_and_always_answers(shared: Supervised) -> None:
    before = [shared.wait_ready("worker", slot) for slot in (0, 1)]
    for _ in range(5):  # a storm is one round, or two
        shared.process.send_signal(signal.SIGHUP)
    port, asked = shared.port("grpc"), 0
    deadline = time.monotonic() + 20
    while any(shared.pid("worker", slot) in (0, before[slot]) for slot in (0, 1)) or any(map(alive, before)):
        assert answers(port), f"no answer to connection {asked}"
        asked += 1
        assert time.monotonic() < deadline
    assert asked > 3
    assert shared.child("worker", 0)["reason"] == "restarted on request"


def test_a_stop_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    with Supervised(tmp_path / "data", embedded=True) as gateway:
        gateway.wait_serving()
        pids, port = gateway.pids(), gateway.port("grpc")
        assert len(pids) == 5
        assert answers(port)
        assert gateway.stop() == 0
        assert not [pid for pid in pids if alive(pid)]
        assert not answers(port)
        assert f"127.0.0.1:{port}" in gateway.stdout
        assert (tmp_path / "data" / "compacted").exists()
        assert list((tmp_path / "data" / "run").iterdir()) == [tmp_path / "data" / "run" / "state.json"]


@pytest.mark.parametrize("death", ["before", "as it stops", "none: it is halted"])
def test_a_compactor_that_died_is_followed_by_one_that_does_the_last_work(tmp_path: Path, death: str) -> None:
    data_dir = tmp_path / "data"
    with Supervised(data_dir, workers=1) as gateway:
        gateway.wait_serving()
        first = gateway.pid("compactor")
        if death == "before":
            os.kill(first, signal.SIGKILL)
        elif death == "as it stops":
            (data_dir / "compactor.mortal").touch()
        else:
            os.kill(first, signal.SIGSTOP)
        assert gateway.stop() == 0
        [(last, pace)] = [line.split() for line in (data_dir / "compacted").read_text().splitlines()]
        # The supervisor may have replaced one that died before the stop already.
        assert pace == "hurried" or death == "before"
        assert int(last) != first
        assert not alive(int(last))


def test_a_compactor_that_starts_as_the_gateway_stops_does_the_last_work(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Supervised(data_dir, workers=1) as gateway:
        gateway.wait_serving()
        first = gateway.pid("compactor")
        (data_dir / "compactor.slow").touch()
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: gateway.pid("compactor") not in (0, first) and gateway.pid("compactor"))
        assert gateway.stop() == 0
        assert [int(line.split()[0]) for line in (data_dir / "compacted").read_text().splitlines()] == [second]


def test_a_worker_whose_loop_is_busy_for_long_does_not_hang(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "worker.busy").touch()
    with Supervised(data_dir, workers=1) as gateway:
        gateway.wait_serving()
        wait_until((data_dir / "worked").exists)
        assert gateway.child("worker")["restarts"] == 0
        assert gateway.stop() == 0


def test_ctrl_c_stops_too(tmp_path: Path) -> None:
    with Supervised(tmp_path / "data", workers=1) as gateway:
        gateway.wait_serving()
        pids = gateway.pids()
        assert gateway.stop(signal.SIGINT) == 0
        assert not [pid for pid in pids if alive(pid)]


def test_what_does_not_stop_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "worker.stubborn").touch()
    with Supervised(data_dir, workers=1, grace_seconds=0.5) as gateway:
        gateway.wait_serving()
        pids = gateway.pids()
        begun = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - begun < as_loaded(0.5 + 5.0)
        assert not [pid for pid in pids if alive(pid)]


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "worker.stubborn").touch()
    with Supervised(data_dir, workers=1, grace_seconds=60) as gateway:
        gateway.wait_serving()
        pids = gateway.pids()
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: gateway.state().get("phase") == "STOPPING" or gateway.child("worker")["state"] == "STOPPING")
        begun = time.monotonic()
        assert gateway.stop(within_s=10) == 0
        assert time.monotonic() - begun < as_loaded(5.0)
        assert not [pid for pid in pids if alive(pid)]


def test_a_killed_supervisor_leaves_nobody_behind(tmp_path: Path) -> None:
    with Supervised(tmp_path / "data", embedded=True) as gateway:
        gateway.wait_serving()
        pids, port = gateway.pids(), gateway.port("grpc")
        os.kill(pids[-1], signal.SIGSTOP)  # not even one that hangs
        gateway.process.kill()
        wait_until(lambda: not [pid for pid in pids if alive(pid)], 2.0)
        assert not answers(port)
    with Supervised(tmp_path / "data", workers=1, embedded=True) as again:
        again.wait_serving()
        assert again.stop() == 0


def test_a_crash_loop_backs_off_says_why_and_recovers(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "worker-1.crash").touch()
    with Supervised(data_dir, errors=tmp_path / "errors") as gateway:
        wait_until(lambda: int(str(gateway.child("worker", 1).get("restarts", 0))) >= 4)
        child = gateway.child("worker", 1)
        assert child["reason"] == "ended with status 3"
        assert gateway.process.poll() is None
        gateway.wait_ready("worker", 0)
        begun, restarts = time.monotonic(), int(str(child["restarts"]))
        wait_until(lambda: int(str(gateway.child("worker", 1)["restarts"])) >= restarts + 2)
        assert time.monotonic() - begun > 0.8, "it did not back off"
        told = re.findall(r"worker-1 starts again in ([\d.]+) s", (tmp_path / "errors").read_text())
        assert told[:4] == ["0.20", "0.40", "0.80", "0.80"]
        (data_dir / "worker-1.crash").unlink()
        gateway.wait_ready("worker", 1)
        gateway.wait_serving()
        assert gateway.stop() == 0


def test_a_replacement_that_fails_leaves_the_old_worker_serving(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Supervised(data_dir, workers=1) as gateway:
        gateway.wait_serving()
        old = gateway.wait_ready("worker")
        (data_dir / "worker-0.crash").touch()
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "replacement" in str(gateway.child("worker")["reason"]))
        assert gateway.pid("worker") == old
        assert answers(gateway.port("grpc"))
        assert gateway.stop() == 0


def test_a_worker_that_holds_too_much_memory_is_replaced_once_another_serves(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "worker.heavy").touch()
    with Supervised(data_dir, workers=1, options={"worker-memory-bytes": 100 << 20}) as gateway:
        heavy = gateway.wait_ready("worker")
        (data_dir / "worker.heavy").unlink()
        while gateway.pid("worker") in (0, heavy) or alive(heavy):
            assert answers(gateway.port("grpc"))
        light = gateway.wait_ready("worker", other_than=heavy)
        child = wait_until(lambda: gateway.child("worker") if gateway.child("worker")["recycled"] else {})
        assert (child["pid"], child["recycled"], child["restarts"]) == (light, 1, 0)
        assert "MiB of memory, more than the 100.0 MiB of --worker-memory-bytes" in str(child["reason"])
        assert gateway.stop() == 0


def test_a_stop_during_the_start_is_a_stop(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "worker.slow").touch()
    with Supervised(data_dir) as gateway:
        wait_until(lambda: gateway.pid("worker"))
        pids = gateway.pids()
        assert gateway.stop() == 0
        assert gateway.stdout == ""
        assert not [pid for pid in pids if alive(pid)]


def test_a_taken_port_is_refused(shared: Supervised, tmp_path: Path) -> None:
    for option, port in (("grpc-port", shared.port("grpc")), ("metrics-port", shared.port("metrics"))):
        options: dict[str, object] = {
            "grpc-port": 0,
            "metrics-port": 0,
            "http-port": 0,
            "data-dir": tmp_path / "data",
            "workers": 1,
        }
        process = start(parse({**options, option: port}, {}, {}))
        process.communicate(timeout=10)
        assert process.returncode == 1


async def command(gateway: Supervised, *words: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(gateway.config.socket_dir / valkey.SOCKET)
    writer.write(b" ".join(words) + b"\r\n")
    answer = await reader.readline()
    if answer.startswith(b"$") and answer != b"$-1\r\n":
        answer = await reader.readline()
    writer.close()
    return answer.strip()


def test_the_embedded_store_keeps_its_data_over_a_kill_and_over_runs(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Supervised(data_dir, workers=1, embedded=True) as gateway:
        gateway.wait_serving()
        assert asyncio.run(command(gateway, b"SET", b"rule", b"one")) == b"+OK"
        server = gateway.pid("valkey")
        os.kill(server, signal.SIGKILL)
        gateway.wait_ready("valkey", other_than=server, within_s=5.0)
        assert asyncio.run(command(gateway, b"GET", b"rule")) == b"one"
        assert asyncio.run(command(gateway, b"CONFIG", b"GET", b"nothing")) == b"*0"
        assert gateway.stop() == 0
    with Supervised(data_dir, workers=1, embedded=True) as again:
        again.wait_serving()
        assert asyncio.run(command(again, b"GET", b"rule")) == b"one"
        assert again.stop() == 0


def test_a_long_data_directory_gets_short_sockets(tmp_path: Path) -> None:
    with Supervised(tmp_path / ("d" * 100), workers=1, embedded=True) as gateway:
        gateway.wait_serving()
        assert not (gateway.config.run_dir / valkey.SOCKET).exists()
        assert gateway.config.socket_dir.stat().st_mode & 0o777 == 0o700
        assert gateway.stop() == 0
    gateway.config.socket_dir.rmdir()
