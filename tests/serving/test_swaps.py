"""Content that replaces content, hundreds of times: nothing of what went stays in memory."""

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pytest

from gateway.serving.residence import Residence
from gateway.serving.version import VersionState
from tests import models
from tests.serving.stage import Stage, floats, given, staged

SWAPS = 500
FIRST = 100  # until then allocators and caches have what they keep
SHARE = 0.02


READINGS = 51  # one alone shows what the allocator happens to hold, which moves by three percent


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def assert_level(what: str, readings: Sequence[int]) -> None:
    """Memory is at the end what it was after the first ones; `readings` has one for each."""
    before, after = median(readings[FIRST - READINGS : FIRST]), median(readings[-READINGS:])
    print(f"{SWAPS} {what}: {before // 1024:.0f} KiB, then {after // 1024:.0f} KiB ({after / before - 1:+.2%})")
    assert len(readings) == FIRST + SWAPS
    assert abs(after / before - 1) < SHARE


async def swap(stage: Stage, directory: Path, content: int) -> None:
    """The model's only version has other content, and answers by it."""
    models.write_version(directory / "models", "m", "1", models.affine(float(content), features=16_384))
    await stage.catalog.poll()
    call = await stage.infer("m", floats(1.0, features=16_384))
    assert given(call)[0][0, 0] == content
    stage.forget()
    await stage.log.flush()  # as a worker's loop does
    assert [status.state for status in stage.catalog.states("m")] == [VersionState.AVAILABLE]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("residence", [None, Residence()], ids=["all in memory", "on demand"])
async def test_swaps_leave_memory_as_it_was(tmp_path: Path, residence: Residence | None) -> None:
    async with staged(tmp_path, residence=residence) as stage:
        readings = []
        for content in range(FIRST + SWAPS):
            await swap(stage, tmp_path, content)
            readings.append(resident_bytes())
        assert_level("swaps", readings)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_versions_that_come_and_go_leave_memory_as_it_was(tmp_path: Path) -> None:
    """Two models take the place of each other, with room for one."""
    for name in "ab":
        models.write_version(tmp_path / "models", name, "1", models.affine(2.0, features=16_384))
    async with staged(tmp_path, residence=Residence(1 << 40, 0.0)) as stage:
        largest = max(stage.catalog.version(name, "1").memory_bytes for name in "ab")
    async with staged(tmp_path, residence=Residence(largest, 0.0)) as stage:
        readings = []
        for turn in range(FIRST + SWAPS):
            call = await stage.infer("ab"[turn % 2], floats(1.0, features=16_384))
            assert call.error is None
            stage.forget()
            await stage.log.flush()
            readings.append(resident_bytes())
        assert stage.catalog.demand_counts()["unloaded"] == FIRST + SWAPS - 1
        assert_level("loads on demand", readings)
