"""Kills writers and compactors at random moments and checks: nothing acknowledged is lost, nothing is twice.

Usage: python -m tests.records.kill_loop [--rounds 200] [--seed 1]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from gateway.records.lake.compactor import CompactorConfig
from gateway.records.lake.merging import MergeLimits
from tests.machine_load import as_loaded
from tests.records.traffic import lake_ids


@dataclass(frozen=True)
class Result:
    """Records that were acknowledged, that are in the lake, and what is wrong with them."""

    acknowledged: int
    outcome: int
    lost: int
    twice: int


def run(folder: Path, *, rounds: int, seed: int) -> Result:
    """Rounds of one writer and one compactor at work together, both killed; then a compactor that ends in order."""
    rng = random.Random(seed)
    log, lake = folder / "wal", folder / "lake"
    promised: dict[str, int] = {}
    for number in range(rounds):
        prefix = f"w{number}"
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.records.writer", str(log), prefix], stdout=subprocess.PIPE, text=True
        )
        compactor = start_compactor(log, lake)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        promised[prefix] = kill_after(writer, rng.uniform(0.0, 0.25))
        read_until(compactor, monotonic() + rng.uniform(0.0, 0.6))
    stop_compactor(start_compactor(log, lake))
    ids = lake_ids(lake)
    expected = {f"{prefix}.{number}" for prefix, count in promised.items() for number in range(count)}
    return Result(sum(promised.values()), len(ids), len(expected - set(ids)), len(ids) - len(set(ids)))


def start_compactor(log: Path, lake: Path, *, hurried: bool = False) -> "subprocess.Popen[str]":
    """A compactor as the supervisor starts it; its reports are on `stdout`, which stands for descriptor 3."""
    merging = MergeLimits(quiet_s=-1e10)  # also hours that are not over
    config = CompactorConfig(
        str(log), str(lake), interval_s=0.02, retention_interval_s=0.05, merging=merging, hurried=hurried
    )
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {sys.executable} -m gateway.records.lake.compactor_process 3>&1 1>&2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(config.to_json() + "\n")
    process.stdin.flush()
    return process


def stop_compactor(process: "subprocess.Popen[str]") -> list[dict[str, object]]:
    """Ends it in order, by closing its standard input; what it reported."""
    reports, _ = process.communicate(timeout=as_loaded(60))
    assert process.returncode == 0, process.returncode
    return [json.loads(line) for line in reports.splitlines()]


def kill_after(writer: "subprocess.Popen[str]", delay_s: float) -> int:
    """Lets the writer work, kills it, and reads how many records it was promised: the last whole line."""
    assert writer.stdout is not None
    deadline = monotonic() + delay_s
    written = 0
    while monotonic() < deadline:
        written = int(writer.stdout.readline().split()[0])
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read()
    writer.wait()
    writer.stdout.close()
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            written = int(line.split()[0])
    return written


def read_until(process: "subprocess.Popen[str]", deadline: float) -> None:
    """Reads the reports of a compactor up to that time, and kills it."""
    assert process.stdout is not None
    while monotonic() < deadline and process.poll() is None:
        process.stdout.readline()
    assert process.stdin is not None
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        result = run(Path(name), rounds=options.rounds, seed=options.seed)
    print(result)
    sys.exit(1 if result.lost or result.twice else 0)
