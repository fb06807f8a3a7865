"""Since when versions are gone that metrics still tell of: their series end, or their number would only grow."""

from collections.abc import Collection, Iterable
from typing import Final

Key = tuple[str, str]  # model and version; "" for a model as a whole

KEEP_S: Final = 1800.0  # long enough that every scraper has the last values
MOST: Final = 200  # gone versions that are shown at a time; those that went first are ended for the others


class GoneVersions:
    """Tells which series are over. Units: seconds on the caller's monotonic clock."""

    def __init__(self, *, keep_s: float = KEEP_S, most: int = MOST) -> None:
        self._keep_s = keep_s
        self._most = most
        self._since: dict[Key, float] = {}  # in the order in which they went
        self.over: frozenset[Key] = frozenset()

    def look(self, present: Collection[Key], told: Iterable[Key], now: float) -> None:
        """Sets `over` by the versions that are there now and those that metrics tell of."""
        self._since = {key: self._since.get(key, now) for key in told if key not in present}
        lately = sorted((key for key, since in self._since.items() if now - since < self._keep_s), key=self._went)
        self.over = frozenset(self._since.keys() - set(lately[-self._most :]))

    def _went(self, key: Key) -> tuple[float, Key]:
        return self._since[key], key


def is_over(over: frozenset[Key], model: str, version: str | None) -> bool:
    """Returns whether the series with these labels has ended."""
    return (model, "") in over or (version is not None and (model, version) in over)
