"""When a dead child is started again, and when a silent one counts as hung: pure arithmetic."""

from dataclasses import dataclass
from typing import Final

from gateway.backoff import Backoff

_RESTARTS: Final = Backoff(first_s=0.25, longest_s=15.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """Units: seconds on the monotonic clock."""

    silence_s: float = 2.0  # without a beat; four beats are missed by then
    forgives_waits: bool = False  # a child that others leave no CPU is not silent for that: it is to be behind them
    suspect_s: float = 1.0  # without a beat: a successor gets ready, in case that the silence lasts
    standby_pause_s: float = 10.0  # after a successor that was not needed: the machine may be busy, not the worker hung
    start_s: float = 60.0  # until the first beat: imports, before the loop runs
    opening_s: float = 10.0  # without a beat until it is ready: nobody waits for it, and a busy machine gives it little
    healthy_s: float = 10.0  # a child that served this long was well: its next death counts as the first
    backoff: Backoff = _RESTARTS
    check_s: float = 0.1
    memory_look_s: float = 1.0
    recycle_s: float = 60.0  # a worker serves at least so long before it is replaced for its memory

    def delay_s(self, quick_deaths: int) -> float:
        """Returns the wait before the next start, after so many deaths in a row that came quickly.

        The first costs nothing: most crashes are one bad request or the OOM killer, and N - 1 workers carry the load.
        """
        return self.backoff.delay_s(quick_deaths - 1)


def overweight(resident_bytes: int, served_s: float, limit_bytes: int, timing: Timing) -> bool:
    """Returns whether a process is to be replaced for the memory that it holds; a limit of 0 is none.

    One that begins over the limit is replaced once in a while, not at once: the successor would begin so, too.
    """
    return 0 < limit_bytes < resident_bytes and served_s >= timing.recycle_s


@dataclass(slots=True)
class Heartbeat:
    """When a child was last heard of, on a clock that stands still while the supervisor itself does not run."""

    heard_at: float
    beaten: bool = False
    ready: bool = False

    def heard(self, now: float) -> None:
        self.heard_at = now
        self.beaten = True

    def excuse(self, late_s: float) -> None:
        """Leaves out the time for which the supervisor itself could not listen."""
        self.heard_at += late_s

    def silent(self, now: float, timing: Timing) -> bool:
        return now - self.heard_at > timing.suspect_s

    def suspect(self, now: float, timing: Timing) -> bool:
        return self.beaten and self.silent(now, timing)

    def hung(self, now: float, timing: Timing) -> bool:
        limit_s = timing.silence_s if self.ready else max(timing.opening_s, timing.silence_s)
        return now - self.heard_at > (limit_s if self.beaten else timing.start_s)
