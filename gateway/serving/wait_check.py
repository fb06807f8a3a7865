"""Whether a call would wait in vain: asked when the call comes, and before, when only its size is known.

Under overload that is how most calls end. What they cost is taken from those that are answered, so nothing is raised
here, and a text is composed once for all refusals of about the same figures.
"""

from collections.abc import Callable
from functools import partial
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
_EXACT_BITS: Final = 6  # of a time in a text: it is told to within a 32nd, or a millisecond
_LEAST_SHIFT: Final = 20
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
        key = (version.model, version.name, rounded(wait_ns), rounded(left_ns))
        text = self._texts.get(key)
        if text is None:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            text = self._texts[key] = (
                f"model {version.model!r} version {version.name!r} has a queue of {wait_ns // 1_000_000} ms, too long "
                f"for a request whose deadline is in {left_ns // 1_000_000} ms; retry in a moment, or with a longer "
                "deadline"
            )
        return text


def rounded(time_ns: int) -> int:
    """Returns the time rounded down, by less than a 32nd of it or than 1.05 ms."""
    shift = max(_LEAST_SHIFT, time_ns.bit_length() - _EXACT_BITS)
    return time_ns >> shift << shift


def share_of(size_bytes: int) -> float:
    """Returns which share of its time a call of that size may wait."""
    return PATIENCE if size_bytes < ANNOUNCED_BYTES else LAST_PATIENCE
