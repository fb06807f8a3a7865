"""The first step of a canary that needs no traffic: logged requests run through its version. What the document says."""

from dataclasses import dataclass
from typing import Final

from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.field import Field
from gateway.routing.document.quantity import duration_ms, duration_text, percent, percent_text

OFFLINE_FIELDS: Final = ("window", "rows", "failAbove")
MOST_OFFLINE_ROWS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class OfflineCheck:
    """Which logged rows are replayed, and how many of them may change.

    Units: `window_ms` until now; `rows` at most; `fail_above` in buckets of all traffic.
    """

    window_ms: int = 86_400_000
    rows: int = 10_000
    fail_above: int = BUCKETS // 100

    def to_value(self) -> dict[str, object]:
        return {
            "window": duration_text(self.window_ms),
            "rows": self.rows,
            "failAbove": percent_text(self.fail_above),
        }


def parse_offline(given: Field) -> OfflineCheck:
    """Returns what is replayed. Raises: InvalidArgument naming the field."""
    section = given.section(*OFFLINE_FIELDS)
    usual = OfflineCheck()
    window, rows, share = (section.field(name) for name in OFFLINE_FIELDS)
    fail_above = percent(share) if share is not None else usual.fail_above
    if share is not None and fail_above == BUCKETS:
        raise share.fail("100 % of the rows may change: nothing would be checked")
    return OfflineCheck(
        duration_ms(window, least_ms=1_000) if window is not None else usual.window_ms,
        rows.whole(1, MOST_OFFLINE_ROWS) if rows is not None else usual.rows,
        fail_above,
    )
