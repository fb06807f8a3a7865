"""Who moves when one route takes the place of another: buckets by the arm and version before and after."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from gateway.routing.decision.route import Route, renames
from gateway.routing.document.bucket import BUCKETS


@dataclass(frozen=True, slots=True, order=True)
class Flow:
    """`size` buckets (or keys) that `from_arm` answered and `to_arm` answers.

    The names before are "" where there was no route. `renamed`: both are one arm under two names, so nobody moves.
    """

    from_arm: str
    from_version: str
    to_arm: str
    to_version: str
    size: int
    renamed: bool = False

    @property
    def moves(self) -> bool:
        """Whether these keys answer from another arm than before."""
        return self.from_arm != self.to_arm and not self.renamed

    @property
    def changes_version(self) -> bool:
        return self.from_version != self.to_version


def flows(before: Route | None, after: Route) -> tuple[Flow, ...]:
    """All 1 000 000 buckets, the largest flow first."""
    bounds = {0, BUCKETS} | {part.start for part in after.table.intervals}
    if before is not None:
        bounds |= {part.start for part in before.table.intervals}
    ordered = sorted(bounds)
    sizes: dict[tuple[str, str], int] = {}
    old = BucketArms(before) if before is not None else None
    new = BucketArms(after)
    for start, end in pairwise(ordered):
        pair = (old.arm_of(start) if old is not None else "", new.arm_of(start))
        sizes[pair] = sizes.get(pair, 0) + end - start
    return named(before, after, sizes)


def named(before: Route | None, after: Route, sizes: Mapping[tuple[str, str], int]) -> tuple[Flow, ...]:
    """Flows from their sizes by (arm before, arm after), the largest first."""
    names = renames(before.document, after.document) if before is not None else {}
    made = [
        Flow(
            old,
            before.document.version_of(old) if before is not None else "",
            new,
            after.document.version_of(new),
            size,
            names.get(old) == new,
        )
        for (old, new), size in sizes.items()
    ]
    return tuple(sorted(made, key=lambda flow: (-flow.size, flow)))


def moved(flows: Iterable[Flow]) -> int:
    """How many answer from another arm than before; none did where there was no route."""
    return sum(flow.size for flow in flows if flow.moves and flow.from_arm)


def reversioned(flows: Iterable[Flow]) -> int:
    """How many get another version than before; nobody can tell where there was no route."""
    return sum(flow.size for flow in flows if flow.changes_version and flow.from_arm)


class BucketArms:
    """Which arm of a route answers a bucket, rules and pins aside: the table, or the kill switch while it is on."""

    def __init__(self, route: Route) -> None:
        switch = route.document.kill_switch
        intervals = route.table.intervals
        self._starts = [] if switch is not None else [part.start for part in intervals[1:]]
        self._arms = [switch.arm] if switch is not None else [part.arm for part in intervals]

    def arm_of(self, bucket: int) -> str:
        return self._arms[bisect_right(self._starts, bucket)]
