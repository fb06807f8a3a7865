"""What a worker of this host says of its start and of its models, in words, for the page and for `gateway status`."""

from collections.abc import Mapping
from typing import Any

from gateway.byte_size import rounded_bytes
from gateway.telemetry.keys import Gauge


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
        of_limit = f" of {rounded_bytes(limit_bytes)}" if limit_bytes else ""
        parts.append(
            f"{residence['warm']} versions in memory ({rounded_bytes(residence['bytes'])}{of_limit}), "
            f"{residence['cold']} on demand"
        )
    return "; ".join(parts)
