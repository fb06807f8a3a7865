"""What a full disk of the prediction log costs the calls meanwhile: p99 in turns with room and without.

    python -m loadtests.bench_full_disk [--seconds 6] [--turns 4] [--per-second 400]

The log is on a file system in memory, so this needs root and Linux. A disk that stays full is noticed by its use, once
a second, and little is written to it. So in turns without room a file fills it for 0.4 s of each 0.7 s, and many writes
meet a full disk. In turns with room the same is done to another one, for that takes time of the CPUs too.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from loadtests.bench import cases
from loadtests.bench.models import MODELS
from loadtests.bench.servers import GatewaySetup, Server, gateway
from loadtests.open_loop import Outcome, Traffic, drive

_DISK_BYTES: Final = 16 << 20
_BALLAST: Final = "ballast"
_FULL_S: Final = 0.4
_FREE_S: Final = 0.3
_DEADLINE_S: Final = 2.0
_DETACH: Final = 2
_METRICS: Final = ("gateway_log_dropped_total", "gateway_log_records_total", "gateway_log_flush_seconds_count")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={_DISK_BYTES}".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options):
        sys.exit(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(folder), _DETACH)


def fill_now_and_then(folder: Path) -> None:
    """Fills the disk for a while, again and again."""
    if sys.platform != "linux":
        sys.exit("a file that fills a disk at once is Linux's alone")
    ballast = folder / _BALLAST
    while True:
        with ballast.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, _free_bytes(folder))
        time.sleep(_FULL_S)
        ballast.unlink()
        time.sleep(_FREE_S)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Another process fills the disk now and then while the block runs."""
    process = subprocess.Popen([sys.executable, "-m", "loadtests.bench_full_disk", "--fill", str(folder)])
    try:
        yield
    finally:
        process.kill()
        process.wait()
        (folder / _BALLAST).unlink(missing_ok=True)


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def turn(server: Server, traffic: Traffic, seconds: float, disk: Path) -> Outcome:
    with filled(disk):
        (outcome,) = uvloop.run(drive(server.address, [traffic], seconds))
    return outcome


def dropped(server: Server) -> dict[str, float]:
    """Returns what became of the records, by metric."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if line.startswith(_METRICS)]
    return {name: float(value) for name, _, value in samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--per-second", type=float, default=400.0)
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill is not None:
        fill_now_and_then(options.fill)
    with tempfile.TemporaryDirectory(prefix="full-disk-") as name:
        work = Path(name)
        (made,) = cases.make([MODELS["tiny"]], work)
        disks = {True: work / "gateway" / "log", False: work / "other"}
        setup = GatewaySetup("gateway", off=frozenset({"route"}))
        with (
            small_disk(disks[True]),
            small_disk(disks[False]),
            gateway(setup, [made], work) as server,
        ):
            traffic = Traffic(made.body.read_bytes(), options.per_second, _DEADLINE_S, connections=4)
            turn(server, traffic, options.seconds, disks[False])  # nobody counts this one
            p99_ms: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(options.turns):
                for full, of_it in p99_ms.items():
                    outcome = turn(server, traffic, options.seconds, disks[full])
                    of_it.append(1e3 * outcome.latency_s(0.99))
                    print(
                        f"{'full' if full else 'room'}: p99 {of_it[-1]:.2f} ms, codes {dict(outcome.codes)}", flush=True
                    )
            for metric, value in sorted(dropped(server).items()):
                print(f"{metric} {value:g}")
    for name, of in (("medians", median), ("least", min)):
        print(f"p99, {name}: with room {of(p99_ms[False]):.2f} ms, without {of(p99_ms[True]):.2f} ms")


if __name__ == "__main__":
    main()
