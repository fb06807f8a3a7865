"""What was found about one thing that a gateway needs of its host."""

from dataclasses import dataclass
from enum import StrEnum


class HostState(StrEnum):
    """`UNKNOWN` is what could not be looked at: it is never OK."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HostFinding:
    """Holds a verdict, what was seen, and what to do about it; `remedy` is "" where nothing has to be done."""

    verdict: HostState
    seen: str
    remedy: str = ""


def ok(seen: str) -> HostFinding:
    return HostFinding(HostState.OK, seen)


def warn(seen: str, remedy: str) -> HostFinding:
    return HostFinding(HostState.WARN, seen, remedy)


def fail(seen: str, remedy: str) -> HostFinding:
    return HostFinding(HostState.FAIL, seen, remedy)


def unknown(seen: str, remedy: str) -> HostFinding:
    return HostFinding(HostState.UNKNOWN, seen, remedy)
