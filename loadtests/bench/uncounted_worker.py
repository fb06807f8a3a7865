"""A worker of the gateway that counts no call and no run; see `uncounted`."""

from gateway.errors import Code
from gateway.runtime import worker
from gateway.telemetry.counters import Counters, Series


class SilentSeries(Series):
    """Counts that stay zero."""

    __slots__ = ()

    def observe(self, code: Code, queue_ns: int, infer_ns: int, total_ns: int) -> None:
        pass

    def batch(self, rows: int, infer_ns: int, input_ns: int = 0, output_ns: int = 0, cpu_ns: int = 0) -> None:
        pass


class SilentCounters(Counters):
    """Counters that hand out silent series."""

    def __init__(self) -> None:
        super().__init__()
        self._silent = SilentSeries()

    def series(self, model: str, version: str, arm: str) -> Series:
        return self._silent


if __name__ == "__main__":
    worker.Counters = SilentCounters  # type: ignore[attr-defined]
    worker.main()
