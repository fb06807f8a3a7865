"""The runs that this worker must refuse: the supervisor's quarantine, as requests meet it."""

import logging
import mmap
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Final

from gateway.errors import FailedPrecondition, GatewayError, VersionNotReady
from gateway.serving.run_page import VersionKey, page_path, unfinished_runs
from gateway.serving.run_quarantine import Quarantined, QuarantineFile
from gateway.serving.worker_lives import WorkerLives

VERDICT_NS: Final = 2_000_000_000
_log = logging.getLogger(__name__)


class Refusals:
    """Holds the refusals; they are read again when the watched memory is not as it was seen (a look costs 0.1 us).

    `active` is False while nothing is refused or held back, which is nearly always.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Without a directory, or without the supervisor's files in it, nothing is ever refused."""
        self.active = False
        self._file = QuarantineFile(directory) if directory is not None else None
        self._directory = directory
        self._versions: dict[VersionKey, Quarantined] = {}
        self._unexamined: dict[str, dict[VersionKey, frozenset[int]]] = {}
        self._died_ns: dict[str, int] = {}
        self._number = b""
        self.lives: WorkerLives | None = None
        self.memory: mmap.mmap | bytes = b""
        self.watched = slice(0, 0)
        self.seen = b""
        if self._file is not None and self._file.number_path.exists():
            try:
                self.lives = WorkerLives(self._file.number_path)
            except OSError as error:
                _log.warning("what others die of is not known here: %s", error)
                return
            self.memory, self.watched = self.lives.memory, self.lives.watched
            self.follow()

    def follow(self) -> bool:
        """Reads the document and the pages of dead siblings if anything has changed; returns whether it had."""
        seen = bytes(self.memory[self.watched])
        if seen == self.seen or self._file is None or self.lives is None:
            return False
        self.seen = seen
        if seen[:8] != self._number:
            self._number = seen[:8]
            self._versions = {version.key: version for version in self._file.read()}
        self._look_at(self.lives.dead())
        self.active = bool(self._versions) or bool(self._unexamined)
        return True

    def _look_at(self, dead: Sequence[str]) -> None:
        """Reads what siblings were running when they died, and forgets those that the supervisor has examined."""
        for boot in [boot for boot in self._unexamined if boot not in dead]:
            del self._unexamined[boot], self._died_ns[boot]
        for boot in dead:
            if boot in self._unexamined or self._directory is None:
                continue
            runs: dict[VersionKey, frozenset[int]] = {}
            for run in unfinished_runs(page_path(self._directory, boot)):
                runs[run.key] = runs.get(run.key, frozenset()) | frozenset(run.inputs)
            if runs:
                self._unexamined[boot], self._died_ns[boot] = runs, monotonic_ns()

    def awaits_verdict(self, key: VersionKey, digest: int, *, substitute: bool = False) -> bool:
        """Returns whether a sibling was running these inputs when it died, and nobody has said yet what of.

        `substitute` as in `of_input`. It lasts for milliseconds, and at most 2 s: a supervisor may be gone.
        """
        for boot, runs in self._unexamined.items():
            if monotonic_ns() - self._died_ns[boot] > VERDICT_NS:
                continue
            for own, digests in runs.items():
                if digest in digests and (own == key or (substitute and own.model == key.model)):
                    return True
        return False

    @property
    def versions(self) -> list[Quarantined]:
        return list(self._versions.values())

    def charge(self, key: VersionKey) -> str:
        """Returns why the version must not run at all; "" if it may."""
        version = self._versions.get(key)
        return version.charge if version is not None and version.until_s > monotonic() else ""

    def of_version(self, key: VersionKey) -> GatewayError | None:
        """Returns the refusal of a version that must not run at all; None if it may."""
        version = self._versions.get(key)
        if version is None or version.until_s <= monotonic():
            return None
        left_s = version.until_s - monotonic()
        return VersionNotReady(
            key.model,
            key.version,
            f"quarantined for another {left_s:.0f} s: {version.charge}; load the model again to release it",
        )

    def of_input(self, key: VersionKey, digest: int, *, substitute: bool = False) -> GatewayError | None:
        """Returns why the version must not run these inputs; None if it may.

        `substitute`: the version stands in for another one of the model, which may have been quarantined for just
        these inputs: they must not go down the chain from worker to worker.
        """
        if substitute:
            suspects = [version for version in self._versions.values() if version.model == key.model]
        else:
            suspects = [self._versions[key]] if key in self._versions else []
        for version in suspects:
            if version.inputs.get(digest, 0.0) > monotonic():
                return FailedPrecondition(
                    f"this request is refused: a worker was {version.cause} while it ran these inputs on model "
                    f"{version.model!r} version {version.version!r} (input {digest:016x}); load the model again to "
                    "release it"
                )
        return None

    def is_suspect(self, key: VersionKey, digest: int) -> bool:
        """Returns whether the inputs were part of a run that a worker died of, and have to run alone."""
        version = self._versions.get(key)
        return version is not None and version.suspects.get(digest, 0.0) > monotonic()
