"""Tells what a sink does, and what can be in its way."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from gateway.records.lake.outbox import Item


class SinkError(Exception):
    """The sink did not take what it was given; later it may."""


class Sink(Protocol):
    """Delivers the files of an outbox, one at a time, to one place.

    `counts`: rows that are lost though they were sent: `refused` by the other side for good, `evicted` there since.
    """

    counts: Counter[str]

    def deliver(self, item: Item, path: Path, start: int) -> Iterator[int]:
        """Delivers the rows of the file from number `start` on; yields how many of its rows are delivered by now.

        Order: a row that was counted is safe on the other side.
        Raises: SinkError, OSError (of the file), Unreadable (it holds no rows).
        """

    def close(self) -> None:
        """Lets go of connections; what was not counted as delivered is not."""
