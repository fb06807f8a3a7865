"""The share of a session of processes, as the kernel tells it."""

from pathlib import Path


def session_niceness(pid: int) -> int | None:
    """Returns the niceness of the session that a process is in; None where the kernel gives sessions no share."""
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().rpartition(" ")[2])
    except (OSError, ValueError):
        return None
