"""Which versions may answer, and when: what is known of the flips, so that an answer can be judged."""

from bisect import bisect_right
from collections.abc import Iterable


class LegalVersions:
    """The set of legal versions over time.

    1. While a change is under way the old and the new version are legal: each worker follows at its own moment.
    2. From the return of the change on only the new one is: every live worker has acknowledged.
    3. An answer is legal if its version was at some moment between sending and receiving.

    Units: seconds of one monotonic clock, not going back from one `allow` to the next.
    """

    def __init__(self, versions: Iterable[str], since_s: float) -> None:
        self._times = [since_s]
        self._sets = [frozenset(versions)]

    @property
    def now(self) -> frozenset[str]:
        return self._sets[-1]

    def allow(self, versions: Iterable[str], at_s: float) -> None:
        """From `at_s` on these versions are legal, and no other."""
        if at_s < self._times[-1]:
            raise ValueError(f"at_s is {at_s}, the last change was at {self._times[-1]}")
        self._times.append(at_s)
        self._sets.append(frozenset(versions))

    def between(self, sent_s: float, received_s: float) -> frozenset[str]:
        """Every version that was legal at some moment from `sent_s` to `received_s`."""
        first = max(0, bisect_right(self._times, sent_s) - 1)
        last = bisect_right(self._times, received_s)
        return frozenset[str]().union(*self._sets[first:last])
