"""The record of an answered call that mirrors still run: it is appended once, when they have been compared."""

from collections.abc import Callable

from gateway.records.worker.sampling import Kept


class Deferral:
    """Holds a record back while the engine offers the call to mirrors, and while each mirror that took it runs.

    Order: `append` is called when the last of them lets go, with why the record is kept: 0 unless an answer differed.
    """

    __slots__ = ("_append", "_differs", "_holders")

    def __init__(self, append: Callable[[int], None]) -> None:
        self._append = append
        self._holders = 1
        self._differs = False

    def hold(self) -> None:
        self._holders += 1

    def release(self, *, differs: bool = False) -> None:
        self._differs |= differs
        self._holders -= 1
        if not self._holders:
            self._append(Kept.DISAGREEMENT if self._differs else 0)
