"""Backoff: how long to wait before the next attempt, as pure arithmetic."""

from dataclasses import dataclass
from typing import Final

# When refused callers may try again: spread, because clients add no jitter of their own to what they are told.
RETRY_AFTER_MS: Final = (50, 250)


def retry_after_ms(draw: float) -> int:
    """Returns after what time a refused caller may try again; `draw` is one of [0, 1)."""
    soonest_ms, latest_ms = RETRY_AFTER_MS
    return soonest_ms + int(draw * (latest_ms - soonest_ms))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double from the first to the longest. Units: seconds."""

    first_s: float
    longest_s: float

    def delay_s(self, failures: int, draw: float = 1.0) -> float:
        """Returns the delay after so many failures in a row; 0 after none.

        Half of it is multiplied by `draw`, a random number from 0 to 1, so that the clients of one server do not all
        return at once.
        """
        if failures < 1:
            return 0.0
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 60)) * (0.5 + draw / 2)
