"""CPU and memory are those of the server's processes, children and all."""

import os
import sys
import time
from pathlib import Path

import pytest

from loadtests.bench.processes import ProcessStat, all_processes, members, parse_stat, usage
from loadtests.bench.servers import running

_SPINS = """
import subprocess, sys, time
if sys.argv[1:] == ["child"]:
    end = time.process_time() + 0.3
    while time.process_time() < end: pass
else:
    subprocess.run([sys.executable, __file__, "child"])
    print("done", flush=True)
    sys.stdin.close(); time.sleep(60)
"""


def test_a_command_with_spaces_and_parentheses_does_not_confuse() -> None:
    line = "42 (a) b (c) S 7 42 5 0 -1 4194560 100 0 0 0 100 50 25 25 20 0 1 0 100 1000 10"
    stat = parse_stat(line)
    assert (stat.pid, stat.parent, stat.session) == (42, 7, 5)
    assert stat.cpu_s == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))  # user, system, and both of ended children


def test_members_are_descendants_and_the_session() -> None:
    processes = [
        ProcessStat(10, 1, 10, 0.0),
        ProcessStat(11, 10, 10, 0.0),
        ProcessStat(12, 11, 12, 0.0),  # left the session, not the tree
        ProcessStat(13, 1, 10, 0.0),  # left the tree, not the session
        ProcessStat(20, 1, 20, 0.0),
    ]
    assert [process.pid for process in members(10, processes)] == [10, 11, 12, 13]


def test_the_time_of_an_ended_child_counts_and_nothing_is_left_behind(tmp_path: Path) -> None:
    script = tmp_path / "spins.py"
    script.write_text(_SPINS)
    output = tmp_path / "output.txt"
    with running([sys.executable, str(script)], output) as process:
        deadline = time.monotonic() + 30
        while b"done" not in output.read_bytes():
            assert time.monotonic() < deadline
            assert process.poll() is None
        used = usage(process.pid)
    assert used.total_cpu_s >= 0.28
    assert used.total_rss_mib > 1
    assert process.returncode is not None


def test_a_server_of_a_shell_command_ends_with_its_block(tmp_path: Path) -> None:
    with running(["/bin/sh", "-c", "sleep 300; true"], tmp_path / "output.txt") as process:
        root = process.pid
    deadline = time.monotonic() + 10
    while left := [process for process in all_processes() if process.session == root]:  # until init has reaped it
        assert time.monotonic() < deadline, left
