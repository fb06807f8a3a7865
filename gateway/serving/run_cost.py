"""The measured cost of a version's runs, by which the next one happens here or there, over more rows or fewer.

A short run happens on the event loop itself: handing it to a thread would cost more than the run. A long one happens on
a thread, so that the loop never stalls.
"""

from typing import Final

from gateway.serving.inline_watch import LIMIT_NS

# A thread hop costs about 100 us of two threads' time; up to this a run on the loop delays others less than it saves.
INLINE_NS: Final = 1_000_000
# Merging beyond this only adds latency: the fixed cost of a run is long paid.
MERGED_RUN_NS: Final = 20_000_000
# How long runs stay on threads after one had to be ended on the loop.
LONG_NS: Final = 60_000_000_000
# Of long runs, one in so many tries what the measures speak against, because they may have changed.
EXPLORED_RUNS: Final = 64
SMOOTHING: Final = 0.1


class RunCost:
    """The measured cost of one version's runs. Units: nanoseconds of CPU."""

    __slots__ = (
        "_alone_ns", "_batch_ns", "_long_runs", "_long_until_ns", "_max_rows", "_merged_ns", "on_loop", "row_ns",
    )  # fmt: skip

    def __init__(self, run_us: float, max_rows: int) -> None:
        """`run_us` is what a run of one row took when the version was loaded."""
        self._max_rows = max_rows
        self.row_ns = max(1.0, run_us * 1000)
        self._batch_ns = self.row_ns
        # What a row costs in a run of its own, and in a merged one: 0 until measured. A convolution is dearer merged,
        # because its data leave the cache; a layer whose weights are read once for all rows is cheaper.
        self._alone_ns = 0.0
        self._merged_ns = 0.0
        self._long_runs = 0
        self._long_until_ns = 0
        self.on_loop = run_us * 1000 < INLINE_NS

    def rows_of_next_run(self, queued: int, free: int) -> int:
        """Returns how many rows the next run may have; `free` threads share what is queued."""
        budget = INLINE_NS if self.on_loop else MERGED_RUN_NS
        limit = min(self._max_rows, max(1, int(budget / self.row_ns)))
        if self.on_loop:
            return limit
        if free > 1:
            limit = min(limit, max(1, -(-queued // free)))
        self._long_runs += 1
        alone = 0.0 < self._alone_ns < self._merged_ns
        exploring = self._long_runs % EXPLORED_RUNS == 0 or (self._merged_ns > 0.0 and not self._alone_ns)
        return 1 if alone != exploring else limit

    def learn(self, rows: int, run_ns: int, now_ns: int, *, merged: bool) -> None:
        """Takes in what a run of so many rows has cost."""
        if not self.on_loop:
            row_ns = run_ns / rows
            if merged:
                self._merged_ns += SMOOTHING * (row_ns - self._merged_ns) if self._merged_ns else row_ns
            else:
                self._alone_ns += SMOOTHING * (row_ns - self._alone_ns) if self._alone_ns else row_ns
        self._batch_ns += SMOOTHING * (run_ns - self._batch_ns)
        self.row_ns += SMOOTHING * (run_ns / rows - self.row_ns)
        # The gap between the two bounds keeps a version whose runs are near the bound from changing sides all the time.
        if self.on_loop:
            self.on_loop = self._batch_ns < 2 * INLINE_NS
        else:
            self.on_loop = self._batch_ns < INLINE_NS / 2 and now_ns >= self._long_until_ns

    def keep_off_loop(self, now_ns: int) -> None:
        """Has runs happen on threads for a minute at least: one of them held up the loop."""
        self.on_loop = False
        self._long_until_ns = now_ns + LONG_NS
        self._batch_ns = max(self._batch_ns, float(LIMIT_NS))
