"""The use of one quota in this worker by those who share a bucket of it."""

from gateway.access.quota_rules import Quota
from gateway.access.token_bucket import cost_ns, left, taken, wait_ns

_SECOND_NS = 1_000_000_000


class QuotaCounts:
    """What became of the calls that one quota counted, under one label."""

    __slots__ = ("admitted", "bytes", "refused")

    def __init__(self) -> None:
        self.admitted = 0
        self.bytes = 0
        self.refused: dict[str, int] = {}  # by the limit that was reached


class QuotaUse:
    """The buckets of one quota, for the worker's share of its limits.

    Units: rates per second, `*_at_ns` on the monotonic clock.
    """

    __slots__ = (
        "_burst_ns",
        "_bytes_full_at_ns",
        "_bytes_per_second",
        "_full_at_ns",
        "_last_second",
        "_now_second",
        "_request_ns",
        "_second",
        "counts",
        "in_flight",
        "max_in_flight",
        "quota",
        "who",
    )

    def __init__(self, quota: Quota, who: str, counts: QuotaCounts, *, workers: int) -> None:
        self.who = who  # whose calls these are; "": everybody's that the quota is for
        self.counts = counts
        self.in_flight = 0
        self._full_at_ns = 0
        self._bytes_full_at_ns = 0
        self._second = 0
        self._now_second = 0  # calls admitted in it
        self._last_second = 0  # and in the one before it
        self.follow(quota, counts, workers=workers)

    def follow(self, quota: Quota, counts: QuotaCounts, *, workers: int) -> None:
        """Takes the limits from this quota; what is in use stays so.

        A worker's share of a bucket holds at least one request, and its share of concurrency is at least one.
        """
        self.quota = quota
        self.counts = counts
        rate = quota.requests_per_second / workers
        self._request_ns = cost_ns(1, rate) if rate else 0
        self._burst_ns = max(self._request_ns, cost_ns(1, rate) * int(quota.burst / workers)) if rate else 0
        self._bytes_per_second = quota.bytes_per_second / workers
        self.max_in_flight = max(1, quota.concurrency // workers) if quota.concurrency else 0

    def refusal(self, size_bytes: int, now_ns: int) -> tuple[str, int]:
        """Returns the limit that one more call would break, and after what time it would not; "" if none.

        The time is 0 where nobody can know it: the calls that run end when they end.
        """
        if self.max_in_flight and self.in_flight >= self.max_in_flight:
            return "concurrency", 0
        if self._request_ns:
            wait = wait_ns(self._full_at_ns, now_ns, self._request_ns, self._burst_ns)
            if wait:
                return "requests", wait
        wait = self.bytes_wait_ns(size_bytes, now_ns)
        return ("bytes", wait) if wait else ("", 0)

    def bytes_wait_ns(self, size_bytes: int, now_ns: int) -> int:
        """Returns after what time so many bytes are within the quota; 0: now.

        At the head, where the size is not known (0), the bytes that came before must not be owed for still.
        """
        if not self._bytes_per_second:
            return 0
        cost = cost_ns(max(1, size_bytes), self._bytes_per_second)
        return wait_ns(self._bytes_full_at_ns, now_ns, cost, _SECOND_NS)

    def take(self, now_ns: int) -> None:
        """Takes one call's share of requests and concurrency."""
        self.in_flight += 1
        if self._request_ns:
            self._full_at_ns = taken(self._full_at_ns, now_ns, self._request_ns)

    def give_back(self) -> None:
        """Undoes `take`."""
        self.in_flight -= 1
        self._full_at_ns -= self._request_ns

    def admitted(self, size_bytes: int, now_ns: int) -> None:
        """Counts a call that every quota has let in, with its bytes."""
        self.counts.admitted += 1
        self.owe(size_bytes, now_ns)
        second = now_ns // _SECOND_NS
        if second != self._second:
            self._last_second = self._now_second if second == self._second + 1 else 0
            self._now_second = 0
            self._second = second
        self._now_second += 1

    def owe(self, size_bytes: int, now_ns: int) -> None:
        """Counts bytes of a call that was let in."""
        self.counts.bytes += size_bytes
        if self._bytes_per_second:
            cost = cost_ns(size_bytes, self._bytes_per_second)
            self._bytes_full_at_ns = taken(self._bytes_full_at_ns, now_ns, cost)

    def is_idle(self, now_ns: int) -> bool:
        """Returns whether it is as good as a new one."""
        return not self.in_flight and self._full_at_ns <= now_ns and self._bytes_full_at_ns <= now_ns

    def rate(self, now_ns: int) -> int:
        """Returns how many calls were let in during the last whole second."""
        passed = now_ns // _SECOND_NS - self._second
        return self._last_second if passed == 0 else self._now_second if passed == 1 else 0

    def requests_left(self, now_ns: int) -> float:
        """Returns the share of the requests' bucket that is left; 1 where there is none."""
        return left(self._full_at_ns, now_ns, self._burst_ns) if self._burst_ns else 1.0

    def bytes_left(self, now_ns: int) -> float:
        """Returns the share of one second's bytes that is left; 1 where bytes have no limit."""
        return left(self._bytes_full_at_ns, now_ns, _SECOND_NS) if self._bytes_per_second else 1.0
