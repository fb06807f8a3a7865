"""What the kernel says of a process, against what the process itself knows."""

import os
import resource
import subprocess
import time
from pathlib import Path

import pytest

from gateway.runtime.process_figures import collections, process_figures

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")


def test_the_figures_of_this_process_are_its_own() -> None:
    with open("/dev/null"):
        more = process_figures(os.getpid())
    figures = process_figures(os.getpid())
    assert figures["open_fds"] == more["open_fds"] - 1
    assert figures["max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert figures["threads"] >= 1
    assert 1 << 20 < figures["resident_bytes"] < 1 << 40
    assert figures["cpu_s"] <= sum(os.times()[:2]) + 0.1
    assert time.time() - 86_400 < figures["started_s"] <= time.time() + 2


def test_nothing_is_said_of_a_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert process_figures(child.pid) == {}


@pytest.mark.parametrize("stat", ["", "1 (a) b", "1 (a) S x"])
def test_nothing_is_said_of_what_cannot_be_read(tmp_path: Path, stat: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "stat").write_text(stat)
    assert process_figures(1, tmp_path) == {}


def test_a_name_of_brackets_and_blanks_shifts_no_field(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu 1\nbtime 1000\n")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "fd").mkdir()
    (tmp_path / "1" / "limits").write_text("Limit  Soft\nMax open files            unlimited    unlimited   files\n")
    fields = [str(place) for place in range(30)]
    (tmp_path / "1" / "stat").write_text(f"1 (a ) (b) {' '.join(fields)}")
    ticks = os.sysconf("SC_CLK_TCK")
    assert process_figures(1, tmp_path) == {
        "cpu_s": 23 / ticks,
        "resident_bytes": 21 * os.sysconf("SC_PAGE_SIZE"),
        "threads": 17,
        "started_s": 1000 + 19 / ticks,
        "open_fds": 0,
    }


def test_collections_are_told_by_generation() -> None:
    assert len(collections()) == 3
