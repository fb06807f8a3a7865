"""Whether a call would wait in vain: asked when the call comes, and before, when only its size is known.

Under overload that is how most calls end. What they cost is taken from those that are answered, so nothing is raised
here, and a text is composed once for all refusals of about the same figures. The figures have few steps: clients have
any deadlines, and each text that is new costs more than one that was told before.
"""

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from time import monotonic_ns
from typing import Final

from gateway.backoff import retry_after_ms
from gateway.errors import Overloaded
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue

# What a queue may take of the time that a call has left; the rest is for its run, for the way back, and for what cannot
# be foreseen. A long message was measured when it began, and has cost its transfer since.
PATIENCE: Final = 0.5
LAST_PATIENCE: Final = 0.875
ANNOUNCED_BYTES: Final = 1 << 16
_MOST_TEXTS: Final = 256
_STEPS: Final = (10, 15, 20, 30, 50, 70)
# The times that texts name, six in a decade: 1 ms, 2, 3, 5, 7, 10, 15, 20 and so on, to years. One between two of them
# is told as the nearer.
_TOLD_MS: Final[tuple[int, ...]] = (0, 1, 2, 3, 5, 7, *(step * 10**power for power in range(10) for step in _STEPS))
_MIDDLES_NS: Final = tuple((low + high) * 500_000 for low, high in pairwise(_TOLD_MS))
# Without the class's own constructor, which is interpreted.
_overloaded: Final = partial(Overloaded.__new__, Overloaded)


class WaitCheck:
    """Refuses calls that would wait for too long. `draw` spreads what they are told of when to come again."""

    __slots__ = ("_draw", "_texts")

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._texts: dict[tuple[str, str, int, int], str] = {}

    def refusal(
        self,
        queue: VersionQueue | None,
        version: Version,
        deadline_ns: int,
        level: int,
        share: float,
        coming: int = 0,
    ) -> Overloaded | None:
        """Returns why a call is refused that would spend more than this share of the time that it has left in the
        queue: it would be answered too late, or take the place of one that is not. None if it would not.

        `coming` calls will be in the queue before it.
        """
        if queue is None or not deadline_ns:
            return None
        now_ns = monotonic_ns()
        left_ns = deadline_ns - now_ns
        allowed_ns = int(left_ns * share)
        wait_ns = queue.wait_ns(level, now_ns)
        if coming and wait_ns:
            wait_ns += coming * (version.backlog // max(1, queue.queued))
        if wait_ns <= allowed_ns:
            return None
        refusal = _overloaded(self._text(version, wait_ns, left_ns))
        refusal.retry_after_ms = max(retry_after_ms(self._draw()), (wait_ns - allowed_ns) // 1_000_000)
        return refusal

    def _text(self, version: Version, wait_ns: int, left_ns: int) -> str:
        wait_ms, left_ms = told_ms(wait_ns), told_ms(left_ns)
        key = (version.model, version.name, wait_ms, left_ms)
        text = self._texts.get(key)
        if text is None:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            # An error, for the reference lists the texts of those that are made; it is made once for each text.
            first = Overloaded(
                f"model {version.model!r} version {version.name!r} has a queue of about {wait_ms} ms, too long for "
                f"a request whose deadline is in about {left_ms} ms; retry in a moment, or with a longer deadline"
            )
            text = self._texts[key] = str(first)
        return text


def told_ms(time_ns: int) -> int:
    """Returns the time as texts name it: right to within a quarter or half a millisecond, 0 for one that is over."""
    return _TOLD_MS[bisect_right(_MIDDLES_NS, time_ns)]


def share_of(size_bytes: int) -> float:
    """Returns which share of its time a call of that size may wait."""
    return PATIENCE if size_bytes < ANNOUNCED_BYTES else LAST_PATIENCE
