"""Which arm answered whom, and how often."""

from collections import Counter

from loadtests.verdict import Violation


class Arms:
    """The arm of each key, and the number of answers from each arm."""

    def __init__(self) -> None:
        self.by_key: dict[str, str] = {}
        self.drawn: Counter[str] = Counter()

    def meet(self, key: str, arm: str) -> None:
        """Raises: Violation if another arm answered this key before."""
        first = self.by_key.setdefault(key, arm)
        if arm != first:
            raise Violation(f"key {key!r} went to arm {arm!r}, before to {first!r}")

    def draw(self, arm: str) -> None:
        self.drawn[arm] += 1
