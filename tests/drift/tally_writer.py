"""Counts segments for ever, each one row: prepares, names it in a manifest, commits; saves after every third.

Usage: python -m tests.drift.tally_writer DIRECTORY. Goes on where an earlier one was killed.
"""

import os
import sys
from pathlib import Path

from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.tally_store import Book, Part, Subject, TallyStore
from gateway.drift.online.windows import CellLayout, Tally

SUBJECTS = (Subject("m", "version/1"), Subject("m", "version/2"))
LAYOUT = CellLayout("1", ())
ARM = LoggedArm("1", "a", False)


def recovered(directory: Path) -> tuple[TallyStore, dict[Subject, Book], list[str]]:
    """The store, its books, and the segments that the manifest names."""
    manifest = directory / "manifest"
    done = manifest.read_text().splitlines() if manifest.exists() else []
    store = TallyStore(directory / "state")
    return store, store.recover(lambda _: LAYOUT, set(done).__contains__), done


def rows(books: dict[Subject, Book]) -> list[int]:
    """The rows of each subject."""
    return [books[subject].series[ARM].sum(0, 86400).rows if subject in books else 0 for subject in SUBJECTS]


def one_row() -> Tally:
    tally = Tally.empty(LAYOUT)
    tally.sums[0] = 1
    return tally


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    store, books, done = recovered(directory)
    number = len(done)
    with (directory / "manifest").open("a", buffering=1) as manifest:
        while True:
            # The second subject is in every other segment, so that its file is written less often.
            parts = [Part(one, LAYOUT, {(ARM, 60): one_row()}) for one in SUBJECTS[: 1 + number % 2]]
            segment = f"s{number}"
            store.prepare(segment, parts)
            if number % 5 == 0:  # saved while a segment is on its way
                store.checkpoint(list(books.values()), {segment: parts})
            os.write(manifest.fileno(), f"{segment}\n".encode())
            for part in parts:
                books.setdefault(part.subject, Book(part.subject, LAYOUT)).add(ARM, 60, one_row())
            if number % 3 == 0:
                store.checkpoint(list(books.values()), {})
            number += 1
            print(number, flush=True)
