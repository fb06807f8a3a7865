"""Preparations that are attacked: workers of two gateways at once, killed workers, disks that fill up under them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.serving.prepared_store import PreparedStore
from gateway.serving.probe_request import ProbeRequest, ProbeResult, to_json
from gateway.serving.session import Session
from gateway.serving.verification import verify
from loadtests.bench.models import MODELS
from tests.machine_load import as_loaded
from tests.serving.catalogs import Fetch
from tests.serving.prepared_models import WIDTH, entries, multiplied, preparer, weights
from tests.small_disk import remount, small_disk

# A worker that prepares the version of a file, and writes into another one why not.
WORKER = """
import asyncio, sys
from pathlib import Path
from gateway.serving.probe_request import ProbeRequest, ProbeResult, from_json
from gateway.serving.verification import verify
from tests.serving.prepared_models import preparer
directory, answer = map(Path, sys.argv[1:])
request = from_json((directory / "request.json").read_bytes(), ProbeRequest)
result = ProbeResult(ok=True, facts=verify(request.local), batches=True, repeatable=True)
answer.write_text("ended: " + asyncio.run(preparer(directory).prepare(request, result)))
"""


def worker(directory: Path, request: ProbeRequest, answer: Path) -> subprocess.Popen[bytes]:
    (directory / "request.json").write_bytes(to_json(request))
    arguments = [sys.executable, "-c", WORKER, str(directory), str(answer)]
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[2])


def preparations(pid: int) -> list[int]:
    """The processes that prepare for that one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [child for child in map(int, children) if b"preparation_child" in command(child)]


def command(pid: int) -> bytes:
    """The command line of a living process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(as_loaded(30)):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def killed_once(path: Path, task: "asyncio.Task[str]") -> str:
    """What the preparation says whose process is killed once that path is there, if it has not ended by then."""
    await until(lambda: path.exists() or task.done())
    for child in preparations(os.getpid()):
        os.kill(child, signal.SIGKILL)
    return await task


def probed(request: ProbeRequest) -> ProbeResult:
    return ProbeResult(ok=True, facts=verify(request.local), batches=True, repeatable=True)


@pytest.mark.long
async def test_of_two_gateways_that_prepare_the_same_one_does_and_the_other_takes_over_where_it_is_killed(
    fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path
) -> None:
    """Nobody waits for a process whose worker is gone: it ends with it, whatever it was writing."""
    request = ProbeRequest(fetch(multiplied()))
    both = {answer: worker(tmp_path, request, answer) for answer in (tmp_path / "one", tmp_path / "two")}
    try:
        await until(lambda: any(preparations(one.pid) for one in both.values()))
        [(killed, child)] = [(one, child) for one in both.values() for child in preparations(one.pid)]
        [(answer, other)] = [pair for pair in both.items() if pair[1] is not killed]
        killed.kill()
        killed.wait()
        assert await asyncio.to_thread(other.wait) == 0
        assert answer.read_text() == "ended: "
        await until(lambda: not command(child))
    finally:
        for one in both.values():
            one.kill()
            one.wait()
    directory = tmp_path / "prepared"
    (entry,) = entries(directory)
    assert {path.name for path in directory.iterdir()} == {entry.name, "preparing", "using"}
    x = weights(3, WIDTH)
    given = preparer(tmp_path).opened(request, probed(request), lambda session: session.run(None, {"x": x})[0])
    assert given is not None
    assert given.tobytes() == Session(multiplied(), intra_threads=1).run(None, {"x": x})[0].tobytes()


@pytest.mark.long
async def test_a_preparation_that_is_killed_at_any_moment_leaves_all_of_it_or_nothing(
    fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path
) -> None:
    """At the moments that can be seen from outside: each file that appears in its directory, and the entry itself."""
    request = ProbeRequest(fetch(multiplied()))
    result = probed(request)
    directory = tmp_path / "prepared"
    staging = directory / "staging"
    for moment in (staging, staging / "model.onnx", staging / "weights.bin", staging / "prepared.json"):
        task = asyncio.ensure_future(preparer(tmp_path).prepare(request, result, again=True))
        reason = await killed_once(moment, task)
        assert reason == "" or "ended early (code -9)" in reason
        assert not staging.exists()
        entry = preparer(tmp_path).opened(request, result, lambda session: session.inputs)
        assert (entry is not None) is (reason == "")
    assert await preparer(tmp_path).prepare(request, result, again=True) == ""


async def test_a_disk_that_fills_up_under_a_preparation_costs_the_preparation_alone(
    fetch: Fetch, tmp_path: Path
) -> None:
    request = ProbeRequest(fetch(MODELS["mlp"].serialized("1")))
    result = probed(request)
    directory = tmp_path / "prepared"
    with small_disk(directory, "2g"):  # as much as is asked for before it begins
        task = asyncio.ensure_future(preparer(tmp_path).prepare(request, result))
        await until(lambda: preparations(os.getpid()) or task.done())
        remount(directory, "64k")
        reason = await task
        assert "preparing it failed" in reason or "cannot be written" in reason
        assert not entries(directory)
        assert not (directory / "staging").exists()
        remount(directory, "2g")
        assert await preparer(tmp_path).prepare(request, result) == reason  # not again and again
        assert await preparer(tmp_path).prepare(request, result, again=True) == ""
        assert len(entries(directory)) == 1
