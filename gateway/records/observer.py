"""Who looks at the rows that the compactor writes, in the same pass."""

from collections.abc import Sequence
from typing import Any, Protocol

from gateway.records.label import Label


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
