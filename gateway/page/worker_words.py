"""What a worker of this host says of its start and of its models, in words, for the page and for `gateway status`."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.telemetry.keys import Gauge

_MIB: Final = 1 << 20


def worker_words(feed: Mapping[str, Any]) -> str:
    """Returns what its start took, and how many versions it has in memory where versions are loaded on demand.

    `feed` is that of `HostView.feed`. "" where the worker has said nothing of either.
    """
    parts = []
    start: Mapping[str, float] = feed.get(Gauge.START) or {}
    if start:
        served = f"served after {start['serving']:.1f} s" if "serving" in start else "does not serve yet"
        loaded = f"all versions there after {start['loaded']:.1f} s" if "loaded" in start else "versions still to come"
        parts.append(f"{served}, {loaded}")
    residence: Mapping[str, int] = feed.get(Gauge.RESIDENCE) or {}
    if residence:
        limit_bytes = residence["limit_bytes"]
        of_limit = f" of {limit_bytes / _MIB:.0f}" if limit_bytes else ""
        parts.append(
            f"{residence['warm']} versions in memory ({residence['bytes'] / _MIB:.0f}{of_limit} MiB), "
            f"{residence['cold']} on demand"
        )
    return "; ".join(parts)
