"""How much memory this process may use: the least of what the host has and of the limits of every cgroup above it.

Source: Linux Documentation/admin-guide/cgroup-v2.rst ("memory.max"), cgroup-v1/memory.rst (limit_in_bytes), proc(5).
"""

from pathlib import Path


def memory_allowance(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> int:
    """Returns the bytes, 0 where the system does not tell."""
    limits = [bytes_ for bytes_ in (_of_host(proc), *_of_groups(root, proc)) if bytes_ > 0]
    return min(limits, default=0)


def _of_host(proc: Path) -> int:
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return _number(line.split()[1]) * 1024
    return 0


def _of_groups(root: Path, proc: Path) -> list[int]:
    limits = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mount, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        limits += [_number(_text(mount.joinpath(*parts[:depth], name))) for depth in range(len(parts) + 1)]
    return limits


def _number(text: str) -> int:
    """Returns the number, 0 for "max" and everything else that is none."""
    return int(text) if text.strip().isdecimal() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
