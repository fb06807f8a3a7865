"""Which deaths blame a run, told by processes that really die."""

import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.runtime.child import Settings
from gateway.runtime.child_process import ChildProcess
from gateway.runtime.config_parser import parse
from gateway.runtime.memory_kills import count_kills
from gateway.runtime.post_mortem import PostMortem, fault_path
from gateway.serving.refusals import Refusals
from gateway.serving.run_page import LOOP_SLOT, SLOT_WORDS, RunPage, VersionKey, page_path
from tests.control_group import control_group

KEY = VersionKey("m", "1", "d")
OTHER = VersionKey("n", "1", "d")
DIES = "import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), int(sys.argv[1])); sys.exit(3)"


def settings(data_dir: Path) -> Settings:
    config = parse({"data-dir": data_dir, "redis-url": "redis://127.0.0.1:1"}, {}, {})
    return Settings(config=config, role="worker", slot=0, instance="i", boot=uuid4().hex, supervisor_pid=1)


def dump_threads(path: Path) -> None:
    """Writes what a signal would, in a process with few threads: a dump ends after a hundred."""
    command = (sys.executable, "-c", "import faulthandler; faulthandler.dump_traceback()")
    with path.open("wb") as faults:
        subprocess.run(command, stderr=faults, check=True)


async def dead(own: Settings, number: int) -> ChildProcess:
    """A child that a signal ended, or none if it is 0."""
    child = ChildProcess((sys.executable, "-c", DIES, str(number)), own, own.to_json())
    await child.exited.wait()
    return child


def shown(run_dir: Path, boot: str) -> RunPage:
    """The page of a worker that ran one version on its loop and another on a thread."""
    page = RunPage(page_path(run_dir, boot))
    page.enter(LOOP_SLOT, page.register(KEY), [1])
    page.enter(page.take_slot(), page.register(OTHER), [2])
    return page


@pytest.mark.parametrize("number", [signal.SIGFPE, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL])
async def test_a_fault_blames_what_ran(tmp_path: Path, number: signal.Signals) -> None:
    own = settings(tmp_path)
    run_dir = own.config.run_dir
    post_mortem = PostMortem(run_dir, hold_s=60, changed=lambda: None)
    shown(run_dir, own.boot)
    text = post_mortem.examine(await dead(own, number))
    assert f"killed by {number.name} while it ran model=m version=1" in text
    refusals = Refusals(run_dir)
    assert refusals.is_suspect(KEY, 1)  # nobody knows which of the two it was
    assert refusals.is_suspect(OTHER, 2)
    assert not page_path(run_dir, own.boot).exists()
    post_mortem.close()
    assert not (run_dir / "running").exists()


def refused(run_dir: Path) -> list[tuple[VersionKey, list[int], list[int], bool]]:
    """What each version is known for: inputs that are refused, suspects, and whether it may not run at all."""
    return [(one.key, [*one.inputs], [*one.suspects], one.until_s > 0) for one in Refusals(run_dir).versions]


async def test_a_file_that_was_cut_short_blames_no_request(tmp_path: Path) -> None:
    rolls: list[int] = []
    first, sibling, idle = (settings(tmp_path) for _ in range(3))
    run_dir = first.config.run_dir
    post_mortem = PostMortem(run_dir, hold_s=60, changed=lambda: None, files_changed=lambda: rolls.append(1))
    post_mortem.examine(await dead(idle, signal.SIGBUS))
    assert (rolls, Refusals(run_dir).active) == ([], False)  # nothing ran: others would die of it at their start, too
    for own in (first, sibling):
        shown(run_dir, own.boot)
    deaths = [await dead(own, signal.SIGBUS) for own in (first, sibling)]
    text = post_mortem.examine(deaths[0])
    assert "killed by SIGBUS (a mapped file that was cut short" in text
    suspected = refused(run_dir)
    assert suspected == [(KEY, [], [1], False), (OTHER, [], [2], False)]
    text = post_mortem.examine(deaths[1])  # it had mapped the same file, and may have run the same inputs again
    assert text.startswith("killed by SIGBUS while it ran model=m version=1, model=n version=1: a file that it had")
    assert refused(run_dir) == suspected
    assert rolls == [1]


async def test_a_request_that_raises_sigbus_again_is_refused_and_workers_are_replaced_once(tmp_path: Path) -> None:
    rolls: list[int] = []
    first = settings(tmp_path)
    run_dir = first.config.run_dir
    post_mortem = PostMortem(run_dir, hold_s=60, changed=lambda: None, files_changed=lambda: rolls.append(1))
    for own, known in ((first, (KEY, [], [1], False)), (settings(tmp_path), (KEY, [1], [], False))):
        page = RunPage(page_path(run_dir, own.boot))
        page.enter(LOOP_SLOT, page.register(KEY), [1])
        child = await dead(own, signal.SIGBUS)  # the second has mapped what is there after the first
        post_mortem.examine(child)
        assert refused(run_dir) == [known]
    assert rolls == [1]


async def test_the_thread_that_the_signal_reached_says_which_run_it_was(tmp_path: Path) -> None:
    own = settings(tmp_path)
    run_dir = own.config.run_dir
    post_mortem = PostMortem(run_dir, hold_s=60, changed=lambda: None)
    page = shown(run_dir, own.boot)
    dump_threads(fault_path(run_dir, own.boot))
    thread = int(fault_path(run_dir, own.boot).read_bytes().split(b"Current thread 0x")[1].split()[0], 16)
    page.words[1], page.words[SLOT_WORDS + 1] = thread, thread + 1
    text = post_mortem.examine(await dead(own, signal.SIGFPE))
    assert "model=m version=1" in text
    assert "model=n" not in text
    assert Refusals(run_dir).of_input(KEY, 1) is not None


@pytest.mark.parametrize("number", [0, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_an_exit_or_a_kill_from_outside_blames_nobody(tmp_path: Path, number: int) -> None:
    own = settings(tmp_path)
    post_mortem = PostMortem(own.config.run_dir, hold_s=60, changed=lambda: None)
    shown(own.config.run_dir, own.boot)
    assert post_mortem.examine(await dead(own, number)) == ""
    assert not Refusals(own.config.run_dir).active


async def test_who_kills_a_worker_soon_after_a_kill_in_another_group_blames_nobody(tmp_path: Path) -> None:
    if count_kills().source.endswith("vmstat"):
        pytest.skip("no group counts here, so the whole host is looked at")
    own = settings(tmp_path)
    post_mortem = PostMortem(own.config.run_dir, hold_s=60, changed=lambda: None)
    shown(own.config.run_dir, own.boot)
    with control_group("memory") as other:
        assert other.exhaust_memory() == -signal.SIGKILL
    assert post_mortem.examine(await dead(own, signal.SIGKILL)) == ""
    assert not Refusals(own.config.run_dir).active


@pytest.mark.parametrize(("hung", "blamed"), [(True, ["m"]), (False, [])])
async def test_a_hang_blames_the_run_on_the_loop(tmp_path: Path, hung: bool, blamed: list[str]) -> None:
    own = settings(tmp_path)
    post_mortem = PostMortem(own.config.run_dir, hold_s=60, changed=lambda: None)
    shown(own.config.run_dir, own.boot)
    child = ChildProcess((sys.executable, "-c", "import time; time.sleep(60)"), own, own.to_json())
    assert not child.is_stopped()
    child.hung = hung
    before = post_mortem.examine(child) if hung else ""
    assert ("while it ran model=m" in before) is hung
    child.kill("hung: silent for 3 s")
    await child.exited.wait()
    assert post_mortem.examine(child) == ""
    assert [version.model for version in Refusals(own.config.run_dir).versions] == blamed


_SILENT = """
import asyncio, subprocess, sys
from pathlib import Path
from gateway.runtime.child_process import ChildProcess
from gateway.runtime.post_mortem import PostMortem
from tests.runtime.test_post_mortem import refused, settings, shown

async def main():
    own = settings(Path(sys.argv[1]))
    run_dir = own.config.run_dir
    post_mortem = PostMortem(run_dir, hold_s=60, changed=lambda: None)
    shown(run_dir, own.boot)
    child = ChildProcess((sys.executable, "-c", "import time; time.sleep(60)"), own, own.to_json())
    assert subprocess.run([sys.executable, "-c", "b'x' * (1 << 30)"]).returncode == -9
    child.hung = True
    print(post_mortem.examine(child))
    child.kill("hung: silent for 2 s")
    await child.exited.wait()
    print(post_mortem.examine(child), [known[1:] for known in refused(run_dir)])

asyncio.run(main())
"""


def test_a_worker_that_is_silent_as_the_kernel_kills_for_want_of_memory_makes_suspects(tmp_path: Path) -> None:
    """The kernel takes the memory of a large process for seconds before it ends: it looks as if it hung."""
    with control_group("memory") as group:
        group.limit(384 << 20)
        program = [sys.executable, "-c", _SILENT, str(tmp_path)]
        told = subprocess.run(
            ["/bin/sh", "-c", f'{group.joining}exec "$@"', "sh", *program], capture_output=True, text=True, check=False
        )
    assert told.returncode == 0, told.stderr
    first, second = told.stdout.splitlines()
    assert first.startswith(
        "killed for want of memory while it ran model=m version=1 input=0000000000000001: run alone"
    )
    assert "; killed for want of memory while it ran model=n version=1" in first
    assert second == " [([], [1], False), ([], [2], False)]"


async def test_a_model_that_is_loaded_again_is_released(tmp_path: Path) -> None:
    own = settings(tmp_path)
    changes: list[int] = []
    post_mortem = PostMortem(own.config.run_dir, hold_s=60, changed=lambda: changes.append(1))
    page = shown(own.config.run_dir, own.boot)
    page.leave(1)
    post_mortem.examine(await dead(own, signal.SIGFPE))
    refusals = Refusals(own.config.run_dir)
    assert refusals.of_input(KEY, 1) is not None
    post_mortem.release("other")
    post_mortem.release("m")
    refusals.follow()
    assert refusals.of_input(KEY, 1) is None
    assert len(changes) == 2
