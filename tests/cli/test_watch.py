"""`gateway status --watch` in a process of its own: lines for programs, a page that is drawn anew for people."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.pb import control_pb2 as pb
from gateway.rollout.controller import RolloutController
from gateway.rollout.rollout_store import RolloutStore
from gateway.routing.store.route_reader import RouteReader
from tests.api.operated import BY
from tests.api.routes import blue_green, route
from tests.api.test_control_rollouts import NoHand
from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")
GATEWAY = Path(sys.executable).with_name("gateway")
DEADLINE_S = 20.0


async def test_each_change_is_a_line(shell: Shell) -> None:
    arguments = ("status", "--watch", "-o", "json", "--server", shell.worker.server)
    process = await asyncio.create_subprocess_exec(GATEWAY, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            seen = [json.loads(await process.stdout.readline()) for _ in range(2)]
            assert [event["event"] for event in seen] == ["worker", "settled"]
            revision = await shell.worker.apply(blue_green())
            while (event := json.loads(await process.stdout.readline()))["event"] != "committed":
                assert event["event"] == "worker"
            assert (event["revision"], event["operation"], event["actor"]) == (revision, "apply", "tester")
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, errors) == (0, b"")


async def test_the_page_is_drawn_anew_at_each_change(shell: Shell) -> None:
    await shell.worker.apply(blue_green())
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    arguments = ("status", "--watch", "--server", shell.worker.server)
    process = await asyncio.create_subprocess_exec(
        GATEWAY, *arguments, stdout=theirs, stderr=theirs, stdin=theirs, env=environment
    )
    os.close(theirs)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await shown(ours, b"blueGreen")
            await shell.worker.stub.Kill(pb.KillRequest(model="affine", change=BY))
            page = await shown(ours, b"KILLED to blue (test)")
            assert b"\x1b[" in page  # what stood there is drawn over
            await shown(ours, b"kill affine by tester (cli): test")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


async def shown(terminal: int, text: bytes) -> bytes:
    """What the terminal was sent until `text` came."""
    page = b""
    while text not in page:
        page += await asyncio.to_thread(os.read, terminal, 65536)
    return page


async def test_the_numbers_of_a_running_rollout_are_drawn_each_second(shell: Shell) -> None:
    """Time that passes is no change of anything, and yet the page shows less of it left."""
    store = shell.worker.store
    await store.link.call("DEL", store.keys.rollouts, store.keys.judge)
    steps = [{"weight": "10%", "hold": "10m"}, {"weight": "50%"}]
    arms = {"stable": {"version": "1"}, "canary": {"version": "2"}}
    await shell.worker.apply(route(arms, {"canary": {"steps": steps, "analysis": {}}}))
    judge = RolloutController(RolloutStore(store, RouteReader(store)), NoHand(), "test")
    await judge.step()
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    process = await asyncio.create_subprocess_exec(
        GATEWAY, "status", "--watch", "--server", shell.worker.server, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await shown(ours, b"600 s left")
            while True:
                await judge.step()
                page = await asyncio.to_thread(os.read, ours, 65536)
                if re.search(rb"5\d\d s left", page):
                    break
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
        await store.link.call("DEL", store.keys.rollouts, store.keys.judge)
