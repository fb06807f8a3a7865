"""How many CPUs this process may use: the cgroup's quota and the affinity mask, not what the host has.

Source: Linux Documentation/admin-guide/cgroup-v2.rst ("cpu.max"), cgroup-v1/cpu (cfs_quota_us).
"""

import os
import sys
from math import ceil, sqrt
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")


def cpu_quota(*, cgroup_root: Path = _CGROUP, membership: Path = _SELF) -> float:
    """CPUs this process may use: the least of its affinity mask and of the quotas of every cgroup above it.

    Those of the host where there is neither (not Linux).
    """
    return min([float(allowed_cpus()), *_quotas(cgroup_root, membership)])


def allowed_cpus() -> int:
    """Returns how many CPUs the system lets this process run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_per_session(quota: float, workers: int) -> int:
    """Returns the threads of one run: the root of a worker's share of the quota, never less than one.

    The other root goes to runs at the same time: they use the cores better than one run on all of them (a convolution
    of 5 ms took 1.05 of the CPU of a bare server, on two threads 1.17), but a lone run is shorter on several.
    """
    return max(1, int(sqrt(quota / max(1, workers))))


def runs_at_once(quota: float, workers: int, intra_threads: int) -> int:
    """Returns how many long runs a worker has at a time, so that their threads fill its share of the quota."""
    return max(1, ceil(quota / max(1, workers) / intra_threads))


def _quotas(root: Path, membership: Path) -> list[float]:
    quotas = []
    for controllers, path in _memberships(membership):
        mount = root / controllers if controllers else root
        for folder in _upwards(mount, path):
            quota = _version_2(folder) if not controllers else _version_1(folder)
            if quota is not None:
                quotas.append(quota)
    return quotas


def _memberships(membership: Path) -> list[tuple[str, str]]:
    """(mount below the cgroup root, path of this process in it); the mount of version 2 is the root itself."""
    places = []
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            places.append(("", path))
        elif "cpu" in controllers.split(","):
            places += [(controllers, path), ("cpu", path)]
    return places


def _upwards(mount: Path, path: str) -> list[Path]:
    """Yields the cgroup's folder and those above it; a container's path may name one that only the host sees."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _version_2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return _ratio(fields[0], fields[1])


def _version_1(folder: Path) -> float | None:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    if not quota or not period or quota.startswith("-"):
        return None
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
