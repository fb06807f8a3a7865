"""The cancel handle of a run in flight."""

from gateway.serving.session import Termination


class Batch:
    """The run that several calls wait for; it is stopped when the last of them is abandoned."""

    __slots__ = ("live", "termination")

    def __init__(self, calls: int) -> None:
        self.live = calls
        self.termination = Termination()

    def abandon(self) -> None:
        """Counts one call less that waits for the outcome."""
        self.live -= 1
        if not self.live:
            self.termination.stop()
