"""The calls of one version of a feature view: each is answered when the rows that it asks for are there.

1. What is kept is answered at once, within `put`. For what is not, the store is asked, once for each row, however many
   calls want it.
2. A call waits no longer than its view's deadline, nor than its own. What is not there by then is unavailable.
3. A feature that has no value is answered by its default; a call that asks for one without fails, and no other does.
"""

import asyncio
import math
import struct
from collections.abc import Callable, Sequence
from time import monotonic_ns, time
from typing import Final

import numpy as np

from gateway.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from gateway.features.entity_key import KeyValue, check_key_value, key_maker
from gateway.features.feature_row import FeatureRow, RowReader, failing_status, lost_row
from gateway.features.feature_store import FeatureStore, RowRequest
from gateway.features.feature_view import FeatureStatus, FeatureValue, FeatureView, StaleRows
from gateway.features.look_up_counts import LookUpCounts
from gateway.features.row_cache import RowCache
from gateway.serving.call import Call
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue
from gateway.tensor import Buffer, TensorSpec

MAX_ROWS: Final = 8192
MAX_VALUES: Final = 1 << 17  # of a request, rows times features: the loop reads and writes them one by one
# Of an answer, as one message has by default: rows of one key share their values until they are written one by one.
MAX_BYTES: Final = 64 << 20
# How the reason begins of a version whose store is away.
_AWAY: Final = "features: "
_WORDS: Final = {
    FeatureStatus.MISSING: "is missing",
    FeatureStatus.STALE: "is older than the view allows",
    FeatureStatus.UNREADABLE: "is not of its declared data_type and dims",
    FeatureStatus.UNAVAILABLE: "is unavailable",
}


class LookUp:
    """One call and the rows that it has by now; `lacking` are still to come."""

    __slots__ = ("call", "lacking", "rows", "started_ns", "timer", "why")

    def __init__(self, call: Call, count: int, started_ns: int) -> None:
        self.call = call
        self.rows: list[FeatureRow | None] = [None] * count
        self.lacking = 0
        self.started_ns = started_ns
        self.timer: asyncio.TimerHandle | None = None
        self.why = ""


class FeatureQueue(VersionQueue):
    """Answers the calls of one version of a feature view.

    Units: `wall_s` returns seconds since the Unix epoch, by which rows are too old.
    """

    def __init__(
        self,
        version: Version,
        view: FeatureView,
        store: FeatureStore,
        counts: LookUpCounts,
        *,
        loop: asyncio.AbstractEventLoop,
        wall_s: Callable[[], float] = time,
    ) -> None:
        self._version = version
        self._view = view
        self._store = store
        self._counts = counts
        self._loop = loop
        self._wall_s = wall_s
        self._make_key = key_maker(view)
        self._reader = RowReader(view)
        self._lost_row = lost_row(view, FeatureStatus.UNAVAILABLE)
        self._cache = RowCache(keep_s=view.cache_s, max_bytes=view.cache_bytes)
        self._row_values = view.row_values
        self._max_rows = max(1, min(MAX_ROWS, MAX_VALUES // self._row_values))
        self._patience_ns = int(view.deadline_ms * 1e6)
        self._inputs: list[TensorSpec] = list(version.inputs)
        self._outputs: list[TensorSpec] = list(version.outputs)
        self._fixed = all(spec.row_bytes() > 0 for spec in version.outputs)
        places = {feature.name: place for place, feature in enumerate(view.features)}
        self._places = [places.get(spec.name, -1) for spec in version.outputs]
        self._asked: dict[bytes, list[tuple[LookUp, list[int]]]] = {}
        self._open: dict[Call, LookUp] = {}
        counts.caches.append(self._cache)
        store.watch(self.show_trouble)
        store.look()
        self.show_trouble()

    @property
    def queued(self) -> int:
        return len(self._open)

    def wait_ns(self, level: int, now_ns: int) -> int:
        return 0  # a look-up has a deadline of its own, and what may wait is bounded

    def put(self, call: Call) -> None:
        """Answers the call, at once or when its rows are there. Raises: InvalidArgument, for what can be no key."""
        started_ns = monotonic_ns()
        keys = self._keys_of(call)
        call.queued_ns = started_ns
        look_up = LookUp(call, len(keys), started_ns)
        lacking: dict[bytes, list[int]] = {}
        now_s = started_ns / 1e9
        for place, key in enumerate(keys):
            row = self._cache.find(key, now_s)
            if row is not None:
                look_up.rows[place] = row
            elif key in lacking:
                lacking[key].append(place)
            else:
                lacking[key] = [place]
        self._counts.cached += len(keys) - sum(len(places) for places in lacking.values())
        if not lacking:
            self._answer(look_up)
            return
        look_up.why = self._store.refusal(len(lacking), self._patience_ns)
        if look_up.why:
            self._answer(look_up)
            return
        self._ask(look_up, lacking)

    def forget(self, call: Call) -> None:
        look_up = self._open.pop(call, None)
        if look_up is not None and look_up.timer is not None:
            look_up.timer.cancel()

    def end(self) -> None:
        self._store.unwatch(self.show_trouble)
        self._counts.caches.remove(self._cache)

    def show_trouble(self) -> None:
        """Says with the version's state while its store is away."""
        trouble = self._store.trouble
        reason = self._version.reason
        if trouble:
            if not reason or reason.startswith(_AWAY):
                self._version.reason = f"{_AWAY}{trouble}"
        elif reason.startswith(_AWAY):
            self._version.reason = ""

    # ---- asking ----

    def _keys_of(self, call: Call) -> list[bytes]:
        if call.rows > self._max_rows:
            of_values = f" of {self._row_values} values" if self._max_rows < MAX_ROWS else ""
            raise InvalidArgument(
                f"a look-up of {call.rows} rows{of_values} exceeds the limit of {self._max_rows}: ask for fewer at a "
                "time"
            )
        columns: list[list[KeyValue]] = []
        for key, spec, tensor in zip(self._view.keys, self._inputs, call.inputs, strict=True):
            values = _key_values(spec, tensor)
            for value in values:
                check_key_value(key, value)
            columns.append(values)
        return [self._make_key(values) for values in zip(*columns, strict=True)]

    def _ask(self, look_up: LookUp, lacking: dict[bytes, list[int]]) -> None:
        call = look_up.call
        look_up.lacking = len(lacking)
        patience_ns = self._patience_ns
        if call.deadline_ns:
            patience_ns = min(patience_ns, call.deadline_ns - look_up.started_ns)
        look_up.timer = self._loop.call_later(max(0, patience_ns) / 1e9, self._late, look_up)
        self._open[call] = look_up
        for key, places in lacking.items():
            waiting = self._asked.get(key)
            if waiting is not None:
                waiting.append((look_up, places))
                self._counts.shared += len(places)
                continue
            self._asked[key] = [(look_up, places)]
            self._counts.fetched += len(places)
            self._store.ask(RowRequest(key, self._reader.fields, self._told, self._wanted, self._row_values))

    def _wanted(self, key: bytes) -> bool:
        return any(not look_up.call.answered for look_up, _ in self._asked[key])

    def _told(self, key: bytes, reply: Sequence[object] | None, why: str) -> None:
        waiting = self._asked.pop(key)
        if why:
            row = self._lost_row
        else:
            row = self._reader.read(reply)
            self._cache.keep(key, row, monotonic_ns() / 1e9)
        for look_up, places in waiting:
            for place in places:
                look_up.rows[place] = row
            look_up.why = why or look_up.why
            look_up.lacking -= 1
            if not look_up.lacking and not look_up.call.answered:
                self._answer(look_up)

    def _late(self, look_up: LookUp) -> None:
        call = look_up.call
        look_up.timer = None
        if call.answered:
            return
        if call.deadline_ns and monotonic_ns() >= call.deadline_ns:
            self._open.pop(call, None)
            call.fail(DeadlineExceeded("the deadline passed while the features were looked up"))
            return
        waited_ms = (monotonic_ns() - look_up.started_ns) // 1_000_000
        look_up.why = f"the feature store {self._store.name!r} did not answer within {waited_ms} ms"
        self._answer(look_up)

    # ---- answering ----

    def _answer(self, look_up: LookUp) -> None:
        call = look_up.call
        if look_up.timer is not None:
            look_up.timer.cancel()
        self._open.pop(call, None)
        rows = [self._lost_row if row is None else row for row in look_up.rows]
        now_s = self._wall_s()
        statuses = [row.statuses_at(self._view, now_s) for row in rows]
        wanted: Sequence[int] = range(len(self._outputs)) if call.wanted is None else call.wanted
        places = [self._places[index] for index in wanted if self._places[index] >= 0]
        self._counts.observe(statuses, len(self._view.features))
        for number, (row, status) in enumerate(zip(rows, statuses, strict=True)):
            if any(status):
                failing = failing_status(self._view, status, places)
                if failing is not None:
                    self._fail(look_up, number, row, failing[0], failing[1])
                    return
        outputs: list[Buffer] = []
        left = MAX_BYTES
        for index in wanted:
            spec, place = self._outputs[index], self._places[index]
            if place < 0:
                outputs.append(self._of_rows(spec, rows, statuses, now_s))
                continue
            column = self._column(place, rows, statuses)
            left -= sum(map(_size, column))
            if left < 0:
                call.fail(_too_large(self._version.model, len(rows)))
                return
            outputs.append(self._tensor(spec, column))
        call.infer_ns = monotonic_ns() - look_up.started_ns
        if call.trace is not None:
            call.trace.ran(1, call.rows, 0, [])
        if call.arm is not None:
            call.arm.series.batch(call.rows, call.infer_ns)
        call.answer(outputs)

    def _of_rows(self, spec: TensorSpec, rows: list[FeatureRow], statuses: list[bytes], now_s: float) -> Buffer:
        """Returns the output that tells of the rows: their statuses, or their age."""
        if spec.name == self._view.status_output:
            raw = b"".join(statuses)
        else:
            raw = b"".join([struct.pack("<f", _age_s(row, now_s)) for row in rows])
        return raw if self._fixed else np.frombuffer(raw, spec.datatype.dtype).reshape(len(rows), *spec.shape[1:])

    def _column(self, place: int, rows: list[FeatureRow], statuses: list[bytes]) -> list[FeatureValue]:
        """Returns the feature's value of each row, or its default; rows of one key share theirs."""
        feature = self._view.features[place]
        serves_stale = self._view.stale_rows is StaleRows.SERVE
        column: list[FeatureValue] = []
        for row, status in zip(rows, statuses, strict=True):
            number = status[place]
            if number == 0 or (serves_stale and number == 2):
                value = row.values[place]
            else:
                value = feature.default
                self._counts.defaults += 1
            if value is None:
                raise ValueError(f"feature {feature.name} has no value")
            column.append(value)
        return column

    def _tensor(self, spec: TensorSpec, column: list[FeatureValue]) -> Buffer:
        shape = (len(column), *spec.shape[1:])
        if spec.datatype.size:
            raw = b"".join([value for value in column if isinstance(value, bytes)])
            return raw if self._fixed else np.frombuffer(raw, spec.datatype.dtype).reshape(shape)
        items = [item for value in column if isinstance(value, tuple) for item in value]
        texts = np.empty(len(items), object)
        texts[:] = items
        return texts.reshape(shape)

    def _fail(self, look_up: LookUp, number: int, row: FeatureRow, place: int, status: FeatureStatus) -> None:
        """Fails the call with the first feature that has neither a value nor a default."""
        feature = self._view.features[place]
        where = f"model {self._version.model!r}: row {number}"
        if status is FeatureStatus.UNAVAILABLE:
            look_up.call.fail(Unavailable(f"{where}: feature {feature.name!r} is unavailable: {look_up.why}"))
        elif status is FeatureStatus.MISSING and not row.is_there:
            look_up.call.fail(
                NotFound(f"{where}: the store has no row of that key, and feature {feature.name!r} has no default")
            )
        else:
            look_up.call.fail(
                FailedPrecondition(f"{where}: feature {feature.name!r} {_WORDS[status]}, and nothing takes its place")
            )


def _key_values(spec: TensorSpec, tensor: Buffer | None) -> list[KeyValue]:
    if tensor is None:
        raise InvalidArgument(f"input {spec.name!r}: a key is missing")
    if isinstance(tensor, bytes | memoryview):
        return [int(value) for value in np.frombuffer(tensor, spec.datatype.dtype).tolist()]
    values = tensor.ravel().tolist()
    if spec.datatype.size:
        return [int(value) for value in values]
    return [value.encode() if isinstance(value, str) else bytes(value) for value in values]


def _size(value: FeatureValue) -> int:
    return len(value) if isinstance(value, bytes) else sum(map(len, value))


def _too_large(model: str, rows: int) -> ResourceExhausted:
    return ResourceExhausted(
        f"model {model!r}: the features of {rows} rows have more than {MAX_BYTES} bytes, the limit of an answer: ask "
        "for fewer rows or outputs at a time"
    )


def _age_s(row: FeatureRow, now_s: float) -> float:
    return now_s - row.true_at_s if row.is_there else math.nan
