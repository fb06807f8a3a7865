"""The files beside a version that its load needs, read once: where a source is slow, only what reads it waits."""

from collections.abc import Mapping
from dataclasses import replace

from gateway.serving.candidate import Candidate
from gateway.serving.kept_files import named_files
from gateway.serving.provenance import MAX_RECORD_BYTES, record_name
from gateway.serving.repository import MAX_SIDE_FILE_BYTES, ReadLimited
from loaders.errors import LoaderError


def reading_once(candidate: Candidate) -> Candidate:
    """Returns the candidate with its files read once, each when it is first asked for, or by `read_ahead`."""
    return replace(candidate, folder=replace(candidate.folder, read_file=_FilesReadOnce(candidate.folder.read_file)))


def read_ahead(candidate: Candidate) -> None:
    """Reads what a load of the candidate asks for; a failure shows where that file is asked for."""
    limits: Mapping[str, int] = dict.fromkeys(named_files(candidate.source), MAX_SIDE_FILE_BYTES)
    for name, limit in {**limits, record_name(candidate.version): MAX_RECORD_BYTES}.items():
        try:
            candidate.folder.read_file(name, limit)
        except LoaderError:
            continue


class _FilesReadOnce:
    """Reads files below a model's directory; one that was asked for before gives what it gave then."""

    def __init__(self, read_file: ReadLimited) -> None:
        self._read_file = read_file
        self._read: dict[tuple[str, int], bytes | LoaderError] = {}

    def __call__(self, name: str, limit: int) -> bytes:
        outcome = self._read.get((name, limit))
        if outcome is None:
            try:
                outcome = self._read_file(name, limit)
            except LoaderError as error:
                outcome = error
            self._read[name, limit] = outcome
        if isinstance(outcome, LoaderError):
            raise outcome
        return outcome
