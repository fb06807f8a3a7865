"""What a run depends on besides the model and its inputs: the runtime, the processor, the threads; kept by time.

    <data-dir>/log/environments.jsonl   a line for each change, the oldest first

A record of the log need not carry it: it is that of the newest line before the record.
"""

import fcntl
import logging
import os
from pathlib import Path
from time import time_ns
from typing import Final

import msgspec

from gateway.serving.session import ort_version

ENVIRONMENTS_FILE: Final = "environments.jsonl"
_SET_BACK_US: Final = 60_000_000
_CPU: Final = Path("/proc/cpuinfo")
# Instructions that ONNX Runtime chooses its kernels by, on x86 and ARM.
_KERNELS: Final = ("sse4", "avx", "fma", "f16c", "amx", "asimd", "neon", "sve", "i8mm", "bf16", "vnni")
_log = logging.getLogger(__name__)


class RunEnvironment(msgspec.Struct, frozen=True):
    """Units: `since_us` since the Unix epoch, when it began to serve. `threads` are those within one run."""

    since_us: int
    runtime: str
    cpu: str
    features: tuple[str, ...]
    threads: int

    def differences(self, other: "RunEnvironment") -> tuple[str, ...]:
        """Returns in words what another environment has otherwise."""
        said = []
        for name, what in (("runtime", "ONNX Runtime"), ("cpu", "CPU"), ("threads", "threads of a run")):
            before, after = getattr(self, name), getattr(other, name)
            if before != after:
                said.append(f"{what} was {before}, is {after}")
        lost, gained = (sorted(set(one) - set(two)) for one, two in _both_ways(self.features, other.features))
        said += [f"CPU features that are gone: {', '.join(lost)}"] if lost else []
        said += [f"CPU features that are new: {', '.join(gained)}"] if gained else []
        return tuple(said)


def present_environment(threads: int, now_us: int) -> RunEnvironment:
    """Returns the environment of this process."""
    cpu, features = "", set[str]()
    try:
        for line in _CPU.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = (part.strip() for part in line.partition(":"))
            cpu = cpu or (value if name in ("model name", "CPU part") else "")
            if name in ("flags", "Features"):
                features |= {word for word in value.split() if any(kernel in word for kernel in _KERNELS)}
                break
    except OSError:
        pass
    return RunEnvironment(now_us, ort_version(), cpu or os.uname().machine, tuple(sorted(features)), threads)


def note_environment(directory: Path, environment: RunEnvironment) -> None:
    """Writes the environment down, if the newest one in the directory is another.

    Raises: OSError.
    """
    descriptor = os.open(directory / ENVIRONMENTS_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the workers of a host begin at once
        known = _read(file.read())
        if not known or known[-1].differences(environment):
            file.write(msgspec.json.encode(environment) + b"\n")


def note_present_environment(directory: Path, threads: int) -> None:
    """Writes down what runs depend on from now on, for who runs a logged request again; that it cannot be is logged."""
    try:
        note_environment(directory, present_environment(threads, time_ns() // 1000))
    except OSError as error:
        _log.warning("%s was not written: %s", ENVIRONMENTS_FILE, error.strerror)


def environment_at(directory: Path, moment_us: int) -> RunEnvironment | None:
    """Returns the environment that served at that moment, None where nobody knows."""
    try:
        known = _read((directory / ENVIRONMENTS_FILE).read_bytes())
    except OSError:
        return None
    before = next((one for one in reversed(known) if one.since_us <= moment_us), None)
    if before is None and known and known[0].since_us - moment_us <= _SET_BACK_US:
        return known[0]  # workers write it before they serve: the clock was set back since
    return before


def _read(content: bytes) -> list[RunEnvironment]:
    known = []
    for line in content.splitlines():
        try:
            known.append(msgspec.json.decode(line, type=RunEnvironment))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # a line that a crash has cut
    return known


def _both_ways(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    return (one, other), (other, one)
