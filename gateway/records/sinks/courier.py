"""Takes what waits in an outbox to its sink, in order, at least once; what the sink does not take in time is given up.

Its thread is the only one that touches the outbox beside the compactor, and it has no more than a few hundred rows in
memory at a time.
"""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.backoff import Backoff
from gateway.records.lake.keeping import Keeping
from gateway.records.lake.outbox import Item, Outbox
from gateway.records.lake.stored_rows import Unreadable
from gateway.records.sinks.sink import Sink, SinkError

_IDLE_S = 0.5
_BACKOFF = Backoff(first_s=0.1, longest_s=30.0)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SinkReport:
    """Tells how a sink stands. `rows` by outcome: delivered, expired, refused, evicted."""

    lag_rows: int
    errors: int
    rows: dict[str, int]
    error: str


class Courier:
    """One sink and its outbox. `make` connects; it is tried again after it failed."""

    def __init__(
        self, lake: Path, name: str, keeping: Keeping, make: Callable[[], Sink], *, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self._outbox = Outbox(lake, name)
        self._outbox.sweep(now_s=clock())
        self._keeping = keeping
        self._make = make
        self._clock = clock
        self._sink: Sink | None = None
        self._counts: Counter[str] = Counter(delivered=0, expired=0)
        self._errors = 0
        self._error = ""
        self._failures = 0  # in a row
        self._lag_rows = 0

    def step(self, stopping: Callable[[], bool] = lambda: False) -> float:
        """Delivers what waits, until nothing does, the sink fails or somebody stops it; seconds until the next step."""
        try:
            while (items := self._waiting()) and not stopping():
                self._deliver(items[0], stopping)
            self._error, self._failures = "", 0
        except (SinkError, OSError) as error:
            self._fail(str(error))
            with suppress(OSError):  # what is too old goes though nothing can be delivered
                self._waiting()
        return _BACKOFF.delay_s(self._failures) or _IDLE_S

    def report(self) -> SinkReport:
        """Returns how the sink stood after the last step."""
        of_sink: Counter[str] = self._sink.counts if self._sink is not None else Counter()
        refused = of_sink["refused"]
        rows = {
            "delivered": self._counts["delivered"] - refused,
            "expired": self._counts["expired"],
            "refused": refused,
            "evicted": of_sink["evicted"],
        }
        return SinkReport(self._lag_rows, self._errors, rows, self._error)

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()

    def _deliver(self, item: Item, stopping: Callable[[], bool]) -> None:
        if self._sink is None:
            self._sink = self._make()
        key, rows = self._outbox.cursor()
        done = rows if key == item.key else 0
        try:
            for rows in self._sink.deliver(item, self._outbox.rows_of(item), done):
                self._counts["delivered"] += rows - done
                self._lag_rows -= rows - done
                done = rows
                self._outbox.advance(item, done)
                if stopping() or self._is_old(item):
                    return
        except (Unreadable, FileNotFoundError) as error:
            lost = item.rows - done
            _log.error("sink %s: %s cannot be read, %d rows are lost: %s", self.name, item.path, lost, error)
            self._counts["expired"] += lost
        self._outbox.remove(item)

    def _waiting(self) -> list[Item]:
        """Returns what waits and is still kept; the lag is that of the moment."""
        key, done = self._outbox.cursor()
        for item in self._outbox.expire(self._keeping, now_s=self._clock()):
            self._counts["expired"] += item.rows - (done if key == item.key else 0)
        items = self._outbox.items()
        self._lag_rows = sum(item.rows - (done if key == item.key else 0) for item in items)
        return items

    def _is_old(self, item: Item) -> bool:
        return self._clock() - item.at_s > self._keeping.max_age_s

    def _fail(self, why: str) -> None:
        if why != self._error:
            _log.warning("sink %s: %s", self.name, why)
        self._errors += 1
        self._error = why
        self._failures += 1
