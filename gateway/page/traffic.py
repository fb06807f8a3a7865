"""Rates and latencies of each arm over the last seconds, from totals that only grow (pure)."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from gateway.errors import CLIENT_CODES, Code
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS
from gateway.telemetry.keys import Sum
from gateway.telemetry.sums import Tree, branch, whole, wholes

WINDOW_S: Final = 10.0
KEPT_POINTS: Final = 300  # at a look a second: five minutes
MOST_ARMS: Final = 200  # whose traffic is followed, the busiest first


class ArmKey(NamedTuple):
    """Names the traffic of one arm."""

    model: str
    version: str
    arm: str


class ArmTraffic(msgspec.Struct, frozen=True):
    """What one arm did in the last seconds; `errors` are those that its clients did not cause.

    Units: calls a second; latencies in milliseconds, None without a request.
    """

    model: str
    version: str
    arm: str
    requests: float
    errors: float
    fallbacks: float
    p50_ms: float | None
    p99_ms: float | None


class TrafficPoint(msgspec.Struct, frozen=True):
    """The traffic at one moment. Units: `at_s` since the epoch."""

    at_s: float
    arms: tuple[ArmTraffic, ...]


class _Counted(NamedTuple):
    requests: int
    errors: int
    fallbacks: int
    latencies: tuple[int, ...]


class TrafficWindow:
    """Holds the totals of the last seconds, and what they come to, look by look."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[ArmKey, _Counted]]] = deque()
        self._points: deque[TrafficPoint] = deque(maxlen=KEPT_POINTS)

    @property
    def points(self) -> tuple[TrafficPoint, ...]:
        """The points that are kept, the oldest first."""
        return tuple(self._points)

    @property
    def now(self) -> TrafficPoint | None:
        """The newest point; None where there were not yet two looks: nothing is known then."""
        return self._points[-1] if self._points else None

    def look(self, sums: Tree, now_s: float) -> None:
        """Takes the totals of this moment."""
        counted = dict(_counted(sums))
        while len(self._looks) > 1 and self._looks[1][0] <= now_s - WINDOW_S:
            self._looks.popleft()
        if self._looks and now_s > self._looks[0][0]:
            before_s, before = self._looks[0]
            arms = [_traffic(key, counted[key], before.get(key), now_s - before_s) for key in counted]
            arms.sort(key=lambda arm: (-arm.requests, arm.model, arm.version, arm.arm))
            self._points.append(TrafficPoint(now_s, tuple(arms[:MOST_ARMS])))
        self._looks.append((now_s, counted))


def quantile_ms(counts: tuple[int, ...], share: float) -> float | None:
    """Returns a quantile of a latency histogram, linear within its bin; None where it is empty.

    Beyond the last bound it is that bound.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, passed = share * total, 0
    for place, count in enumerate(counts):
        if count and passed + count >= rank:
            if place >= len(LATENCY_BOUNDS_NS):
                return LATENCY_BOUNDS_NS[-1] / 1e6
            low = LATENCY_BOUNDS_NS[place - 1] if place else 0
            return (low + (LATENCY_BOUNDS_NS[place] - low) * (rank - passed) / count) / 1e6
        passed += count
    return LATENCY_BOUNDS_NS[-1] / 1e6


def _counted(sums: Tree) -> Iterator[tuple[ArmKey, _Counted]]:
    for model, versions in branch(sums, Sum.SERIES).items():
        for version, arms in _branches(versions):
            for arm, series in _branches(arms):
                codes = {Code(int(code)): whole(series, "codes", code) for code in branch(series, "codes")}
                errors = sum(count for code, count in codes.items() if code is not Code.OK and code not in CLIENT_CODES)
                whys = branch(sums, Sum.FALLBACKS, model, arm)
                fallbacks = sum(whole(whys, why) for why in whys)
                latencies = tuple(wholes(series, "total", "counts"))
                yield ArmKey(model, version, arm), _Counted(sum(codes.values()), errors, fallbacks, latencies)


def _branches(tree: object) -> list[tuple[str, Tree]]:
    return [(name, one) for name, one in tree.items() if isinstance(one, Mapping)] if isinstance(tree, Mapping) else []


def _traffic(key: ArmKey, now: _Counted, before: _Counted | None, seconds: float) -> ArmTraffic:
    """Returns the difference as rates. Totals that fell were forgotten meanwhile: they count from zero."""
    if before is None or before.requests > now.requests:
        before = _Counted(0, 0, 0, ())
    earlier = before.latencies + (0,) * (len(now.latencies) - len(before.latencies))
    latencies = tuple(max(0, new - old) for new, old in zip(now.latencies, earlier, strict=True))
    return ArmTraffic(
        key.model,
        key.version,
        key.arm,
        (now.requests - before.requests) / seconds,
        max(0, now.errors - before.errors) / seconds,
        max(0, now.fallbacks - before.fallbacks) / seconds,
        quantile_ms(latencies, 0.5),
        quantile_ms(latencies, 0.99),
    )
