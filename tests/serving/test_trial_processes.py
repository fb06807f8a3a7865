"""The processes that try versions: one for each trial, ended with it, apart from those of others."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from gateway.serving.probe import Prober, ProbeRequest
from gateway.serving.probe_request import ProbeMessage, from_json, to_json
from gateway.serving.zygote_process import MESSAGE_BYTES, padded
from tests import models
from tests.autogroups import session_niceness
from tests.machine_load import as_loaded
from tests.serving.catalogs import Fetch
from tests.serving.trial_processes import children, filters, probing, state, until, zygotes

pytestmark = pytest.mark.usefixtures("earlier_zygotes")


async def test_crash_is_a_readable_reason(fetch: Fetch) -> None:
    async with probing(ProbeRequest(fetch(models.endless()), timeout_s=30), Prober()) as (task, pid):
        os.kill(pid, signal.SIGSEGV)
        result = await task
    assert not result.ok
    assert not result.lasting
    assert result.reason.startswith("killed by signal 11 (segmentation fault) while being")


async def test_cancelled_probe_leaves_no_process(fetch: Fetch) -> None:
    async with probing(ProbeRequest(fetch(models.endless()), timeout_s=30), Prober()) as (task, pid):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state(pid) == ""


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"), reason="no such filter")
async def test_no_thread_of_a_probe_can_start_a_process(fetch: Fetch) -> None:
    request = ProbeRequest(fetch(models.endless()), intra_threads=3, timeout_s=30)
    async with probing(request, Prober()) as (_, pid):
        await until(lambda: len(filters(pid)) >= 3 and set(filters(pid)) == {"2"})


async def test_processes_end_with_their_worker(fetch: Fetch) -> None:
    request = to_json(ProbeRequest(fetch(models.endless()), timeout_s=30))
    script = (
        "import asyncio, sys\n"
        "from gateway.serving.probe import Prober, ProbeRequest\n"
        "from gateway.serving.probe_request import from_json\n"
        "asyncio.run(Prober().probe(from_json(sys.argv[1].encode(), ProbeRequest)))\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, request)
    try:
        await until(lambda: [trial for zygote in zygotes(worker.pid) for trial in zygotes(zygote)])
        (zygote,) = zygotes(worker.pid)
        (trial,) = zygotes(zygote)
        assert os.getsid(trial) == os.getsid(zygote) == zygote  # a session of its own had a share of its own
        assert not session_niceness(trial)  # a trial has 60 s: a busy host would refuse models that are good
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: {state(zygote), state(trial)} <= {"", "Z"}, within_s=5)


async def test_trials_are_forked_from_one_process_that_ends_when_it_is_idle(fetch: Fetch, tmp_path: Path) -> None:
    prober = Prober(idle_s=600.0)
    seen: set[int] = set()
    for scale in (1.0, 2.0, 3.0):
        assert (await prober.probe(ProbeRequest(fetch(models.affine(scale))))).ok
        assert not children()
        seen.update(zygotes())
    assert len(seen) == 1
    await prober.aclose()
    assert not zygotes()
    hasty = Prober(idle_s=0.1)
    for scale in (4.0, 5.0):
        assert (await hasty.probe(ProbeRequest(fetch(models.affine(scale))))).ok  # each in another one
        await until(lambda: not zygotes(), within_s=5)
    await hasty.aclose()  # the loop hears of the end later than the kernel tells it


async def test_who_ends_the_trials_of_others_decides_nothing_about_them(fetch: Fetch) -> None:
    """A trial whose zygote was killed, whoever did it, is repeated with a zygote of its own."""
    prober = Prober()
    hanging = asyncio.ensure_future(prober.probe(ProbeRequest(fetch(models.endless()), timeout_s=2)))
    await until(children)
    (first,) = zygotes()
    good = asyncio.ensure_future(prober.probe(ProbeRequest(fetch(models.affine()))))
    os.kill(first, signal.SIGKILL)
    assert (await good).ok
    result = await hanging
    assert (result.ok, result.timed_out) == (False, True)
    assert not zygotes()


async def test_a_trial_whose_zygote_dies_twice_fails_and_may_be_repeated(fetch: Fetch) -> None:
    hanging = asyncio.ensure_future(Prober().probe(ProbeRequest(fetch(models.endless()), timeout_s=30)))
    killed = 0
    for _ in range(2):
        await until(lambda: killed not in zygotes() and children())  # noqa: B023 - it is waited for at once
        (killed,) = zygotes()
        os.kill(killed, signal.SIGKILL)
    result = await hanging
    assert (result.ok, result.lasting) == (False, False)
    assert result.reason.startswith("the process from which it was forked ended while it was being")


async def test_where_there_are_threads_a_trial_is_a_program_of_its_own(fetch: Fetch) -> None:
    """A fork would have only one of the threads, and wait for ever for what the others hold."""
    request = to_json(ProbeRequest(fetch(models.affine())))
    program = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    program += "from gateway.serving.zygote_process import main; main()"
    ours, theirs = socket.socketpair()
    channel, its_channel = socket.socketpair()
    with ours, channel, tempfile.TemporaryFile() as errors:
        with theirs:
            command = (sys.executable, "-P", "-c", program)
            zygote = await asyncio.create_subprocess_exec(
                *command, stdin=theirs.fileno(), stderr=asyncio.subprocess.PIPE
            )
        assert await asyncio.to_thread(ours.recv, MESSAGE_BYTES) == padded(b"ready")
        with its_channel:
            socket.send_fds(ours, [padded(b"start 1")], [its_channel.fileno(), errors.fileno()])
        channel.sendall(request + b"\n")
        with channel.makefile("rb") as lines:
            *_, last = await asyncio.to_thread(list, lines)
        ours.sendall(padded(b"end 1"))
        assert await asyncio.to_thread(ours.recv, MESSAGE_BYTES) == padded(b"ended 1 0")
    result = from_json(last, ProbeMessage).result
    assert result is not None
    assert result.ok, result.reason
    assert b"each trial starts anew" in (await zygote.communicate())[1]
    assert zygote.returncode == 0


async def test_a_model_that_hangs_does_not_hold_up_the_others(fetch: Fetch, tmp_path: Path) -> None:
    prober = Prober(tmp_path / "cache", concurrency=1, patience_s=0.2)
    endless = asyncio.ensure_future(prober.probe(ProbeRequest(fetch(models.endless()), timeout_s=30)))
    await until(lambda: bool(children()))
    result = await prober.probe(ProbeRequest(fetch(models.affine())))
    assert result.ok, result.reason
    assert not endless.done()
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless


async def test_workers_share_one_probe(fetch: Fetch, tmp_path: Path) -> None:
    request = ProbeRequest(fetch(models.affine()))
    workers = [Prober(tmp_path / "cache") for _ in range(4)]
    started: set[int] = set()

    async def watch() -> None:
        while True:
            started.update(zygotes())
            await asyncio.sleep(0.005)

    watcher = asyncio.ensure_future(watch())
    results = await asyncio.gather(*(worker.probe(request) for worker in workers))
    watcher.cancel()
    assert len(started) == 1
    assert results[0].ok
    assert all(result == results[0] for result in results)
    # Another parameter is another probe; damaged cache files are none.
    (cached,) = (tmp_path / "cache").glob("*.json")
    cached.write_text("{}")
    assert (await workers[0].probe(request)).ok
    assert (await workers[0].probe(replace(request, max_batch_size=2))).ok
    assert len(list((tmp_path / "cache").glob("*.json"))) == 2


async def test_passing_failures_are_shared_only_by_who_waited(fetch: Fetch, tmp_path: Path) -> None:
    request = ProbeRequest(fetch(models.endless()), timeout_s=1.5)
    workers = [Prober(tmp_path / "cache") for _ in range(3)]
    begin = monotonic()
    results = await asyncio.gather(*(worker.probe(request) for worker in workers))
    assert monotonic() - begin < as_loaded(3)
    assert {result.reason for result in results} == {"took longer than 1.5 s while being warmed up"}
    assert (await workers[0].probe(request)).timed_out  # that it took too long is remembered
