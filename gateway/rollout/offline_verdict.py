"""What a replay of logged requests says of a canary before it has any traffic."""

from typing import Literal

import msgspec


class OfflineVerdict(msgspec.Struct, frozen=True):
    """The verdict with its numbers. `share` is of all traffic, with a 95 % interval, `limit` what may change of it;
    `missing` rows were chosen and could not be replayed. `host` is where the log was read."""

    verdict: Literal["pass", "hold", "fail", "nodata"]
    reason: str
    rows: int = 0
    changed: int = 0
    share: float = 0.0
    low: float = 0.0
    high: float = 1.0
    limit: float = 0.0
    missing: int = 0
    host: str = ""
