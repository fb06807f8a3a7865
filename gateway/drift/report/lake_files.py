"""Tells which Parquet files of the lake hold the rows of a model, some versions and a span of time; found by their
paths."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.drift.report.span import DAY_US, Span
from gateway.records.lake.layout import label_paths, prediction_paths

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True, order=True)
class LakeFile:
    """A file. `shape` tells the columns that its tensors became."""

    model: str
    version: str
    shape: str
    start_us: int
    end_us: int
    path: str

    def may_hold(self, versions: Collection[str], span: Span) -> bool:
        """Returns whether rows of these versions (any, where none is named) and of this time can be in it."""
        return (
            self.start_us < span.end_us and self.end_us > span.start_us and (not versions or self.version in versions)
        )


def prediction_files(lake: Path, *, model: str | None = None) -> list[LakeFile]:
    """Returns the files of predictions, by model, version, shape and time."""
    files = []
    for path, parsed in prediction_paths(lake, model=model):
        day_us = _day_us(parsed.day)
        if day_us is None or parsed.hour is None:
            continue
        start_us = day_us + parsed.hour * _HOUR_US
        shape = parsed.stem.rpartition("-")[2]
        files.append(LakeFile(parsed.model, parsed.version, shape, start_us, start_us + _HOUR_US, str(path)))
    return sorted(files)


def feedback_files(lake: Path, *, model: str | None = None) -> list[LakeFile]:
    """Returns the files of labels and rewards, by model and day of receipt."""
    days = [(str(path), parsed.model, _day_us(parsed.day)) for path, parsed in label_paths(lake, model=model)]
    return sorted(
        LakeFile(name, "", "", day_us, day_us + DAY_US, path) for path, name, day_us in days if day_us is not None
    )


def by_schema(files: Sequence[LakeFile]) -> list[list[LakeFile]]:
    """The files in groups of one model, version and shape, each by time."""
    groups: dict[tuple[str, str, str], list[LakeFile]] = {}
    for file in files:
        groups.setdefault((file.model, file.version, file.shape), []).append(file)
    return list(groups.values())


def _day_us(text: str) -> int | None:
    """The beginning of a day, None where there is no such day."""
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000
    except ValueError:
        return None
