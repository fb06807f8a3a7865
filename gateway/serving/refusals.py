"""The runs that this worker must refuse: the supervisor's quarantine, as requests meet it."""

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from time import time

from gateway.errors import FailedPrecondition, GatewayError, VersionNotReady
from gateway.serving.run_page import VersionKey
from gateway.serving.run_quarantine import Quarantined, QuarantineFile


class Refusals:
    """Holds the refusals; they are read again when the number on the shared page changes (a check costs under 0.1 us).

    `active` is False while nothing is refused, which is nearly always.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Without a directory, or without the supervisor's files in it, nothing is ever refused."""
        self.active = False
        self._file = QuarantineFile(directory) if directory is not None else None
        self._versions: dict[VersionKey, Quarantined] = {}
        self.number = memoryview(bytes(8)).cast("Q")
        self.seen = 0
        if self._file is not None and self._file.number_path.exists():
            descriptor = os.open(self._file.number_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.number = memoryview(mmap.mmap(descriptor, 8, prot=mmap.PROT_READ)).cast("Q")
            finally:
                os.close(descriptor)
            self.follow()

    def follow(self) -> bool:
        """Reads the document if it has changed; returns whether it had."""
        number: int = self.number[0]
        if number == self.seen or self._file is None:
            return False
        self.seen = number
        self._versions = {version.key: version for version in self._file.read()}
        self.active = bool(self._versions)
        return True

    @property
    def versions(self) -> list[Quarantined]:
        return list(self._versions.values())

    def deaths(self, key: VersionKey) -> Sequence[float]:
        """Returns when workers died of the version within the last minute before the newest death."""
        version = self._versions.get(key)
        return version.died_at_s if version is not None else ()

    def of_version(self, key: VersionKey) -> GatewayError | None:
        """Returns why the version must not run at all; None if it may."""
        version = self._versions.get(key)
        if version is None or version.until_s <= time():
            return None
        left_s = version.until_s - time()
        return VersionNotReady(
            key.model,
            key.version,
            f"quarantined for another {left_s:.0f} s: {len(version.died_at_s)} workers died of it within a minute "
            f"({version.cause}); load the model again to release it",
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
            if version.inputs.get(digest, 0.0) > time():
                return FailedPrecondition(
                    f"this request is refused: a worker was {version.cause} while it ran these inputs on model "
                    f"{version.model!r} version {version.version!r} (input {digest:016x}); load the model again to "
                    "release it"
                )
        return None

    def is_suspect(self, key: VersionKey, digest: int) -> bool:
        """Returns whether the inputs were part of a run that a worker died of, and have to run alone."""
        version = self._versions.get(key)
        return version is not None and version.suspects.get(digest, 0.0) > time()
