"""One row of a feature view: what the store answered for one entity, read once and kept as it is answered."""

import math
from collections.abc import Sequence
from typing import Final

from gateway.features.feature_view import FeatureStatus, FeatureValue, FeatureView, RowLayout, StaleRows
from gateway.features.murmur3 import murmur3_32
from gateway.features.stored_value import UnreadableValue, reader, time_reader

_OVERHEAD_BYTES: Final = 200  # of the objects that a row is made of, about
_VALUE: Final = FeatureStatus.VALUE
_MISSING: Final = FeatureStatus.MISSING
_STALE: Final = FeatureStatus.STALE
_UNAVAILABLE: Final = FeatureStatus.UNAVAILABLE


class FeatureRow:
    """The values of one entity, one for each feature of the view: None where the status is not VALUE.

    Units: `true_at_s` since the Unix epoch, NaN where nothing says it.
    """

    __slots__ = ("is_there", "size_bytes", "statuses", "true_at_s", "values")

    def __init__(
        self,
        values: tuple[FeatureValue | None, ...],
        statuses: bytes,
        *,
        is_there: bool,
        true_at_s: float = math.nan,
    ) -> None:
        self.values = values
        self.statuses = statuses
        self.is_there = is_there
        self.true_at_s = true_at_s
        self.size_bytes = _OVERHEAD_BYTES + sum(_size(value) for value in values)

    def statuses_at(self, view: FeatureView, now_s: float) -> bytes:
        """Returns the statuses at that time: those of values that are too old by then are STALE."""
        if not view.max_age_s or not self.is_there or now_s - self.true_at_s <= view.max_age_s:
            return self.statuses
        return self.statuses.replace(bytes((_VALUE,)), bytes((_STALE,)))


def lost_row(view: FeatureView, status: FeatureStatus) -> FeatureRow:
    """Returns the row of an entity of which nothing is known, for that reason."""
    count = len(view.features)
    return FeatureRow((None,) * count, bytes((status,)) * count, is_there=False)


class RowReader:
    """Reads what the store answers for the rows of one view; `fields` are what it is to be asked for."""

    def __init__(self, view: FeatureView) -> None:
        self._readers = [reader(view, feature) for feature in view.features]
        self._time = time_reader(view)
        self._missing = lost_row(view, _MISSING)
        self._unreadable = lost_row(view, FeatureStatus.UNREADABLE)
        if view.layout is RowLayout.FEAST:
            names = [f"{view.source}:{feature.stored}".encode() for feature in view.features]
            stored = [murmur3_32(name).to_bytes(4, "little") for name in names]
            self.fields = (*stored, f"_ts:{view.source}".encode())
        else:
            timed = (view.timestamp.encode(),) if view.timestamp else ()
            self.fields = (*(feature.stored.encode() for feature in view.features), *timed)

    def read(self, reply: Sequence[object] | None) -> FeatureRow:
        """Returns the row in a reply to HMGET with `fields`; None stands for a key that is no hash."""
        if reply is None or len(reply) != len(self.fields):
            return self._unreadable
        if all(stored is None for stored in reply):
            return self._missing
        values: list[FeatureValue | None] = []
        statuses = bytearray()
        for read, stored in zip(self._readers, reply, strict=False):
            value, status = None, _MISSING
            if isinstance(stored, bytes):
                try:
                    value = read(stored)
                    status = _MISSING if value is None else _VALUE
                except UnreadableValue:
                    status = FeatureStatus.UNREADABLE
            values.append(value)
            statuses.append(status)
        timed = len(self.fields) > len(self._readers)
        true_at_s = self._true_at_s(reply[-1]) if timed else math.nan
        return FeatureRow(tuple(values), bytes(statuses), is_there=True, true_at_s=true_at_s)

    def _true_at_s(self, stored: object) -> float:
        if not isinstance(stored, bytes):
            return math.nan
        try:
            return self._time(stored)
        except UnreadableValue:
            return math.nan


def failing_status(view: FeatureView, statuses: bytes, places: Sequence[int]) -> tuple[int, FeatureStatus] | None:
    """Returns the place and status of the first feature, of those at `places`, for which the view has nothing to
    answer; None if there is none.
    """
    features = view.features
    serves_stale, refuses_stale = view.stale_rows is StaleRows.SERVE, view.stale_rows is StaleRows.ERROR
    for place in places:
        number = statuses[place]
        if number == _VALUE or (number == _STALE and serves_stale):
            continue
        refuses = refuses_stale if number == _STALE else number == _UNAVAILABLE and view.fails_unavailable
        if refuses or features[place].default is None:
            return place, FeatureStatus(number)
    return None


def _size(value: FeatureValue | None) -> int:
    if value is None:
        return 0
    return len(value) if isinstance(value, bytes) else sum(len(item) + 40 for item in value)
