"""Tallies on disk, each segment of the log in them exactly once.

    journal: what a segment adds -> the segment is done, says the manifest -> in memory -> now and then all to files

A segment's tallies are in the journal before the manifest names the segment, so after a kill the manifest decides: what
it names is added, what it does not name will be counted again. A file of tallies says from which journal on it lacks
segments; journals before that are deleted after every file is written.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.windows import CellLayout, Tally, TallySeries, stacked, unstacked
from gateway.records.worker.frame import Frame, frame, scan
from gateway.records.worker.segment import sync_content, sync_directory

_SEED: Final = 0x64726966
_JOURNAL: Final = "journal-"
_SUFFIX: Final = ".tally"
_DAMAGED: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, zlib.error)


class _Part(msgspec.Struct):
    model: str
    subject: str
    layout: str
    keys: list[tuple[str, str, bool, int]]  # version, arm, shadow, minute


class _Entry(msgspec.Struct):
    """Tells what a segment adds, before the arrays of its tallies, whose types and shapes it has."""

    segment: str
    parts: list[_Part]
    arrays: list[tuple[str, tuple[int, ...]]] = msgspec.field(name="~arrays")


class _Header(msgspec.Struct):
    """A book, before the arrays of its tallies, whose types and shapes it has."""

    generation: int
    model: str
    subject: str
    layout: str
    series: list[tuple[str, str, bool, int, list[int]]]  # version, arm, shadow, length of the buckets, their starts
    arrays: list[tuple[str, tuple[int, ...]]] = msgspec.field(name="~arrays")


_Head = TypeVar("_Head", _Entry, _Header)


class Subject(NamedTuple):
    """Names what a book is about: the drift of a version, "version/2"; the outputs of all arms, "arms"; pairs of
    answers of mirrors and of those who served, "pairs"."""

    model: str
    name: str


@dataclass(slots=True)
class Book:
    """The tallies of one subject, in one layout; `generation` is the first journal that may hold more.

    `oldest_s` is the oldest minute that was added to since somebody looked.
    """

    subject: Subject
    layout: CellLayout
    generation: int = 0
    series: dict[LoggedArm, TallySeries] = field(default_factory=dict)
    dirty: bool = False
    oldest_s: float = float("inf")

    def add(self, arm: LoggedArm, minute_s: int, tally: Tally) -> None:
        if arm not in self.series:
            self.series[arm] = TallySeries(self.layout)
        self.series[arm].add(minute_s, tally)
        self.dirty = True
        self.oldest_s = min(self.oldest_s, minute_s)

    def drop_silent(self, before_s: float) -> None:
        """Forgets the arms that had no row since then."""
        for arm in [arm for arm, series in self.series.items() if series.last_s() < before_s]:
            del self.series[arm]
            self.dirty = True


@dataclass(frozen=True, slots=True)
class Part:
    """Tells what a segment adds to one book."""

    subject: Subject
    layout: CellLayout
    tallies: Mapping[tuple[LoggedArm, int], Tally]


class TallyStore:
    """The files of one folder; used by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._generation = 0
        self._journal: int | None = None
        self.damaged = 0

    def recover(
        self, layout_of: Callable[[Subject], CellLayout | None], is_done: Callable[[str], bool]
    ) -> dict[Subject, Book]:
        """Returns the books as they were when the last segment was done.

        Those whose bins are no longer in use are left behind: `layout_of` says which are.
        """
        books = {book.subject: book for book in self._books(layout_of)}
        entries: dict[str, tuple[int, _Entry, list[npt.NDArray[Any]]]] = {}
        for generation in self._journals():
            for entry, arrays in self._records(self._journal_path(generation), _Entry):
                entries[entry.segment] = (generation, entry, arrays)
            self._generation = max(self._generation, generation)
        for segment, (generation, entry, arrays) in entries.items():
            if is_done(segment):
                try:
                    self._replay(books, generation, entry, arrays, layout_of)
                except _DAMAGED:
                    self.damaged += 1
        return books

    def prepare(self, segment: str, parts: Sequence[Part]) -> None:
        """Order: durable when this returns; the segment may be named in the manifest.

        Raises: OSError.
        """
        if self._journal is None:
            self._open()
        assert self._journal is not None
        os.write(self._journal, _entry(segment, parts))
        sync_content(self._journal)

    def checkpoint(self, books: Sequence[Book], pending: Mapping[str, Sequence[Part]]) -> None:
        """Writes the books that changed; `pending` are segments that were prepared and are not yet done.

        Order: a kill at any moment leaves files and journals that `recover` makes the same books of.
        Raises: OSError (what could not be written is written next time).
        """
        self._generation += 1
        self._open()
        for segment, parts in pending.items():
            self.prepare(segment, parts)
        for book in books:
            if book.dirty:
                self._write(book)
        for generation in self._journals():
            if generation < self._generation:
                self._journal_path(generation).unlink(missing_ok=True)

    def forget(self, subject: Subject) -> None:
        """Deletes the file of a book that is no longer kept."""
        self._path(subject).unlink(missing_ok=True)

    def close(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _open(self) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._journal_path(self._generation)
        self._journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        sync_directory(self._folder)

    def _write(self, book: Book) -> None:
        path = self._path(book.subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".new")
        with staged.open("wb") as file:
            file.write(_book_bytes(book, self._generation))
            file.flush()
            os.fsync(file.fileno())
        os.rename(staged, path)
        sync_directory(path.parent)
        book.generation, book.dirty = self._generation, False

    def _books(self, layout_of: Callable[[Subject], CellLayout | None]) -> Iterator[Book]:
        for path in sorted(self._folder.glob(f"*/*{_SUFFIX}")):
            for header, arrays in self._records(path, _Header):
                try:
                    subject = Subject(header.model, header.subject)
                    layout = layout_of(subject)
                    self._generation = max(self._generation, header.generation)
                    if layout is None or layout.key != header.layout:
                        path.unlink(missing_ok=True)
                    else:
                        yield _book(subject, layout, header, arrays)
                except _DAMAGED:
                    self.damaged += 1

    def _replay(
        self,
        books: dict[Subject, Book],
        generation: int,
        entry: _Entry,
        arrays: Sequence[npt.NDArray[Any]],
        layout_of: Callable[[Subject], CellLayout | None],
    ) -> None:
        for index, part in enumerate(entry.parts):
            subject = Subject(part.model, part.subject)
            layout = layout_of(subject)
            if layout is None or layout.key != part.layout:
                continue
            book = books.setdefault(subject, Book(subject, layout))
            if generation < book.generation:
                continue
            tallies = unstacked(arrays[4 * index : 4 * index + 4], layout)
            for (version, arm, shadow, minute_s), tally in zip(part.keys, tallies, strict=True):
                book.add(LoggedArm(version, arm, shadow), minute_s, tally)

    def _records(self, path: Path, kind: type[_Head]) -> Iterator[tuple[_Head, list[npt.NDArray[Any]]]]:
        try:
            data = path.read_bytes()
        except OSError:
            return
        for piece in scan(data, seed=_SEED):
            if isinstance(piece, Frame):
                try:
                    yield _unpacked(piece.body, kind)
                except _DAMAGED:
                    self.damaged += 1
            elif not piece.torn:
                self.damaged += 1

    def _journals(self) -> list[int]:
        stems = [path.stem.removeprefix(_JOURNAL) for path in self._folder.glob(f"{_JOURNAL}*.log")]
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())

    def _journal_path(self, generation: int) -> Path:
        return self._folder / f"{_JOURNAL}{generation:012d}.log"

    def _path(self, subject: Subject) -> Path:
        # "=" keeps "." and ".." from being folders of the system's.
        return self._folder / f"model={quote(subject.model, safe='')}" / f"{quote(subject.name, safe='')}{_SUFFIX}"


def _entry(segment: str, parts: Sequence[Part]) -> bytes:
    arrays: list[npt.NDArray[Any]] = []
    described = []
    for part in parts:
        arrays += stacked(list(part.tallies.values()), part.layout)
        keys = [(arm.version, arm.arm, arm.shadow, minute_s) for arm, minute_s in part.tallies]
        described.append(_Part(part.subject.model, part.subject.name, part.layout.key, keys))
    return _packed(_Entry(segment, described, _shapes(arrays)), arrays)


def _book_bytes(book: Book, generation: int) -> bytes:
    described, tallies = [], []
    for arm, series in book.series.items():
        for length_s, buckets in series.buckets.items():
            described.append((arm.version, arm.arm, arm.shadow, length_s, list(buckets)))
            tallies += list(buckets.values())
    arrays = stacked(tallies, book.layout)
    subject = book.subject
    header = _Header(generation, subject.model, subject.name, book.layout.key, described, _shapes(arrays))
    return _packed(header, arrays)


def _book(subject: Subject, layout: CellLayout, header: _Header, arrays: Sequence[npt.NDArray[Any]]) -> Book:
    book = Book(subject, layout, header.generation)
    tallies = iter(unstacked(arrays, layout))
    for version, arm, shadow, length_s, starts in header.series:
        series = book.series.setdefault(LoggedArm(version, arm, shadow), TallySeries(layout))
        series.buckets[length_s] = {start_s: next(tallies) for start_s in starts}
    return book


def _shapes(arrays: Sequence[npt.NDArray[Any]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(array.dtype.str, array.shape) for array in arrays]


def _packed(header: _Entry | _Header, arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    head = msgspec.json.encode(header)
    body = b"".join([struct.pack("<I", len(head)), head, *(array.tobytes() for array in arrays)])
    return frame(zlib.compress(body, 1), seed=_SEED)


def _unpacked(body: memoryview, kind: type[_Head]) -> tuple[_Head, list[npt.NDArray[Any]]]:
    data = zlib.decompress(body)
    (size,) = struct.unpack_from("<I", data)
    header = msgspec.json.decode(data[4 : 4 + size], type=kind)
    arrays, position = [], 4 + size
    for dtype, shape in header.arrays:
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(data, np.dtype(dtype), count, position).reshape(shape)
        position += array.nbytes
        arrays.append(array)
    return header, arrays
