"""Whether the arms of running A/B tests get the keys that their routes name, from what workers count.

The test holds at every look and begins anew with each revision, because another split is another ratio.
"""

import base64
import binascii
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec

from gateway.errors import StoreDamaged
from gateway.rollout.statistics.sample_ratio import is_mismatch, largest_deviation, mismatch_log_e
from gateway.routing.decision.snapshot import Route
from gateway.routing.document.bucket import BUCKETS, SAMPLED_BUCKET
from gateway.routing.document.strategy import Ab

LOOK_MS: Final = 10_000
_BYTES: Final = (BUCKETS // SAMPLED_BUCKET + 7) // 8
_log = logging.getLogger(__name__)


class SplitMismatch(msgspec.Struct, frozen=True):
    """What is wrong with the split of a revision. `keys` are of the sample; `log_e` may be infinite."""

    model: str
    revision: int
    committed_at_us: int
    keys: dict[str, int]
    shares: dict[str, float]
    log_e: float
    deviation: float

    @property
    def id(self) -> str:
        """Returns what names the finding, the same on every host."""
        return f"split-{self.model}-{self.revision}-{self.committed_at_us}"

    def told(self) -> dict[str, object]:
        """Returns the numbers, of values that JSON can hold."""
        value: dict[str, object] = msgspec.to_builtins(self)
        return value


class KeyCounts(Protocol):
    """Where what the workers counted is read."""

    async def key_samples(self, revision: int) -> Mapping[str, list[str]]:
        """Returns the samples of all workers by arm. Raises: StoreUnavailable."""


class SplitWatch:
    """Looks at the splits of routes that ask for it, and tells each mismatch of a revision once."""

    def __init__(self, counts: KeyCounts, tell: Callable[[SplitMismatch], None]) -> None:
        self._counts = counts
        self._tell = tell
        self._told: set[str] = set()
        self._looked_ms = 0

    async def look(self, routes: Mapping[str, Route], now_ms: int) -> None:
        """Looks at every split, at most every ten seconds. Raises: StoreUnavailable."""
        if 0 <= now_ms - self._looked_ms < LOOK_MS:
            return
        self._looked_ms = now_ms
        watched = [route for route in routes.values() if is_watched(route)]
        for route in watched:
            try:
                samples = await self._counts.key_samples(route.revision)
            except StoreDamaged as error:
                _log.warning("the split of model %s cannot be judged: %s", route.model, error)
                continue
            found = mismatch(route, samples)
            if found is not None and found.id not in self._told:
                self._told.add(found.id)
                _log.warning("the split of model %s at revision %d is broken: %s", *told_keys(found))
                self._tell(found)
        self._told &= {f"split-{one.model}-{one.revision}-{one.committed_at_us}" for one in watched}


def is_watched(route: Route) -> bool:
    """Returns whether the route's document asks for the check."""
    strategy = route.document.strategy
    return isinstance(strategy, Ab) and bool(strategy.plan.on_mismatch)


def told_keys(found: SplitMismatch) -> tuple[str, int, str]:
    """Returns the model, the revision and the keys in words."""
    told = ", ".join(f"{arm} {keys} (should be {found.shares[arm]:.2%})" for arm, keys in found.keys.items())
    return found.model, found.revision, told


def mismatch(route: Route, samples: Mapping[str, Iterable[str]]) -> SplitMismatch | None:
    """Returns what is wrong with the split; None where nothing is, or too little is known to say so."""
    weights = route.table.weights()
    shares = {arm: weights[arm] / BUCKETS for arm in sorted(weights)}
    keys = {arm: counted(samples.get(arm, ())) for arm in shares}
    log_e = mismatch_log_e(list(keys.values()), list(shares.values()))
    deviation = largest_deviation(list(keys.values()), list(shares.values()))
    if not is_mismatch(log_e, deviation):
        return None
    return SplitMismatch(route.model, route.revision, route.committed_at_us, keys, shares, log_e, deviation)


def counted(samples: Iterable[str]) -> int:
    """Returns how many keys are in the samples together, one that several workers have seen once.

    A sample that is none is left out, and said.
    """
    together = 0
    for sample in samples:
        if not sample:
            continue
        try:
            bits = zlib.decompressobj().decompress(base64.b64decode(sample, validate=True), _BYTES + 1)
        except (binascii.Error, zlib.error, ValueError) as error:
            _log.warning("a sample of keys in the store cannot be read, it is left out: %s", error)
            continue
        if len(bits) == _BYTES:
            together |= int.from_bytes(bits, "little")
    return together.bit_count()
