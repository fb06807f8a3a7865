"""The time at which the command was given: its user cannot have seen any later commit."""

import os
import time
from contextvars import ContextVar
from pathlib import Path

_given_at: ContextVar[float | None] = ContextVar("given_at", default=None)  # monotonic seconds


def note_start() -> None:
    """Takes the start of this process for the moment at which the command was given."""
    _given_at.set(time.monotonic() - _process_age_s())


def given_s_ago() -> float:
    """Returns the seconds since the command was given; 0 if its start was not noted."""
    given_at = _given_at.get()
    return max(0.0, time.monotonic() - given_at) if given_at is not None else 0.0


def _process_age_s() -> float:
    """Returns how many seconds this process has run; 0 if the system does not tell."""
    try:
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up_s = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, up_s - started_ticks / os.sysconf("SC_CLK_TCK"))
