"""Tells who looks at the rows that the compactor writes, in the same pass."""

from collections.abc import Sequence
from typing import Any, Protocol

from gateway.records.worker.label import Label


class Observer(Protocol):
    """Sees every row and label of a segment when its files are published and before it counts as done.

    A segment that is done again after a kill is seen again. What an observer raises, it has to catch: nothing that it
    does may keep rows from the lake.
    """

    def saw_rows(self, model: str, version: str, rows: Any) -> None:
        """Rows of one version, as the Arrow table that went to the lake."""

    def saw_labels(self, labels: Sequence[Label]) -> None:
        """Labels in the order of their receipt by one worker."""

    def tend(self, now_s: float, *, last: bool) -> None:
        """Called after each step: the time to publish and to save. `last`: no other step will come."""


class Ledger(Protocol):
    """Counts every segment exactly once, whatever the compactor is killed at.

    Order: `prepare`, then the manifest names the segment, then `commit`. A segment that is done again is prepared
           again; after a kill the manifest says which of those that were prepared are done.
    What a ledger raises, it has to catch.
    """

    def prepare(self, segment: str, tables: Sequence[tuple[str, str, Any]]) -> None:
        """Model, version and rows of each file of a segment. Durable when it returns, and counted nowhere yet."""

    def commit(self, segment: str) -> None:
        """The manifest names the segment: what was prepared counts."""

    def tend(self, now_s: float, *, last: bool) -> None:
        """As for an observer."""
