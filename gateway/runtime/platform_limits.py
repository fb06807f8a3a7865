"""What a gateway lacks on a host that is not Linux, each with what holds instead (docs/platforms.md)."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PlatformLimit:
    """A feature of Linux, and what is so without it."""

    feature: str
    instead: str


NOT_LINUX: Final = (
    PlatformLimit(
        "connections spread over workers",
        "workers share one listening socket, and whoever is free first accepts: one may get most of them",
    ),
    PlatformLimit("`--transport grpcio`", "refused at the start; it cannot be given a socket"),
    PlatformLimit(
        "memory limit of trials and preparations",
        "their time and their files are limited, their memory is only measured: a model that takes too much takes it",
    ),
    PlatformLimit("trials that can start no process", "a model on trial can do what the gateway's user can"),
    PlatformLimit(
        "trials forked from one process",
        "each is a program of its own, which imports the runtime: a second or two more",
    ),
    PlatformLimit(
        "a dead worker known before its connections end",
        "a request that killed a worker is known to its siblings once the supervisor has looked at the death",
    ),
    PlatformLimit(
        "children that the kernel ends with their parent",
        "they end when they read the end of their standard input: one that hangs outlives a supervisor that was killed",
    ),
    PlatformLimit("a child that is stopped is told from one that hangs", "it is killed as one that hangs"),
    PlatformLimit("`--worker-memory-bytes`", "no worker is replaced for its memory"),
    PlatformLimit("deaths for want of memory", "told as those by SIGKILL; no model is suspected of them"),
    PlatformLimit("`gateway_process_*` of CPU, memory, threads and files", "absent"),
    PlatformLimit("quotas of CPU and memory of a control group", "all CPUs of the host count, its memory is not known"),
    PlatformLimit(
        "buffers of a load that are used again (glibc's malloc)",
        "each is mapped and unmapped anew: loads of prepared models take twice as long",
    ),
    PlatformLimit("preparations at idle priority", "at a low one, and at the disk like everybody"),
    PlatformLimit(
        "new handshakes turned away before a stop",
        "whoever is in the queue of the shared socket waits for another worker, or for the end of the gateway",
    ),
    PlatformLimit(
        "fdatasync",
        "fsync, which on macOS does not empty the disk's own cache: after a power cut the last records may be lost",
    ),
)


def platform_limits(platform: str) -> tuple[PlatformLimit, ...]:
    """Returns what is not there on a platform, as `sys.platform` names it."""
    return () if platform == "linux" else NOT_LINUX
