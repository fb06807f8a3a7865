"""Writers and compactors with the drift monitor, killed at random moments: tallies and lake hold the same rows."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

import msgspec
import numpy as np
import pytest

from gateway.drift.online.tally_store import Subject
from gateway.drift.online.windows import WEIGHT_ONE
from tests.drift.logged import config, save_profile, watched
from tests.records.kill_loop import kill_after, read_until, stop_compactor
from tests.records.traffic import lake_rows

ROUNDS = 4


def start(directory: Path) -> "subprocess.Popen[str]":
    """The compactor's process as the supervisor starts it, its reports on `stdout`."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {sys.executable} -m gateway.runtime.compaction 3>&1 1>&2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.structs.replace(config(directory), interval_s=0.02).to_json() + "\n")
    process.stdin.flush()
    return process


@pytest.mark.slow
def test_tallies_have_the_rows_of_the_lake_whenever_a_compactor_is_killed(tmp_path: Path) -> None:
    rng = random.Random(2)
    values = np.random.default_rng(2).uniform(0, 3000, size=(4000, 4))
    save_profile(tmp_path, values, np.full(4000, 0.7))
    for number in range(ROUNDS):
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.records.writer", str(tmp_path / "wal"), f"w{number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        compactor = start(tmp_path)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        kill_after(writer, rng.uniform(0.05, 0.25))
        read_until(compactor, monotonic() + rng.uniform(0.0, 0.6))
    stop_compactor(start(tmp_path))
    rows = lake_rows(tmp_path / "lake", columns=["model", "f.x_0"])
    assert Counter(row["model"] for row in rows).keys() == {"flights", "digits"}
    logged = np.array([row["f.x_0"] for row in rows if row["model"] == "flights"])
    _, monitor = watched(tmp_path)
    book = monitor._books[Subject("flights", "version/1")]
    (series,) = book.series.values()
    (day,) = series.buckets[86_400].values()
    assert day.rows == len(logged) > 1000
    expected = book.layout.features[0].bins.count(logged) * WEIGHT_ONE
    assert (day.counts[book.layout.places[0]] == expected).all()
