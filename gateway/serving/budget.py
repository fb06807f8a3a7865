"""The budget of fallbacks: a share of a route's requests of the last seconds may leave their arm."""

from gateway.routing.document.bucket import BUCKETS

SLOT_NS = 1_000_000_000
SLOTS = 10


class Budget:
    """Counts the requests of one route, and those among them that fell back, over a sliding window of 10 s.

    One request in the window may always fall back, or a route with little traffic never could. One that fell back
    counts where it began, so that both counts leave the window together: at 100 % no request is refused.

    Units:  `now_ns` and `begun_ns` on one monotonic clock; shares in buckets.
    """

    __slots__ = ("_fallen", "_fallen_slots", "_requests", "_requests_slots", "_slot")

    def __init__(self) -> None:
        self._slot = 0  # of the newest count, numbered from the start of the clock
        self._requests = self._fallen = 0
        self._requests_slots = [0] * SLOTS
        self._fallen_slots = [0] * SLOTS

    def request(self, now_ns: int) -> None:
        """Counts one request of the route."""
        self._advance(now_ns)
        self._requests += 1
        self._requests_slots[self._slot % SLOTS] += 1

    def allows(self, share: int, begun_ns: int, now_ns: int) -> bool:
        """Returns whether one more of the requests, begun then, may fall back."""
        self._advance(now_ns)
        requests = self._requests if self._holds(begun_ns) else self._requests + 1
        return share > 0 and (not self._fallen or (self._fallen + 1) * BUCKETS <= requests * share)

    def charge(self, begun_ns: int, now_ns: int) -> None:
        """Counts one request, begun then, that fell back."""
        self._advance(now_ns)
        if self._holds(begun_ns):
            self._fallen += 1
            self._fallen_slots[begun_ns // SLOT_NS % SLOTS] += 1

    def _holds(self, begun_ns: int) -> bool:
        """Returns whether a request that began then is in the window."""
        return begun_ns // SLOT_NS > self._slot - SLOTS

    def _advance(self, now_ns: int) -> None:
        """Drops the counts that are older than the window."""
        slot = now_ns // SLOT_NS
        passed = slot - self._slot
        if passed <= 0:
            return
        for index in range(self._slot + 1, self._slot + 1 + min(passed, SLOTS)):
            place = index % SLOTS
            self._requests -= self._requests_slots[place]
            self._fallen -= self._fallen_slots[place]
            self._requests_slots[place] = self._fallen_slots[place] = 0
        self._slot = slot
