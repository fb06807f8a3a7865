"""Which Parquet files of the lake hold the rows of a model, some versions and a span of time; found by their paths."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from gateway.drift.report.span import DAY_US, Span

_HOUR_US = 3_600_000_000
_PREDICTIONS = re.compile(r"model=([^/]+)/version=([^/]+)/date=(\d{4}-\d\d-\d\d)/hour=(\d\d)/([^/]+)\.parquet")
_FEEDBACK = re.compile(r"feedback/model=([^/]+)/date=(\d{4}-\d\d-\d\d)/([^/]+)\.parquet")


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
        """Whether rows of these versions (any, where none is named) and of this time can be in it."""
        return (
            self.start_us < span.end_us and self.end_us > span.start_us and (not versions or self.version in versions)
        )


def prediction_files(lake: Path, *, model: str | None = None) -> list[LakeFile]:
    """The files of predictions, by model, version, shape and time."""
    folder = f"model={quote(model, safe='')}" if model is not None else "model=*"
    files = []
    for path in lake.glob(f"{folder}/version=*/date=*/hour=*/*.parquet"):
        match = _PREDICTIONS.fullmatch(path.relative_to(lake).as_posix())
        day_us = _day_us(match[3]) if match is not None else None
        if match is None or day_us is None:
            continue
        version = unquote(match[2])
        start_us = day_us + int(match[4]) * _HOUR_US
        shape = match[5].rpartition("-")[2]
        files.append(LakeFile(unquote(match[1]), version, shape, start_us, start_us + _HOUR_US, str(path)))
    return sorted(files)


def feedback_files(lake: Path, *, model: str | None = None) -> list[LakeFile]:
    """The files of labels and rewards, by model and day of receipt."""
    folder = f"model={quote(model, safe='')}" if model is not None else "model=*"
    files = []
    for path in lake.glob(f"feedback/{folder}/date=*/*.parquet"):
        match = _FEEDBACK.fullmatch(path.relative_to(lake).as_posix())
        day_us = _day_us(match[2]) if match is not None else None
        if match is not None and day_us is not None:
            files.append(LakeFile(unquote(match[1]), "", "", day_us, day_us + DAY_US, str(path)))
    return sorted(files)


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
