"""The users that move when one route takes the place of another: buckets by arm and version before and after."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from gateway.routing.decision.route import Route, renames
from gateway.routing.document.bucket import BUCKETS


@dataclass(frozen=True, slots=True, order=True)
class Flow:
    """`size` buckets (or keys) that `from_arm` answered and `to_arm` answers.

    An arm is "" where the model has no route then; its version is the newest ready one, "" if there is none. `renamed`:
    both are one arm under two names, so nobody moves.
    """

    from_arm: str
    from_version: str
    to_arm: str
    to_version: str
    size: int
    renamed: bool = False

    @property
    def moves(self) -> bool:
        """Returns whether these keys answer from another arm than before."""
        if not (self.from_arm and self.to_arm):  # without a route there are no arms, but somebody answers
            return self.changes_version
        return self.from_arm != self.to_arm and not self.renamed

    @property
    def changes_version(self) -> bool:
        return self.from_version != self.to_version


def flows(before: Route | None, after: Route | None, newest: str = "") -> tuple[Flow, ...]:
    """All 1 000 000 buckets, the largest flow first. `newest` is the version that answers where there is no route."""
    old, new = BucketArms(before), BucketArms(after)
    sizes: dict[tuple[str, str], int] = {}
    for start, end in pairwise(sorted({0, BUCKETS, *old.starts, *new.starts})):
        pair = (old.arm_of(start), new.arm_of(start))
        sizes[pair] = sizes.get(pair, 0) + end - start
    return named(before, after, sizes, newest)


def named(
    before: Route | None, after: Route | None, sizes: Mapping[tuple[str, str], int], newest: str = ""
) -> tuple[Flow, ...]:
    """Flows from their sizes by (arm before, arm after), the largest first."""
    names = renames(before.document, after.document) if before is not None and after is not None else {}
    made = [
        Flow(old, _version(before, old, newest), new, _version(after, new, newest), size, names.get(old) == new)
        for (old, new), size in sizes.items()
    ]
    return tuple(sorted(made, key=lambda flow: (-flow.size, flow)))


def moved(flows: Iterable[Flow]) -> int:
    """Returns how many answer from another arm than before; where one of the two has no route, from another version."""
    return sum(flow.size for flow in flows if flow.moves)


def reversioned(flows: Iterable[Flow]) -> int:
    """Returns how many get another version than before."""
    return sum(flow.size for flow in flows if flow.changes_version)


def _version(route: Route | None, arm: str, newest: str) -> str:
    return route.document.version_of(arm) if route is not None else newest


class BucketArms:
    """Tells which arm of a route answers a bucket, rules and pins aside; "" where there is no route.

    The table says so, or the kill switch while it is on.
    """

    def __init__(self, route: Route | None) -> None:
        self.starts: list[int] = []
        self._arms = [""]
        if route is not None:
            switch = route.document.kill_switch
            intervals = route.table.intervals
            self.starts = [] if switch is not None else [part.start for part in intervals[1:]]
            self._arms = [switch.arm] if switch is not None else [part.arm for part in intervals]

    def arm_of(self, bucket: int) -> str:
        return self._arms[bisect_right(self.starts, bucket)]
