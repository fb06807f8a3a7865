"""The wait in a queue: the time that it takes to run what is in it, measured by what it did a moment ago.

Runs, other versions, other processes and the transport all share the CPUs, so the time of a run alone says too little:
what counts is how many calls leave the queue in a time in which it was never empty. A pause of the process, or of the
machine, is in one such time and not in the next: a single one says little.
"""

from typing import Final

_SMOOTHING: Final = 0.1
_VALID_NS: Final = 1_000_000_000  # a measure is forgotten after so long, and after so many of the calls that it is of
_VALID_CALLS: Final = 4
_MOST_TIMES: Final = 4  # longer than the measure so far, a time counts as this many times it


class QueueWait:
    """The time that each call of a queue adds to the wait of those behind it. Units: nanoseconds, monotonic clock."""

    __slots__ = ("_begun_ns", "_call_ns", "_calls", "_first_at_ns", "_first_ns", "_measured_ns", "run_ns")

    def __init__(self) -> None:
        self._call_ns = 0.0
        self._measured_ns = 0
        self._begun_ns = 0
        self._first_ns = 0.0  # of a measure that begins
        self._first_at_ns = 0
        self._calls = 0  # that left the queue last, if others stayed behind; else 0
        self.run_ns = 0.0  # from leaving the queue to the answer

    def took(self, calls: int, left: int, now_ns: int) -> None:
        """Notes that so many calls have just left the queue, and how many stay."""
        if self._calls:
            self._measure((now_ns - self._begun_ns) / self._calls, now_ns)
        self._calls = calls if left else 0
        self._begun_ns = now_ns

    def _measure(self, call_ns: float, now_ns: int) -> None:
        if _is_valid(self._call_ns, self._measured_ns, now_ns):
            self._call_ns += _SMOOTHING * (min(call_ns, _MOST_TIMES * self._call_ns) - self._call_ns)
            self._measured_ns = now_ns
        elif _is_valid(self._first_ns, self._first_at_ns, now_ns):
            self._call_ns = min(call_ns, self._first_ns)
            self._measured_ns = now_ns
            self._first_ns = 0.0
        else:
            self._first_ns = call_ns
            self._first_at_ns = now_ns

    def emptied(self) -> None:
        """Notes that the queue was empty: the time to the next run is not the queue's.

        Calls leave it unrun, too, where their clients go or their time is over; the idle time that followed would count
        as a wait, and refuse the first calls that come after it.
        """
        self._calls = 0

    def ran(self, run_ns: int) -> None:
        """Notes what passed from the moment at which a call left the queue to its answer."""
        self.run_ns += _SMOOTHING * (run_ns - self.run_ns) if self.run_ns else run_ns

    def of(self, queued: int, now_ns: int) -> int:
        """Returns how long one more call behind `queued` others waits; 0 where nobody knows."""
        return int(queued * self._call_ns) if queued and _is_valid(self._call_ns, self._measured_ns, now_ns) else 0


def _is_valid(call_ns: float, measured_ns: int, now_ns: int) -> bool:
    return call_ns > 0.0 and now_ns - measured_ns < max(_VALID_NS, _VALID_CALLS * call_ns)
