"""A compactor holds after millions of rows what it held after the first."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.soak.growth import Verdict, slope
from tests.records.traffic import append, open_log, open_stream

ROUNDS = 120
ROWS = 20_000
MOST_MIB = 1.0  # a million rows
COMPACTS = """
import json, os, sys
from pathlib import Path
from gateway.records.lake import parquet
from gateway.records.lake.compactor import Compactor, CompactorConfig
parquet.limit_threads()
compactor = Compactor(CompactorConfig(sys.argv[1], sys.argv[2]))
for _ in sys.stdin:
    while compactor.step():
        pass
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(json.dumps([compactor.counts.rows, resident]), flush=True)
"""


async def log_of(directory: Path, number: int) -> None:
    """One round's segments: many small records, as one worker's run leaves them."""
    log = open_log(directory, worker=f"w{number}")
    streams = [open_stream(log), open_stream(log, model="digits")]
    for row in range(ROWS):
        append(streams[row % 2], f"{number}.{row}")
        if row % 1000 == 999:
            await log.flush()
    await log.close()


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMPACTS, str(tmp_path / "wal"), str(tmp_path / "lake")]
    readings: list[tuple[int, int]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(ROUNDS):
            asyncio.run(log_of(tmp_path / "wal", number))
            process.stdin.write("\n")
            process.stdin.flush()
            rows, resident = json.loads(process.stdout.readline())
            readings.append((rows, resident))
        process.stdin.close()
    assert readings[-1][0] == ROUNDS * ROWS
    mib = [resident / (1 << 20) for _, resident in readings]
    grown = slope([rows for rows, _ in readings], mib)
    assert grown is not None
    print(f"{readings[-1][0]} rows: {mib[0]:.1f} MiB, then {mib[-1]:.1f} MiB; {grown}")
    assert grown.verdict(MOST_MIB) is Verdict.HOLDS
