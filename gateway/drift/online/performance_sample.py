"""Answered rows of a model that wait for their label or have it: of each arm an even sample, in bounded memory.

A row is in the sample if its key, a hash of request and row, is below a threshold. Where a sample outgrows its limit
the threshold is halved: half of the rows go, and each that stays stands for twice as many. Rows leave after seven days.
Rows and labels may come in any order and any number of times: of several labels of a row the one with the latest label
time holds, and of those with the same time the one received last.

Source: the weights are those of Horvitz and Thompson; the threshold that halves is that of adaptive sampling (Wegman).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.drift.online.counting import LoggedArm

SampleRows = npt.NDArray[np.void]
Keys = npt.NDArray[np.uint64]
KEPT_US: Final = 7 * 86_400_000_000
RECENT_US: Final = 3_600_000_000  # a label may come to the lake before its row; for so long it waits
MAX_ARMS: Final = 20  # of a model, those with the newest rows
MAX_TEXTS: Final = 200  # classes that are texts
MAX_SCORES: Final = 16  # outputs of more numbers are kept as class and confidence alone
NO_TEXT: Final = -1
OTHER_TEXT: Final = -2  # one that is no class: there are too many
NO_LABEL_US: Final = np.iinfo(np.int64).min
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
LABEL: Final = np.dtype(
    [("key", "<u8"), ("label", "<f8"), ("label_text", "<i2"), ("label_us", "<i8"), ("received_us", "<i8")]
)


@cache
def row_type(width: int) -> np.dtype[np.void]:
    """The fields of a row whose answer has so many scores. `said` and `label_text` are numbers of texts, NaN or
    `NO_TEXT` where there is none; the row stands for 2**level rows of the log, each for 1 / p of those that were."""
    answer = [("pred_class", "<f8"), ("pred_score", "<f4"), ("said", "<i2"), ("scores", "<f4", (width,))]
    return np.dtype([("ts_us", "<i8"), ("p", "<f4"), ("level", "u1"), *answer, *_fields(LABEL)])


def row_keys(hashes: npt.NDArray[Any], row_index: npt.NDArray[Any]) -> Keys:
    """The key of each row: spread anew, for the log itself may hold only requests whose hash is small.

    Shapes: [rows] each. Source: the finaliser of SplitMix64.
    """
    mixed = hashes.astype(np.uint64) + row_index.astype(np.uint64) * _SPREAD
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def below(keys: Keys, level: int) -> npt.NDArray[np.bool_]:
    """Returns which keys the sample of that level holds."""
    return np.ones(len(keys), np.bool_) if level == 0 else keys >> np.uint64(64 - min(level, 64)) == 0


@dataclass(slots=True, eq=False)
class ArmSample:
    """The sample of one arm, by key. `changed`: since somebody last looked."""

    rows: SampleRows
    level: int = 0
    changed: bool = True

    @property
    def newest_us(self) -> int:
        """When the newest row arrived."""
        return int(self.rows["ts_us"].max()) if len(self.rows) else 0

    @property
    def width(self) -> int:
        return int(self.rows.dtype["scores"].shape[0])

    def add(self, rows: SampleRows, limit: int) -> SampleRows:
        """Adds rows that are not there yet and thins the sample to its limit. Returns the rows that were added."""
        new = rows[below(rows["key"], self.level)]
        _, first = np.unique(new["key"], return_index=True)
        new = new[first]
        places, there = _places(self.rows["key"], new["key"])
        new, places = new[~there], places[~there]
        if len(new):
            new["level"] = self.level
            self.rows = np.insert(self.rows, places, new)
            self.changed = True
        self._thin(limit)
        return new

    def label(self, labels: SampleRows) -> None:
        """Gives rows their labels. Shapes: [labels], as `last_labels` makes them."""
        places, there = _places(self.rows["key"], labels["key"])
        places, given = places[there], labels[there]
        own = self.rows[places]
        same = given["label_us"] == own["label_us"]
        newer = (given["label_us"] > own["label_us"]) | (same & (given["received_us"] >= own["received_us"]))
        chosen, given = places[newer], given[newer]
        for name in LABEL.names or ():
            self.rows[name][chosen] = given[name]
        self.changed = self.changed or bool(len(chosen))

    def forget(self, before_us: int, limit: int) -> None:
        """Forgets rows that arrived before that, and those beyond the limit."""
        kept = self.rows["ts_us"] >= before_us
        if not kept.all():
            self.rows, self.changed = self.rows[kept], True
        self._thin(limit)
        if self.level and len(self.rows) < limit // 4:
            self.level -= 1

    def _thin(self, limit: int) -> None:
        while len(self.rows) > limit and self.level < 63:
            self.level += 1
            self.rows = self.rows[below(self.rows["key"], self.level)]
            self.rows["level"] = np.maximum(self.rows["level"], self.level)


def _places(keys: Keys, wanted: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Returns where each wanted key is among the keys, which ascend, or would be; and whether it is there."""
    places = np.searchsorted(keys, wanted)
    there = np.zeros(len(wanted), np.bool_)
    inside = places < len(keys)
    there[inside] = keys[places[inside]] == wanted[inside]
    return places, there


def last_labels(labels: SampleRows) -> SampleRows:
    """Returns the label that holds for each key, sorted by key. Order: `labels` in the order of their receipt."""
    order = np.lexsort((labels["received_us"], labels["label_us"], labels["key"]))
    ordered = labels[order]
    ends = np.append(np.diff(ordered["key"]) != 0, True) if len(ordered) else np.zeros(0, np.bool_)
    return np.asarray(ordered[ends])


@dataclass(slots=True, eq=False)
class PerformanceSample:
    """The samples of a model's arms, and the labels of the last hour for rows that are still on their way."""

    arms: dict[LoggedArm, ArmSample] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    recent: SampleRows = field(default_factory=lambda: np.empty(0, LABEL))

    def add(self, arm: LoggedArm, rows: SampleRows, *, limit: int) -> None:
        """Rows of an arm, of type `row_type`. Those of another width than before begin a new sample."""
        sample = self.arms.pop(arm, None)
        if sample is None or sample.rows.dtype != rows.dtype:
            sample = ArmSample(np.empty(0, rows.dtype))
        self.arms[arm] = sample  # the newest is last
        if len(self.arms) > MAX_ARMS:
            del self.arms[next(iter(self.arms))]
        new = sample.add(rows, limit)
        if len(new) and len(self.recent):
            sample.label(self.recent[np.isin(self.recent["key"], new["key"])])

    def label(self, labels: SampleRows, *, limit: int) -> None:
        """Takes labels in the order of their receipt."""
        loosest = min((sample.level for sample in self.arms.values()), default=0)
        newest = last_labels(labels[below(labels["key"], loosest)])
        for sample in self.arms.values():
            sample.label(newest)
        joined = last_labels(np.concatenate([self.recent, newest]))
        if len(joined) > limit:
            joined = joined[np.sort(np.argsort(joined["received_us"], kind="stable")[-limit:])]
        self.recent = joined

    def forget(self, now_us: int, *, limit: int) -> None:
        """Forgets rows and labels that are too old."""
        for arm, sample in list(self.arms.items()):
            sample.forget(now_us - KEPT_US, limit)
            if not len(sample.rows):
                del self.arms[arm]
        self.recent = self.recent[self.recent["received_us"] >= now_us - RECENT_US]
        if len(self.texts) >= MAX_TEXTS:
            self._drop_texts()

    def text_codes(self, texts: Sequence[str]) -> npt.NDArray[np.int16]:
        """The number of each text, the next free one for a new text, `OTHER_TEXT` where there are too many."""
        codes = np.empty(len(texts), np.int16)
        for place, text in enumerate(texts):
            code = self.texts.get(text)
            if code is None:
                code = OTHER_TEXT if len(self.texts) >= MAX_TEXTS else len(self.texts)
                if code >= 0:
                    self.texts[text] = code
            codes[place] = code
        return codes

    def _drop_texts(self) -> None:
        """Frees the numbers of texts that no row has any more."""
        held = [sample.rows[name] for sample in self.arms.values() for name in ("said", "label_text")]
        used = np.unique(np.concatenate([*held, self.recent["label_text"]]))
        kept = [text for text, code in self.texts.items() if code in set(used.tolist())]
        renamed = np.full(len(self.texts) + 2, OTHER_TEXT, np.int16)  # the last two places are those of -2 and -1
        renamed[-1] = NO_TEXT
        for place, text in enumerate(kept):
            renamed[self.texts[text]] = place
        self.texts = {text: place for place, text in enumerate(kept)}
        for sample in self.arms.values():
            for name in ("said", "label_text"):
                sample.rows[name] = renamed[sample.rows[name]]
        self.recent["label_text"] = renamed[self.recent["label_text"]]


class _SavedArm(msgspec.Struct, array_like=True):
    version: str
    arm: str
    shadow: bool
    level: int
    width: int
    rows: bytes


class _Saved(msgspec.Struct):
    model: str
    texts: list[str]
    recent: bytes
    arms: list[_SavedArm]
    format: int = 1


def pack(model: str, sample: PerformanceSample) -> bytes:
    """Returns the bytes that `unpack` reads back."""
    arms = [
        _SavedArm(arm.version, arm.arm, arm.shadow, one.level, one.width, one.rows.tobytes())
        for arm, one in sample.arms.items()
    ]
    return msgspec.msgpack.encode(_Saved(model, list(sample.texts), sample.recent.tobytes(), arms))


def unpack(data: bytes) -> tuple[str, PerformanceSample]:
    """Raises: ValueError (not written by `pack`, or by another release)."""
    saved = msgspec.msgpack.decode(data, type=_Saved)
    if saved.format != 1:
        raise ValueError(f"format is {saved.format}, expected 1")
    arms = {}
    for one in saved.arms:
        rows = np.frombuffer(one.rows, row_type(one.width)).copy()
        if (rows["key"][1:] <= rows["key"][:-1]).any() or not 0 <= one.level < 64:
            raise ValueError(f"the sample of arm {one.arm!r} is not in order")
        arms[LoggedArm(one.version, one.arm, one.shadow)] = ArmSample(rows, one.level)
    texts = {text: code for code, text in enumerate(saved.texts)}
    return saved.model, PerformanceSample(arms, texts, np.frombuffer(saved.recent, LABEL).copy())


def _fields(kind: np.dtype[np.void]) -> list[Any]:
    return [(name, kind[name]) for name in kind.names or ()]
