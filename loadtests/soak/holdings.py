"""What the processes of a gateway hold, looked at from outside while it runs."""

import json
import os
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

QUANTITIES: Final = {"rss_mib": "memory, MiB", "files": "open files", "threads": "threads", "tasks": "tasks"}
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TASKS: Final = 'gateway_worker_tasks{worker="'


@dataclass(slots=True)
class Life:
    """One process from its first sample to its last; `requests` are all that were made by then, whoever answered."""

    role: str
    slot: int
    pid: int
    requests: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in QUANTITIES})

    @property
    def name(self) -> str:
        return f"{self.role}-{self.slot} ({self.pid})"


class Holdings:
    """The lives of a gateway's processes, sampled by `look`."""

    def __init__(self, data_dir: Path, metrics_url: str, requests: Callable[[], int]) -> None:
        self.lives: dict[int, Life] = {}
        self._state = data_dir / "run" / "state.json"
        self._metrics_url = metrics_url
        self._requests = requests

    def children(self, role: str) -> list[dict[str, object]]:
        return [child for child in self._children() if child["role"] == role]

    def look(self) -> None:
        """Takes one sample of every process."""
        tasks = self._tasks()
        made = self._requests()
        for child in [*self._children(), {"role": "supervisor", "slot": 0, "pid": self._supervisor()}]:
            pid, role, slot = int(str(child["pid"])), str(child["role"]), int(str(child["slot"]))
            if not pid or (values := _held(pid)) is None:
                continue
            life = self.lives.setdefault(pid, Life(role, slot, pid))
            life.requests.append(made)
            values["tasks"] = tasks.get(slot, 0.0) if role == "worker" else 0.0
            for name, value in values.items():
                life.values[name].append(value)

    def watch(self, every_s: float, over: threading.Event) -> None:
        """Looks until `over` is set."""
        while not over.wait(every_s):
            self.look()

    def _state_now(self) -> dict[str, object]:
        try:
            state: dict[str, object] = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return {}
        return state

    def _children(self) -> list[dict[str, object]]:
        children = self._state_now().get("children", [])
        return children if isinstance(children, list) else []

    def _supervisor(self) -> int:
        return int(str(self._state_now().get("pid", 0)))

    @property
    def phase(self) -> str:
        return str(self._state_now().get("phase", ""))

    def _tasks(self) -> dict[int, float]:
        try:
            with urllib.request.urlopen(self._metrics_url, timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}  # the control process is on its way up again
        told = [line.removeprefix(_TASKS).split('"} ') for line in lines if line.startswith(_TASKS)]
        return {int(slot): float(value) for slot, value in told}


def _held(pid: int) -> dict[str, float] | None:
    """Returns what a process holds; None if it has ended."""
    process = Path("/proc", str(pid))
    try:
        rss_mib = int((process / "statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
        files = len(os.listdir(process / "fd"))
        threads = len(os.listdir(process / "task"))
    except (OSError, IndexError):
        return None
    return {"rss_mib": rss_mib, "files": float(files), "threads": float(threads)}
