"""What the kernel says of a process of the gateway: CPU, memory, descriptors, threads. Source: proc(5)."""

import gc
import os
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Places in /proc/<pid>/stat behind the name, which may hold anything.
_UTIME, _STIME, _THREADS, _STARTED, _RESIDENT = 11, 12, 17, 19, 21
_OPEN_FILES: Final = "Max open files"


def process_figures(pid: int, proc: Path = Path("/proc")) -> dict[str, float]:
    """Returns cpu_s, resident_bytes, threads, started_s, open_fds and max_fds of a process, as far as they are known.

    Nothing where it is gone or the system tells nothing; no descriptors where it is another user's.
    Units: `started_s` since the Unix epoch.
    """
    place = proc / str(pid)
    try:
        fields = (place / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        figures: dict[str, float] = {
            "cpu_s": (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
            "resident_bytes": int(fields[_RESIDENT]) * _PAGE_BYTES,
            "threads": int(fields[_THREADS]),
            "started_s": _booted_s(proc) + int(fields[_STARTED]) / _TICKS,
        }
        figures["open_fds"] = len(os.listdir(place / "fd"))
        limits = (place / "limits").read_text("ascii", "replace").splitlines()
        soft = next(line for line in limits if line.startswith(_OPEN_FILES))[len(_OPEN_FILES) :].split()[0]
    except (IndexError, ValueError, StopIteration):
        return {}
    except PermissionError:
        return figures
    except OSError:
        return {}
    return figures | ({"max_fds": int(soft)} if soft.isdigit() else {})


def collections() -> list[int]:
    """Returns how often this process's garbage was collected, by generation."""
    return [int(one["collections"]) for one in gc.get_stats()]


def _booted_s(proc: Path) -> int:
    lines = (proc / "stat").read_text("ascii", "replace").splitlines()
    return int(next(line for line in lines if line.startswith("btime")).split()[1])
