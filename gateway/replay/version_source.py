"""Tells where the files of a version are on this host: in the model repository, or as the gateway's verified copy."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.errors import FailedPrecondition, UnknownVersion
from gateway.replay.run_files import (
    IN_A_STORE,
    NEWEST,
    EnsembleFiles,
    FindStep,
    LookUpFiles,
    RunFiles,
    VersionFiles,
    ensemble_files,
    look_up_files,
)
from gateway.serving.candidate import Candidate
from gateway.serving.config_source import ConfigSource, parse_json
from gateway.serving.ensemble_loads import LOG_STEPS
from gateway.serving.intents import IntentStore
from gateway.serving.kept_files import kept_folder, named_files
from gateway.serving.model_config import version_order
from gateway.serving.model_kind import ModelKind
from gateway.serving.model_policy import Policy
from gateway.serving.repository import MAX_SIDE_FILE_BYTES, ModelFolder, ModelRepository
from loaders.errors import LoaderError, SourceNotFound
from loaders.loader import Loader, LocalVersion
from loaders.schemes import LoaderSettings, open_loader
from loaders.store import ContentStore

PROBE_S: Final = 60.0
Ran = Mapping[str, tuple[str, str]]  # by the model of a step, the version that ran, and the digest of its content


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

    def find(
        self, model: str, version: str, *, digest: str = "", threads: int = 1, ran: Ran | None = None
    ) -> VersionFiles | EnsembleFiles:
        """Returns the version; with a `digest` with exactly that content, although its directory may have changed.

        The steps of an ensemble are those versions that `ran`, where it has them, else what the step pins, else the
        newest. Of an ensemble only the present content is there.

        Raises: UnknownVersion (it is nowhere), FailedPrecondition, LoaderError.
        """
        return runnable(self._find(model, version, digest, threads, ran or {}, ()))

    def _find(self, model: str, version: str, digest: str, threads: int, ran: Ran, within: tuple[str, ...]) -> RunFiles:
        def step(of: str, pinned: str, path: tuple[str, ...]) -> RunFiles:
            then = ran.get(of, (pinned, ""))
            return self._find(of, *(then if pinned in (NEWEST, then[0]) else (pinned, "")), threads, ran, path)

        folder = self._folder(model, version)
        version = version or newest(folder)
        there = version in folder.versions
        override = self._intents.overrides.get(model)
        source = parse_json(override) if override is not None else folder.source
        candidate = Candidate(folder, version, source, "")
        candidate.check()
        files = _without_file(candidate, within, step)
        if files is not None:
            if not there:
                raise UnknownVersion(model, version)
            if digest and files.digest != digest:
                raise FailedPrecondition(
                    f"the configuration of model {model!r} was another one then: an ensemble's is not kept where it "
                    f"changes (a replay runs the present one)"
                )
            return files
        pin = digest or ("" if there else self._intents.pins.get(model, {}).get(version, ""))
        local = self._local(candidate, pin, self._loader if there else None)
        request = candidate.request(local, intra_threads=threads, policy=Policy(), timeout_s=PROBE_S)
        return VersionFiles(candidate, request, files_beside(folder, source))

    def _folder(self, model: str, version: str) -> ModelFolder:
        """Returns the model: that of the repository, else what is kept of it, which has no versions."""
        folder = ModelRepository(self._loader).look(model) if self._loader is not None else None
        if folder is not None:
            return folder
        kept = kept_folder(self._store, model, self._intents.kept.get(model, ""))
        if kept is None:
            where = "the repository has no such model" if self._loader is not None else "no --model-repository is given"
            raise UnknownVersion(model, version, f"{where}, and no route keeps a copy of it")
        return kept

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


def version_files(loader: Loader, model: str, version: str, *, steps: Loader | None = None) -> RunFiles:
    """Returns a version of any repository; the models of an ensemble's steps are those of `steps`, or of the same.

    Raises: UnknownVersion, FailedPrecondition, LoaderError.
    """
    return _found(loader, steps or loader, model, version, ())


def _found(loader: Loader, steps: Loader, model: str, version: str, within: tuple[str, ...]) -> RunFiles:
    def step(of: str, pinned: str, path: tuple[str, ...]) -> RunFiles:
        try:
            return _found(steps, steps, of, pinned, path)
        except LoaderError as error:
            raise FailedPrecondition(str(error)) from error

    folder = ModelRepository(loader).look(model)
    if folder is None:
        raise UnknownVersion(model, version, "the repository has no such model")
    version = version or newest(folder)
    if version not in folder.versions:
        raise UnknownVersion(model, version)
    candidate = Candidate(folder, version, folder.source, "")
    candidate.check()
    files = _without_file(candidate, within, step)
    if files is not None:
        return files
    request = candidate.request(loader.fetch(model, version), intra_threads=1, policy=Policy(), timeout_s=PROBE_S)
    return VersionFiles(candidate, request, files_beside(folder, folder.source))


def newest(folder: ModelFolder) -> str:
    """Returns the newest of the versions that a gateway loads. Raises: UnknownVersion, if it loads none."""
    loaded = folder.policy.select(folder.versions)
    if not loaded:
        raise UnknownVersion(folder.name, "", "its version_policy selects none of its versions")
    return max(loaded, key=version_order)


def runnable(files: RunFiles) -> VersionFiles | EnsembleFiles:
    """Returns what can be run of its files. Raises: FailedPrecondition (it, or a step of it, looks its answers up)."""
    if isinstance(files, VersionFiles):
        return files
    if isinstance(files, LookUpFiles):
        raise FailedPrecondition(f"model {files.candidate.model!r} {IN_A_STORE}, which has them as they are now")
    if look_up := files.look_up():
        raise FailedPrecondition(
            f"{look_up}, which has them as they are now and not as they were: run the models of the other steps "
            f"again instead (with the ensemble's parameter {LOG_STEPS} the log has what each of them was given)"
        )
    return files


def _without_file(candidate: Candidate, within: tuple[str, ...], find: FindStep) -> RunFiles | None:
    """Returns a version of a kind that has no model file; None of others."""
    if candidate.kind is ModelKind.ENSEMBLE:
        return ensemble_files(candidate, within, find)
    return None if candidate.kind.has_file else look_up_files(candidate)


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
