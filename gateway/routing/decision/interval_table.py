"""The interval table: which arm owns which of the 1 000 000 buckets, and how that changes by as little as possible.

A table is computed once, when a route is written, and travels with it; readers only look up. Rules of a change:

1. An arm that shrinks gives back its newest intervals first, so that what it got last is what it loses first.
2. Over several shrinking arms the newest interval of all goes first, so that a change is undone in the order in which
   it was made.
3. What was given back is handed to the growing arms in that order, the arms sorted by name.
4. An interval is cut where it was last touched: one with an even generation gives back its end, one with an odd
   generation its start. Handing a piece over turns it round. Two arms thus move one boundary to and fro: the same
   weight is the same set of buckets, whatever way it was reached.
5. Neighbours of one arm become one interval, as new as the newer of them, so that a much edited route stays small.

Nobody else moves: a change moves exactly the sum of what the growing arms gain, which is the least that is possible.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.errors import InvalidArgument
from gateway.routing.document.bucket import BUCKETS


@dataclass(frozen=True, slots=True)
class Interval:
    """The buckets [start, end) of one arm. `generation` is the order in which intervals were handed out: the newest
    goes first, and its parity says which end (see the module's rules)."""

    start: int
    end: int
    arm: str
    generation: int

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def rising(self) -> bool:
        """Returns whether the last bucket is the newest one."""
        return self.generation % 2 == 0


@dataclass(frozen=True, slots=True)
class Table:
    """Intervals in order of their start that cover every bucket once.

    Raises: InvalidArgument where they do not.
    """

    intervals: tuple[Interval, ...]

    def __post_init__(self) -> None:
        expected = 0
        for interval in self.intervals:
            if interval.start != expected or interval.end <= interval.start or interval.generation < 0:
                raise InvalidArgument(
                    f"table: interval {_shown(interval)} does not start at {expected} and end behind it"
                )
            expected = interval.end
        if expected != BUCKETS:
            raise InvalidArgument(f"table: the intervals end at {expected}, not at {BUCKETS}")
        if len({interval.generation for interval in self.intervals}) != len(self.intervals):
            raise InvalidArgument("table: two intervals have the same generation")

    def arm_of(self, bucket: int) -> str:
        """The arm that owns `bucket`; Units: 0 <= bucket < 1 000 000."""
        return self.intervals[bisect_right(self.intervals, bucket, key=_start) - 1].arm

    def weights(self) -> dict[str, int]:
        """Buckets per arm, for the arms that own any."""
        weights: dict[str, int] = {}
        for interval in self.intervals:
            weights[interval.arm] = weights.get(interval.arm, 0) + interval.size
        return weights

    def renamed(self, names: Mapping[str, str]) -> "Table":
        """The same buckets under new arm names; arms that `names` does not hold keep theirs."""
        return Table(tuple(replace(i, arm=names.get(i.arm, i.arm)) for i in self.intervals))

    def to_value(self) -> list[list[int | str]]:
        """`[[start, end, arm, generation], ...]`, as Redis and the history hold it."""
        return [[i.start, i.end, i.arm, i.generation] for i in self.intervals]

    @classmethod
    def from_value(cls, value: object) -> "Table":
        """The table that `to_value` wrote. Raises: InvalidArgument where it is anything else."""
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise InvalidArgument("table: not a list of intervals")
        return cls(tuple(_interval(entry) for entry in value))


def rebalance(previous: Table | None, weights: Mapping[str, int]) -> Table:
    """The table with these weights that moves the fewest buckets away from `previous`.

    Units:  weights in buckets, sum 1 000 000; an arm with weight 0 owns nothing.
    Raises: InvalidArgument where the weights are negative or do not add up.
    Source: module docstring; the table of one `previous` and one set of weights is the same everywhere.
    """
    _check(weights)
    if previous is None:
        return _fresh(weights)
    held = previous.weights()
    surplus = {arm: size - weights.get(arm, 0) for arm, size in held.items() if size > weights.get(arm, 0)}
    wanted = {arm: weights[arm] - held.get(arm, 0) for arm in sorted(weights) if weights[arm] > held.get(arm, 0)}
    if not wanted:
        return previous
    kept, freed = _release(previous.intervals, surplus)
    newest = max(interval.generation for interval in previous.intervals)
    return _tidy(kept + _hand_out(freed, wanted, newest=newest))


def moved(old: Table, new: Table) -> int:
    """Buckets that belong to another arm in `new` than in `old`."""
    count, i, j, at = 0, 0, 0, 0
    while at < BUCKETS:
        left, right = old.intervals[i], new.intervals[j]
        end = min(left.end, right.end)
        if left.arm != right.arm:
            count += end - at
        at = end
        i += left.end == end
        j += right.end == end
    return count


def _start(interval: Interval) -> int:
    return interval.start


def _shown(interval: Interval) -> str:
    return f"[{interval.start}, {interval.end}) of {interval.arm!r}, generation {interval.generation},"


def _interval(entry: object) -> Interval:
    match entry:
        case [int(start), int(end), str(arm), int(generation)] if not any(
            isinstance(number, bool) for number in (start, end, generation)
        ):
            return Interval(start, end, arm, generation)
    raise InvalidArgument(f"table: {repr(entry)[:80]} is not [start, end, arm, generation]")


def _check(weights: Mapping[str, int]) -> None:
    if any(weight < 0 for weight in weights.values()):
        raise InvalidArgument("weights: a weight is negative")
    total = sum(weights.values())
    if total != BUCKETS:
        raise InvalidArgument(f"weights: they sum to {total} buckets, they must sum to {BUCKETS}")


def _fresh(weights: Mapping[str, int]) -> Table:
    """One interval per arm, the arms sorted by name. The first gives back its end, the next its start and so on: the
    two arms of a pair face each other across the boundary that will move."""
    intervals: list[Interval] = []
    start, generation = 0, -1
    for arm in sorted(weights):
        if weights[arm]:
            generation = _following(generation, rising=len(intervals) % 2 == 0)
            intervals.append(Interval(start, start + weights[arm], arm, generation))
            start += weights[arm]
    return Table(tuple(intervals))


def _release(
    intervals: Iterable[Interval], surplus: Mapping[str, int]
) -> tuple[list[Interval], list[tuple[int, int, bool]]]:
    """Returns what stays, and the pieces (start, end, rising) given back, the newest of all first."""
    left = dict(surplus)
    kept: list[Interval] = []
    freed: list[tuple[int, int, bool]] = []
    for interval in sorted(intervals, key=lambda i: i.generation, reverse=True):
        give = min(left.get(interval.arm, 0), interval.size)
        if not give:
            kept.append(interval)
            continue
        left[interval.arm] -= give
        piece, rest = _cut(interval.start, interval.end, rising=interval.rising, size=give)
        freed.append((*piece, interval.rising))
        if rest is not None:
            kept.append(replace(interval, start=rest[0], end=rest[1]))
    return kept, freed


def _cut(start: int, end: int, *, rising: bool, size: int) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """The newest `size` buckets of [start, end), and the rest if there is any."""
    if size == end - start:
        return (start, end), None
    if rising:
        return (end - size, end), (start, end - size)
    return (start, start + size), (start + size, end)


def _hand_out(freed: list[tuple[int, int, bool]], wanted: Mapping[str, int], *, newest: int) -> list[Interval]:
    """The freed pieces as intervals of the arms that want them, turned round and newer than `newest`."""
    pool = list(reversed(freed))
    taken: list[Interval] = []
    for arm, want in wanted.items():
        while want:
            start, end, rising = pool.pop()
            piece, rest = _cut(start, end, rising=rising, size=min(want, end - start))
            if rest is not None:
                pool.append((*rest, rising))
            newest = _following(newest, rising=not rising)
            taken.append(Interval(*piece, arm, newest))
            want -= piece[1] - piece[0]
    return taken


def _following(generation: int, *, rising: bool) -> int:
    """The next generation after this one with the parity of that direction."""
    following = generation + 1
    return following if (following % 2 == 0) == rising else following + 1


def _tidy(intervals: Iterable[Interval]) -> Table:
    """The intervals after rule 5; generations are counted anew, because only their order and parity matter."""
    merged: list[Interval] = []
    for interval in sorted(intervals, key=_start):
        last = merged[-1] if merged else None
        if last is None or last.arm != interval.arm:
            merged.append(interval)
        else:
            newest = max(last.generation, interval.generation)
            merged[-1] = Interval(last.start, interval.end, last.arm, newest)
    counted: list[Interval] = []
    newest = -1
    for interval in sorted(merged, key=lambda i: i.generation):
        newest = _following(newest, rising=interval.rising)
        counted.append(replace(interval, generation=newest))
    return Table(tuple(sorted(counted, key=_start)))
