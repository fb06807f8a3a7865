"""Files that a compactor published of a segment and died before the manifest had a line about them.

The segment is compacted again. Its files then replace these where they have the same names; another release may have
given them other names, or put them into other folders, and then the rows would be in the lake twice.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.records.lake.merging import pending_names, segment_of
from gateway.records.lake.retention import StoredFile, lake_files, remove
from gateway.records.worker.segment import LogEntry


def unlisted(
    files: Iterable[StoredFile], lake: Path, pending: Collection[str], listed: Collection[str]
) -> list[StoredFile]:
    """Returns the files that are of a segment which is still to be compacted, and are in no line of the manifest.

    `pending` are the beginnings of names (`pending_names`), `listed` the paths below the lake that lines name.
    """
    return [
        file
        for file in files
        if segment_of(file.path) in pending and file.path.relative_to(lake).as_posix() not in listed
    ]


def sweep(lake: Path, waiting: Iterable[LogEntry], lines: Iterable[Mapping[str, Any]]) -> int:
    """Removes them; how many there were. Nothing is lost: the segment has the rows.

    Order: before the first segment is compacted, when nobody else publishes.
    """
    pending = pending_names(waiting)
    if not pending:
        return 0
    listed = {str(file["path"]) for line in lines for file in line.get("files", ())}
    return remove(unlisted(lake_files(lake), lake, pending, listed), up_to=lake)
