"""Names of the categories that a reference does not know, as the newest rows had them. In memory, and bounded: counts
are what is kept, and after a restart a new category is named when it comes again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from gateway.drift.online.counting import VersionRows
from gateway.drift.online.windows import CellLayout, Tally
from gateway.drift.statistics.bins import CategoryBins, number_text
from gateway.drift.statistics.statistic import UNSEEN
from gateway.drift.statistics.verdict import Verdict

_MOST: Final = 50  # of a feature
_NAMED: Final = 3  # in a direction
_LONGEST: Final = 60  # characters of a name


class NewCategories:
    """Remembers the new categories of one version: by feature, when each name last came."""

    def __init__(self) -> None:
        self._last_s: dict[str, dict[str, int]] = {}

    def add(self, rows: VersionRows, layout: CellLayout, tallies: Mapping[Any, Tally], at_s: int) -> None:
        """Remembers the new names in the rows, if their tallies count any. Units: `at_s` is the time of the rows."""
        for feature, cells in zip(layout.features, layout.places, strict=True):
            if not isinstance(feature.bins, CategoryBins) or not feature.bins.tail_complete:
                continue
            if any(tally.counts[cells][len(feature.bins.categories) + 1] for tally in tallies.values()):
                column = rows.column(feature.column)
                if column is None:
                    continue
                present = column.values if column.missing is None else column.values[~column.missing]
                distinct = np.unique(present).tolist()
                texts = [number_text(value) if column.texts is None else column.texts[value] for value in distinct]
                known = self._last_s.setdefault(feature.name, {})
                for name in (text for text in texts if feature.bins.is_new(text)):
                    known.pop(name, None)
                    known[name] = at_s
                while len(known) > _MOST:
                    del known[next(iter(known))]

    def named(self, verdict: Verdict, start_s: int) -> Verdict:
        """Returns the verdict; one about new categories has the newest names since then as its direction."""
        names = [name for name, at_s in self._last_s.get(verdict.feature, {}).items() if at_s >= start_s]
        if verdict.statistic != UNSEEN.name or not names:
            return verdict
        shown = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in names[::-1][:_NAMED]]
        return replace(verdict, direction=f"new: {', '.join(shown)}")
