"""Tells where the files of a version are on this host: in the model repository, or as the gateway's verified copy."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import FailedPrecondition, UnknownVersion
from gateway.serving.candidate import Candidate
from gateway.serving.config_source import ConfigSource, parse_json
from gateway.serving.intents import IntentStore
from gateway.serving.kept_files import kept_folder, named_files
from gateway.serving.model_policy import Policy
from gateway.serving.probe import ProbeRequest
from gateway.serving.repository import MAX_SIDE_FILE_BYTES, ModelFolder, ModelRepository
from loaders.errors import LoaderError, SourceNotFound
from loaders.loader import Loader, LocalVersion
from loaders.schemes import LoaderSettings, open_loader
from loaders.store import ContentStore

PROBE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """A version that can be run: what to run, and the files beside its versions that the configuration names."""

    candidate: Candidate
    probe: ProbeRequest
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Returns the digest of the content."""
        return self.probe.local.digest


class VersionSource:
    """Finds versions as the gateway of this data directory would load them. Every method blocks.

    `repository` is the URI of the model repository; without one only what a route has pinned can be found.
    Raises: FailedPrecondition (there is no such data directory, or it is another user's), LoaderError.
    """

    def __init__(self, data_dir: Path, repository: str = "", links_to: Sequence[Path] = ()) -> None:
        if not data_dir.is_dir():
            raise FailedPrecondition(f"there is no data directory {str(data_dir)!r}: name the gateway's own")
        owner = data_dir.stat().st_uid
        if owner != os.geteuid():  # copies and locks that are made here must be the gateway's to use
            raise FailedPrecondition(
                f"the data directory {str(data_dir)!r} is that of the user with the id {owner}: run this as that user"
            )
        self._store = ContentStore(data_dir / "content")
        self._loader = open_loader(LoaderSettings(repository, self._store, links_to)) if repository else None
        self._intents = IntentStore(data_dir / "state").read()

    def find(self, model: str, version: str, *, digest: str = "", threads: int = 1) -> VersionFiles:
        """Returns the version; with a `digest` with exactly that content, although its directory may have changed.

        Raises: UnknownVersion (it is nowhere), FailedPrecondition, LoaderError.
        """
        folder, there = self._folder(model, version)
        override = self._intents.overrides.get(model)
        source = parse_json(override) if override is not None else folder.source
        candidate = Candidate(folder, version, source, "")
        candidate.check()
        candidate.check_runs_alone()
        pin = digest or ("" if there else self._intents.pins.get(model, {}).get(version, ""))
        local = self._local(candidate, pin, self._loader if there else None)
        request = candidate.request(local, intra_threads=threads, policy=Policy(), timeout_s=PROBE_S)
        return VersionFiles(candidate, request, files_beside(folder, source))

    def _folder(self, model: str, version: str) -> tuple[ModelFolder, bool]:
        """Returns the model, and whether the repository has the version."""
        folder = ModelRepository(self._loader).look(model) if self._loader is not None else None
        if folder is not None:
            return folder, version in folder.versions
        kept = kept_folder(self._store, model, self._intents.kept.get(model, ""))
        if kept is None:
            where = "the repository has no such model" if self._loader is not None else "no --model-repository is given"
            raise UnknownVersion(model, version, f"{where}, and no route keeps a copy of it")
        return kept, False

    def _local(self, candidate: Candidate, digest: str, loader: Loader | None) -> LocalVersion:
        model, version = candidate.model, candidate.version
        if loader is not None:
            return loader.fetch(model, version, digest=digest or None)
        if not digest:
            raise UnknownVersion(model, version)
        local = self._store.get(digest)
        if local is None:
            raise FailedPrecondition(
                f"model {model!r} version {version!r}: its directory is gone, and the content store of this host has "
                f"no copy {digest[:12]} of it any more"
            )
        return local


def version_files(loader: Loader, model: str, version: str, *, threads: int = 1) -> VersionFiles:
    """Returns a version of any repository. Raises: UnknownVersion, FailedPrecondition, LoaderError."""
    folder = ModelRepository(loader).look(model)
    if folder is None or version not in folder.versions:
        raise UnknownVersion(model, version)
    candidate = Candidate(folder, version, folder.source, "")
    candidate.check()
    candidate.check_runs_alone()
    request = candidate.request(loader.fetch(model, version), intra_threads=threads, policy=Policy(), timeout_s=PROBE_S)
    return VersionFiles(candidate, request, files_beside(folder, folder.source))


def files_beside(folder: ModelFolder, source: ConfigSource) -> dict[str, bytes]:
    """Returns the files beside the versions that the configuration names, as far as they are there."""
    files = {}
    for name in sorted(named_files(source)):
        try:
            files[name] = folder.read_file(name, MAX_SIDE_FILE_BYTES)
        except SourceNotFound:
            continue  # opening the version says so
        except LoaderError as error:
            raise FailedPrecondition(str(error)) from error
    return files
