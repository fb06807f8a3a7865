"""Tells where files of the lake lie: folders that every reader of Hive layouts can open as they are.

predictions/model_dir=<model>/version_dir=v<version>/date=YYYY-MM-DD/hour=HH/<name>.parquet
labels/model_dir=<model>/date=YYYY-MM-DD/<name>.parquet

No key of a folder is the name of a column in the files, or readers would find it twice, with another type; the "v"
keeps readers from taking versions for numbers. Files of earlier releases lie below `model=<model>/version=<version>`
and `feedback/model=<model>`; they are read and expire like all others.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import quote, unquote

PREDICTIONS = "predictions"
LABELS = "labels"
_DAY = r"date=(?P<day>\d{4}-\d\d-\d\d)"
_HOUR = r"hour=(?P<hour>\d\d)"
_NAME = r"(?P<stem>[^/]+)\.parquet"
_FORMS = tuple(
    re.compile(f"{form}/{_NAME}")
    for form in (
        rf"(?P<kind>{PREDICTIONS})/model_dir=(?P<model>[^/]+)/version_dir=v(?P<version>[^/]+)/{_DAY}/{_HOUR}",
        rf"(?P<kind>{LABELS})/model_dir=(?P<model>[^/]+)/{_DAY}",
        rf"model=(?P<model>[^/]+)/version=(?P<version>[^/]+)/{_DAY}/{_HOUR}",
        rf"(?P<kind>feedback)/model=(?P<model>[^/]+)/{_DAY}",
    )
)


@dataclass(frozen=True, slots=True)
class LakePath:
    """Tells what the path of a file says. `hour` is None of labels, whose `version` is ""."""

    model: str
    version: str
    day: str
    hour: int | None
    stem: str


def predictions_folder(model: str, version: str) -> str:
    """Returns the folder of a version's rows, below the lake."""
    return f"{PREDICTIONS}/model_dir={quote(model, safe='')}/version_dir=v{quote(version, safe='')}"


def labels_folder(model: str) -> str:
    """Returns the folder of a model's labels, below the lake."""
    return f"{LABELS}/model_dir={quote(model, safe='')}"


def parse(path: str) -> LakePath | None:
    """Returns what the path of a file below the lake says; None where it is no file of rows or labels."""
    for form in _FORMS:
        if (match := form.fullmatch(path)) is not None:
            parts = match.groupdict()
            hour = parts.get("hour")
            version = unquote(parts.get("version") or "")
            return LakePath(unquote(parts["model"]), version, parts["day"], int(hour) if hour else None, parts["stem"])
    return None


def prediction_paths(lake: Path, *, model: str | None = None) -> Iterator[tuple[Path, LakePath]]:
    """Yields the files with rows, of one model or of all. Links, pipes and folders are none, whatever their names."""
    return _files(_prediction_entries(lake, model))


def label_paths(lake: Path, *, model: str | None = None) -> Iterator[tuple[Path, LakePath]]:
    """Yields the files with labels, of one model or of all."""
    return _files(_label_entries(lake, model))


def every_entry(lake: Path) -> Iterator[Path]:
    """Yields whatever lies where rows and labels do under the name of a file, of any kind."""
    for path, _ in chain(_prediction_entries(lake, None), _label_entries(lake, None)):
        yield path


def _prediction_entries(lake: Path, model: str | None) -> Iterator[tuple[Path, LakePath]]:
    name = "*" if model is None else quote(model, safe="")
    yield from _matching(lake, f"{PREDICTIONS}/model_dir={name}/version_dir=v*/date=*/hour=*/*.parquet")
    yield from _matching(lake, f"model={name}/version=*/date=*/hour=*/*.parquet")


def _label_entries(lake: Path, model: str | None) -> Iterator[tuple[Path, LakePath]]:
    name = "*" if model is None else quote(model, safe="")
    yield from _matching(lake, f"{LABELS}/model_dir={name}/date=*/*.parquet")
    yield from _matching(lake, f"feedback/model={name}/date=*/*.parquet")


def _files(entries: Iterable[tuple[Path, LakePath]]) -> Iterator[tuple[Path, LakePath]]:
    for path, parsed in entries:
        try:
            regular = stat.S_ISREG(path.lstat().st_mode)
        except OSError:  # merged or expired since
            continue
        if regular:
            yield path, parsed


def has_model(lake: Path, model: str) -> bool:
    """Returns whether rows of the model were ever logged and not all have expired."""
    name = quote(model, safe="")
    return (lake / PREDICTIONS / f"model_dir={name}").is_dir() or (lake / f"model={name}").is_dir()


def _matching(lake: Path, pattern: str) -> Iterator[tuple[Path, LakePath]]:
    for path in lake.glob(pattern):
        if (parsed := parse(path.relative_to(lake).as_posix())) is not None:
            yield path, parsed
