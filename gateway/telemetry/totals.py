"""Sums over workers that never go back, though workers die and start from zero.

Counts are kept by boot: the life of one worker process. What a boot counted stays in the total when it ends.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.telemetry.gone_versions import Key
from gateway.telemetry.keys import Sum
from gateway.telemetry.sums import Tree, add, add_all, branch


@dataclass(slots=True)
class _Life:
    slot: int
    sums: dict[str, object]
    gauges: Tree
    heard_at: float


_BY_MODEL: Final = (Sum.SERIES, Sum.FALLBACKS, Sum.SHADOWS, Sum.FEATURES)


class KeptLife(msgspec.Struct):
    """The counts of a boot whose end nobody has seen yet."""

    slot: int
    sums: dict[str, object]


class KeptTotals(msgspec.Struct):
    """The totals as they are kept on disk."""

    ended: dict[str, object]
    folded: list[str]
    lives: dict[str, KeptLife]


class Totals:
    """The newest counts of every boot, and the total of all that have ended.

    Units: times in seconds on the caller's monotonic clock.
    """

    def __init__(self, *, forget_after_s: float = 60.0) -> None:
        self._forget_after_s = forget_after_s
        self._ended: dict[str, object] = {}
        self._folded: set[str] = set()
        self._lives: dict[str, _Life] = {}
        self._over: frozenset[Key] = frozenset()

    def heard(self, slot: int, boot: str, snapshot: Tree, now: float) -> None:
        """Takes what a boot has counted by now; old news of a boot that was added up already is ignored."""
        if boot not in self._folded:
            self._lives[boot] = _Life(slot, branch(snapshot, "sums"), branch(snapshot, "gauges"), now)

    def sums(self) -> dict[str, object]:
        """Returns everything counted since the gateway started, but for what is forgotten."""
        sums = add_all([self._ended, *(life.sums for life in self._lives.values())])
        _drop(sums, self._over)
        return sums

    def versions(self) -> set[Key]:
        """Returns the versions, and the models, that something was counted of."""
        keys: set[Key] = set()
        for sums in (self._ended, *(life.sums for life in self._lives.values())):
            series = branch(sums, Sum.SERIES)
            keys |= {(model, version) for model in series for version in branch(series, model)}
            keys |= {(model, "") for part in _BY_MODEL for model in branch(sums, part)}
        return keys

    def forget(self, over: Collection[Key]) -> None:
        """Drops what ended boots have counted of these, and leaves them out of the sums from now on."""
        self._over = frozenset(over)
        _drop(self._ended, self._over)

    def gauges(self, now: float, within_s: float) -> dict[int, Tree]:
        """Returns what the worker of each slot said of itself, if it was heard lately."""
        newest: dict[int, _Life] = {}
        for life in self._lives.values():
            seen = newest.get(life.slot)
            if now - life.heard_at <= within_s and (seen is None or life.heard_at > seen.heard_at):
                newest[life.slot] = life
        return {slot: life.gauges for slot, life in newest.items()}

    def fold(self, now: float) -> None:
        """Boots that were not heard for long have ended: their counts become one."""
        for boot, life in list(self._lives.items()):
            if now - life.heard_at > self._forget_after_s:
                self._ended = add(self._ended, life.sums)
                self._folded.add(boot)
                del self._lives[boot]

    def kept(self) -> "KeptTotals":
        """Returns what a successor of the process that keeps the totals continues from."""
        lives = {boot: KeptLife(life.slot, life.sums) for boot, life in self._lives.items()}
        return KeptTotals(self._ended, sorted(self._folded), lives)

    def restore(self, kept: "KeptTotals", now: float) -> None:
        """Continues from what was kept."""
        self._folded = set(kept.folded)
        self._ended = dict(kept.ended)
        self._lives = {boot: _Life(life.slot, life.sums, {}, now) for boot, life in kept.lives.items()}


def _drop(sums: dict[str, object], over: frozenset[Key]) -> None:
    for model, version in over:
        for part in (Sum.SERIES,) if version else _BY_MODEL:
            models = sums.get(part)
            versions = models.get(model) if isinstance(models, dict) else None
            if isinstance(models, dict) and not version:
                models.pop(model, None)
            elif isinstance(versions, dict):
                versions.pop(version, None)
