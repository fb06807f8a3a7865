"""What the processes of a server use, from /proc."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_MEBIBYTE: Final = 1 << 20
# In a command line, most telling first: the compactor is started through a module that has `runtime` in its name too.
_ROLES: Final = (
    ("gateway.records.lake.compactor_process", "compactor"),
    ("gateway.runtime.worker", "worker"),
    ("loadtests.bench.uncounted_worker", "worker"),
    ("gateway.runtime.control_process", "control"),
    ("gateway.runtime.supervisor", "supervisor"),
    ("loadtests.bench.uncounted", "supervisor"),
    ("valkey", "store"),
)


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One line of /proc/PID/stat. Units: seconds, user and system; `cpu_s` has what ended children used."""

    pid: int
    parent: int
    session: int
    cpu_s: float


def parse_stat(line: str) -> ProcessStat:
    """The line's values; the command in parentheses may itself hold spaces and parentheses."""
    pid, _, rest = line.partition(" (")
    fields = rest.rpartition(")")[2].split()
    ticks = sum(map(int, fields[11:15]))
    return ProcessStat(int(pid), int(fields[1]), int(fields[3]), ticks * _TICK_S)


def all_processes() -> list[ProcessStat]:
    pids = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                pids.append(parse_stat(Path("/proc", name, "stat").read_text(errors="replace")))
            except (OSError, ValueError):
                continue  # it has ended
    return pids


def members(root: int, processes: Iterable[ProcessStat]) -> list[ProcessStat]:
    """The process `root`, everything below it, and everything of the session that it leads."""
    processes = list(processes)
    inside = {process.pid for process in processes if process.pid == root or process.session == root}
    grown = True
    while grown:
        below = {process.pid for process in processes if process.parent in inside}
        grown = not below <= inside
        inside |= below
    return [process for process in processes if process.pid in inside]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server has used up to a moment, by role of its processes. Units: seconds of CPU; MiB; one per worker."""

    cpu_s: Mapping[str, float]
    rss_mib: Mapping[str, float]
    worker_cpu_s: tuple[float, ...]

    @property
    def total_cpu_s(self) -> float:
        return sum(self.cpu_s.values())

    @property
    def total_rss_mib(self) -> float:
        return sum(self.rss_mib.values())


def usage(root: int) -> Usage:
    """What the server with that first process has used until now."""
    cpu_s: dict[str, float] = {}
    rss_mib: dict[str, float] = {}
    workers = []
    for process in sorted(members(root, all_processes()), key=lambda process: process.pid):
        role = _role(process.pid)
        cpu_s[role] = cpu_s.get(role, 0.0) + process.cpu_s
        rss_mib[role] = rss_mib.get(role, 0.0) + _rss_mib(process.pid)
        if role == "worker":
            workers.append(process.cpu_s)
    return Usage(cpu_s, rss_mib, tuple(workers))


def members_of(root: int) -> list[ProcessStat]:
    """The processes of the server with that first process, as they are now."""
    return members(root, all_processes())


def command_line(pid: int) -> str:
    """Its arguments, with NUL between them; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def pss_mib(pid: int) -> float:
    """Its memory in MiB: what it shares with others counts in parts; 0 if it has ended or may not be looked at."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _role(pid: int) -> str:
    command = command_line(pid)
    return next((role for part, role in _ROLES if part in command), "server")


def _rss_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / _MEBIBYTE
    except OSError:
        return 0.0
