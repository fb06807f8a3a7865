"""A circuit breaker: leaves an arm out after it failed several times in a row, and tries it again after a while.

    CLOSED ── TRIP ──> OPEN ── ELAPSE ──> HALF_OPEN ── PROBE ──> PROBING ── PASS ──> CLOSED
                        ^                     ^                     │ │
                        │                     └────── ABANDON ──────┘ │
                        └───────────────────── FAIL ──────────────────┘

1. CLOSED: everything passes. `consecutive` failures with no success between them, all within `window_ms`, trip it.
2. OPEN: nothing passes for `open_ms`.
3. HALF_OPEN: the next call passes, as the probe; none but it while it is under way.
4. The probe's outcome decides. If it says nothing of the arm (the client went away), the next call is the probe.
5. What passed before the breaker opened ends afterwards; such late outcomes change nothing.

Source: Envoy, outlier detection (consecutive failures, ejection time).
"""

from collections import deque
from collections.abc import Mapping
from enum import Enum

from gateway.routing.document.safeguard import Breaker


class BreakerState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    PROBING = "probing"


class BreakerEvent(Enum):
    TRIP = "trip"
    ELAPSE = "elapse"
    PROBE = "probe"
    PASS = "pass"
    FAIL = "fail"
    ABANDON = "abandon"


class Admittance(Enum):
    """Returns whether a call may go to the arm; a PROBE must report its outcome as one."""

    PASS = "pass"
    PROBE = "probe"
    REFUSE = "refuse"


MOVES: Mapping[tuple[BreakerState, BreakerEvent], BreakerState] = {
    (BreakerState.CLOSED, BreakerEvent.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.ELAPSE): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.PROBE): BreakerState.PROBING,
    (BreakerState.PROBING, BreakerEvent.PASS): BreakerState.CLOSED,
    (BreakerState.PROBING, BreakerEvent.FAIL): BreakerState.OPEN,
    (BreakerState.PROBING, BreakerEvent.ABANDON): BreakerState.HALF_OPEN,
}


class IllegalBreakerMove(RuntimeError):
    """A breaker was asked to make a move that its state does not have: a fault of the caller."""


class CircuitBreaker:
    """The breaker of one arm in one worker. It has no clock: each call says what time it is.

    The settings come with each call, because a change of the route may change them while the state stays.

    Units:  `now_ns` on one monotonic clock.
    """

    __slots__ = ("_failures", "_opened_ns", "_state")

    def __init__(self) -> None:
        self._state = BreakerState.CLOSED
        self._failures: deque[int] = deque()  # when, newest last; at most as many as trip the breaker
        self._opened_ns = 0

    def admit(self, settings: Breaker, now_ns: int) -> Admittance:
        """Returns whether the arm may have a call now. A PROBE has to end with `succeeded`, `failed` or `abandoned`."""
        if self._state is BreakerState.CLOSED:
            return Admittance.PASS
        if self.state(settings, now_ns) is not BreakerState.HALF_OPEN:
            return Admittance.REFUSE
        if self._state is BreakerState.OPEN:
            self._move(BreakerEvent.ELAPSE)
        self._move(BreakerEvent.PROBE)
        return Admittance.PROBE

    def succeeded(self, *, probe: bool) -> bool:
        """Counts the success of a call that passed; returns whether it closed the breaker."""
        if not probe:
            if self._failures and self._state is BreakerState.CLOSED:
                self._failures.clear()
            return False
        self._move(BreakerEvent.PASS)
        self._failures.clear()
        return True

    def failed(self, settings: Breaker, now_ns: int, *, probe: bool) -> bool:
        """Counts a failure by the arm's fault; returns whether it opened the breaker."""
        if probe:
            self._move(BreakerEvent.FAIL)
            self._opened_ns = now_ns
            return True
        if self._state is not BreakerState.CLOSED:
            return False
        failures = self._failures
        failures.append(now_ns)
        while len(failures) > settings.consecutive:
            failures.popleft()
        if len(failures) < settings.consecutive or now_ns - failures[0] > settings.window_ms * 1_000_000:
            return False
        self._move(BreakerEvent.TRIP)
        self._opened_ns = now_ns
        failures.clear()
        return True

    def abandoned(self, *, probe: bool) -> None:
        """Notes that a call that passed ended without saying anything of the arm."""
        if probe:
            self._move(BreakerEvent.ABANDON)

    def state(self, settings: Breaker, now_ns: int) -> BreakerState:
        """Returns the state at that time; an open breaker whose time is over is half open."""
        if self._state is BreakerState.OPEN and now_ns - self._opened_ns >= settings.open_ms * 1_000_000:
            return BreakerState.HALF_OPEN
        return self._state

    def _move(self, event: BreakerEvent) -> None:
        target = MOVES.get((self._state, event))
        if target is None:
            raise IllegalBreakerMove(f"circuit breaker: {event.value} while {self._state.value}")
        self._state = target
