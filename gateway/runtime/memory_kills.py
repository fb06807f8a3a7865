"""How many processes of this control group the kernel has killed for want of memory, and whether a death was one.

The kernel counts a kill before it sends the signal, in the group of the process that it kills: a kill in another
container is none here. Without a group that counts, the whole host's kills are looked at.

Source: Linux mm/oom_kill.c (__oom_kill_process); Documentation/admin-guide/cgroup-v2.rst ("memory.events.local"),
cgroup-v1/memory.rst ("memory.oom_control"), proc(5) (vmstat).
"""

from pathlib import Path
from typing import Final, NamedTuple

_WINDOW_S: Final = 5.0  # from the count to the end of the process: the kernel takes a large one's memory first
_LAPSE_S: Final = 60.0  # after this nobody who was killed is still dying
_LOOK_S: Final = 1.0


class KillCount(NamedTuple):
    """Holds the number of kills, and the file that counts them."""

    source: str
    kills: int


class MemoryKills:
    """Tells deaths for want of memory from other kills. It has no clock: each call says what time it is.

    A kill explains one death, and only one soon after it: where two gateways share a group, or a process of another
    kind was killed in it, a worker that somebody kills an hour later is no victim of that. A death within a minute may
    be one that took long: nothing explains it, but the kill may have been that of a worker, so it does not lapse.
    """

    def __init__(self, count: KillCount) -> None:
        self._count = count
        self._looked_at = 0.0
        self._lapsed = 0
        self._unexplained_s: list[float] = []  # when each kill was seen that no death has been explained by

    def is_due(self, now: float) -> bool:
        """Returns whether it is time to count again, so that it is known when a kill was."""
        return now - self._looked_at >= _LOOK_S

    def counted(self, count: KillCount, now: float) -> None:
        """Notes what has been counted by now. Where another file counts, its past is not news."""
        if count.source == self._count.source:
            self._unexplained_s += [now] * (count.kills - self._count.kills)
        young = [at_s for at_s in self._unexplained_s if now - at_s <= _LAPSE_S]
        self._lapsed += len(self._unexplained_s) - len(young)
        self._unexplained_s = young
        self._count, self._looked_at = count, now

    def take_lapsed(self) -> int:
        """Returns how many kills no death of a worker was explained by, since this was asked last."""
        lapsed, self._lapsed = self._lapsed, 0
        return lapsed

    def explains_death(self) -> bool:
        """Returns whether a death that was just seen is explained by a kill. Order: after `counted`."""
        for place, at_s in enumerate(self._unexplained_s):
            if self._looked_at - at_s <= _WINDOW_S:
                del self._unexplained_s[place]
                return True
        del self._unexplained_s[:1]
        return False


def count_kills(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> KillCount:
    """Returns how many processes of this process's control group have been killed for want of memory.

    Of version 2, the nearest group above it with a memory controller counts. Without any it is the host's number, and 0
    where the system does not tell.
    """
    for path in [*_of_groups(root, proc), proc / "vmstat"]:
        for line in _text(path).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdecimal():
                return KillCount(str(path), int(value))
    return KillCount("", 0)


def _of_groups(root: Path, proc: Path) -> list[Path]:
    paths = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        if not controllers:
            for depth in range(len(parts), -1, -1):
                group = root.joinpath(*parts[:depth])
                paths += [group / "memory.events.local", group / "memory.events"]
        elif "memory" in controllers.split(","):
            # A container may see its group as the root, and its path as the host has it.
            mount = root / "memory"
            paths += [mount.joinpath(*parts, "memory.oom_control"), mount / "memory.oom_control"]
    return paths


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
