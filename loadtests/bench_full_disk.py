"""What a bad disk of the prediction log costs the calls meanwhile: p99 in turns with a sound disk and without.

    python -m loadtests.bench_full_disk [--fault deleted|full|read-only|slow] [--seconds 6] [--turns 4] [--per-second N]

This needs root and Linux. What is done to the log's disk in bad turns is done to another one in the others, for that
takes time of the CPUs too. A turn before and one after each bad one tell what the machine's own changes are.

deleted    The directory is removed with all that is in it, again and again, each 0.7 s. The log makes it anew.
full       A disk that stays full is noticed by its use, once a second, and little is written to it. So a file fills it
           for 0.4 s of each 0.7 s, and many writes meet a full disk. The log is on a file system in memory.
read-only  Nothing in the directory can be written, made or removed (chattr +i), for all of the turn. Use does not tell
           that, so every write is tried.
slow       The kernel lets the gateway write 8 KiB a second to the disk (blkio of control groups, version 1).
"""

import argparse
import ctypes
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from loadtests.bench import cases
from loadtests.bench.models import MODELS
from loadtests.bench.processes import all_processes, members
from loadtests.bench.servers import GatewaySetup, Server, gateway
from loadtests.open_loop import Outcome, Traffic, drive

_DISK_BYTES: Final = 16 << 20
_BALLAST: Final = "ballast"
_REMOVED_BYTES: Final = 64 << 10
_FULL_S: Final = 0.4
_FREE_S: Final = 0.3
_DEADLINE_S: Final = 2.0
_DETACH: Final = 2
_SLOW_BYTES_PER_S: Final = 8192
_BLKIO: Final = Path("/sys/fs/cgroup/blkio")
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


def remove_now_and_then(folder: Path) -> None:
    """Removes the directory, again and again, with at least one file in it."""
    while True:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _BALLAST).write_bytes(bytes(_REMOVED_BYTES))
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_FULL_S + _FREE_S)


def chattr(flag: str, folder: Path) -> None:
    subprocess.run(["chattr", "-R", flag, folder], check=False, capture_output=True)


@contextmanager
def harmed(folder: Path, fault: str) -> Iterator[None]:
    """That is done to the disk while the block runs: for all of it, or now and then by another process."""
    if fault == "read-only":
        chattr("+i", folder)
        try:
            yield
        finally:
            chattr("-i", folder)
        return
    command = [sys.executable, "-m", "loadtests.bench_full_disk", "--fault", fault, "--harm", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    try:
        yield
    finally:
        process.kill()
        process.communicate()
        (folder / _BALLAST).unlink(missing_ok=True)


@contextmanager
def slowed(pid: int, folder: Path) -> Iterator[None]:
    """The processes of the gateway write slowly to the disk of the folder while the block runs."""
    device = os.stat(folder).st_dev
    rate = _BLKIO / f"slow-{pid}" / "blkio.throttle.write_bps_device"
    place = f"{os.major(device)}:{os.minor(device)}"
    rate.write_text(f"{place} {_SLOW_BYTES_PER_S}")
    try:
        yield
    finally:
        rate.write_text(f"{place} 0")


@contextmanager
def group_of(pid: int) -> Iterator[None]:
    """The process and all below it are in a control group of their own."""
    group = _BLKIO / f"slow-{pid}"
    group.mkdir()
    for process in members(pid, all_processes()):
        with suppress(OSError):
            (group / "cgroup.procs").write_text(str(process.pid))
    try:
        yield
    finally:
        for pid_left in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (_BLKIO / "cgroup.procs").write_text(pid_left)
        group.rmdir()


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def turn(server: Server, traffic: Traffic, seconds: float, disk: Path, fault: str, *, is_bad: bool) -> Outcome:
    with ExitStack() as stack:
        if fault != "slow":
            stack.enter_context(harmed(disk, fault))
        elif is_bad:
            stack.enter_context(slowed(server.pid, disk))
        (outcome,) = uvloop.run(drive(server.address, [traffic], seconds))
    return outcome


def dropped(server: Server) -> dict[str, float]:
    """Returns what became of the records, by metric."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if line.startswith(_METRICS)]
    return {name: float(value) for name, _, value in samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=("deleted", "full", "read-only", "slow"), default="full")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--per-second", type=float, default=400.0)
    parser.add_argument("--harm", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.harm is not None:
        print("begins", flush=True)
        (fill_now_and_then if options.fault == "full" else remove_now_and_then)(options.harm)
    with tempfile.TemporaryDirectory(prefix="full-disk-") as name, ExitStack() as stack:
        work = Path(name)
        (made,) = cases.make([MODELS["tiny"]], work)
        disks = {True: work / "gateway" / "log", False: work / "other"}
        for disk in disks.values():
            if options.fault == "full":
                stack.enter_context(small_disk(disk))
            else:
                (disk / "wal").mkdir(parents=True)
        setup = GatewaySetup("gateway", off=frozenset({"route"}))
        server = stack.enter_context(gateway(setup, [made], work))
        if options.fault == "slow":
            stack.enter_context(group_of(server.pid))
        traffic = Traffic(made.body.read_bytes(), options.per_second, _DEADLINE_S, connections=4)

        def p99_ms(*, is_bad: bool) -> float:
            disk = disks[is_bad]
            outcome = turn(server, traffic, options.seconds, disk, options.fault, is_bad=is_bad)
            p99 = 1e3 * outcome.latency_s(0.99)
            print(f"{options.fault if is_bad else 'sound'}: p99 {p99:.2f} ms, codes {dict(outcome.codes)}", flush=True)
            return p99

        p99_ms(is_bad=False)  # nobody counts this one
        sound, bad = [p99_ms(is_bad=False)], []
        for _ in range(options.turns):
            bad.append(p99_ms(is_bad=True))
            sound.append(p99_ms(is_bad=False))
        for metric, value in sorted(dropped(server).items()):
            print(f"{metric} {value:g}")
    for name, of in (("medians", median), ("least", min)):
        print(f"p99, {name}: sound {of(sound):.2f} ms, {options.fault} {of(bad):.2f} ms")
    print(f"p99 against the turns before and after, median ratio: {median(against_neighbours(sound, bad)):.3f}")
    drift = [max(pair) / min(pair) for pair in itertools.pairwise(sound)]
    print(f"p99 of the turn after against the one before, either way, median ratio: {median(drift):.3f}")


def against_neighbours(sound: Sequence[float], bad: Sequence[float]) -> list[float]:
    """Returns each bad turn's figure by the geometric mean of its two sound neighbours, which are one more."""
    return [value / sqrt(before * after) for value, (before, after) in zip(bad, itertools.pairwise(sound), strict=True)]


if __name__ == "__main__":
    main()
