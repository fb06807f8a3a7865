"""The model repository: the models and versions in it, and what to load and unload.

    <repository>/<model>/config.pbtxt           optional
    <repository>/<model>/labels.txt, warmup/    what the configuration names
    <repository>/<model>/<version>/model.onnx
    <repository>/<ensemble>/<version>/          empty, or with anything in it: what it does is in config.pbtxt

A loader (`loaders.loader`) knows the place where it lies. `ModelRepository.scan` reads it, `wanted` and `plan` decide
(pure functions), the catalog acts.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from hashlib import sha256
from time import monotonic

from gateway.errors import FailedPrecondition, GatewayError, InvalidArgument, Unavailable
from gateway.serving.config_source import EMPTY, MAX_BYTES, ConfigSource, parse_text
from gateway.serving.contract import MODEL_FILENAME, version_policy
from gateway.serving.model_config import (
    VersionPolicy,
    check_model_name,
    check_version_name,
    is_version_name,
    version_order,
)
from gateway.serving.model_kind import ModelKind, kind_of
from gateway.serving.version import VersionState
from loaders.errors import LoaderError, SourceNotFound
from loaders.loader import Listing, Loader, VersionNotes

logger = logging.getLogger(__name__)

CONFIG_FILENAME = "config.pbtxt"
MAX_SIDE_FILE_BYTES = 64 << 20  # labels and warm-up data
_UNREAD = "unread "  # begins the stamp of a model whose configuration cannot be read now; no loader gives such a one
_KEPT = "kept:"  # begins the fingerprint of a version whose directory is gone and whose content is in the store
_MAX_WARNED = 100  # a scan
_SIDE_DIRECTORIES = frozenset(("warmup",))

Key = tuple[str, str]  # model, version
ReadLimited = Callable[[str, int], bytes]  # the file below a model's directory, of at most so many bytes


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model as it lies in the repository. `versions` has a fingerprint of each version's files; `error` says what
    is wrong with its configuration, if anything is; `origin` is the URI of the repository that has the model. `aliases`
    are the names that its source moves from version to version, as they were at `seen_s` (monotonic); `notes` what it
    keeps of versions beside their files.
    """

    name: str
    read_file: ReadLimited = field(compare=False)
    source: ConfigSource
    stamp: str
    versions: Mapping[str, str]
    error: str = ""
    origin: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    seen_s: float = field(default=0.0, compare=False)
    notes: Mapping[str, VersionNotes] = field(default_factory=dict)

    @property
    def is_unread(self) -> bool:
        """Whether the configuration cannot be read now, as `error` says; `source` is the last one, or EMPTY."""
        return self.stamp.startswith(_UNREAD)

    @property
    def policy(self) -> VersionPolicy:
        return version_policy(self.source)

    def read(self, name: str) -> bytes:
        """Returns the content of a file below the model's directory (labels, warm-up data).

        Raises: FailedPrecondition (absent, too large, outside), Unavailable (it cannot be read now).
        """
        try:
            return self.read_file(name, MAX_BYTES if name == CONFIG_FILENAME else MAX_SIDE_FILE_BYTES)
        except LoaderError as error:
            raise refusal_of(error) from error


class ModelRepository:
    """Reads a repository through its loader. Every method blocks: call it on a thread."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._known: dict[str, ModelFolder] = {}
        self._passed_over: dict[str, str] = {}
        self._trouble = ""
        self._was_listed = False
        self._seen_s: float | None = None

    def scan(self) -> Mapping[str, ModelFolder]:
        """Returns every model with at least one version directory, by name.

        A model whose directory cannot be read now stays as it was at the last scan, and so do all models of one of
        several repositories that cannot be listed (`trouble` says why).

        Raises: FailedPrecondition, if the repository itself cannot be listed, or if it no longer holds any model: an
                unmounted volume looks the same, and must not unload everything.
        """
        self._seen_s = monotonic()  # before the look: what it shows is as new as that
        try:
            with self._loader.one_look():
                listing = self._loader.models()
                passed_over = dict(listing.refused)
                allowed = _allowed(listing.names, check_model_name, "", passed_over)
                looks = {name: self._look(name, passed_over) for name in allowed}
        except LoaderError as error:
            raise FailedPrecondition(f"the model repository cannot be listed: {error}") from error
        finally:
            self._seen_s = None
        folders = {name: folder for name, folder in looks.items() if folder is not None and folder.versions}
        for name, folder in self._known.items():
            if folder.origin in listing.unreadable and name not in looks:
                folders[name] = folder
        if self._known and not folders:
            raise FailedPrecondition(
                f"the model repository holds no model any more, it had {len(self._known)}: is its volume mounted? "
                "(RepositoryModelUnload takes a model away)"
            )
        for path in sorted(passed_over.keys() - self._passed_over.keys())[:_MAX_WARNED]:
            level = logging.DEBUG if path in listing.beside else logging.WARNING  # a README is meant for people
            logger.log(level, "passed over in the model repository: path=%s reason=%s", path, passed_over[path])
        self._known, self._passed_over, self._was_listed = folders, passed_over, True
        self._trouble = "; ".join(f"cannot be listed: {reason}" for reason in listing.unreadable.values())
        return folders

    @property
    def was_listed(self) -> bool:
        """Whether a scan has shown what is there."""
        return self._was_listed

    @property
    def passed_over(self) -> Mapping[str, str]:
        """Returns the paths that the last scan passed over because they cannot serve as a version, with the reason."""
        return self._passed_over

    @property
    def trouble(self) -> str:
        """Returns which of several repositories the last scan could not list, and why; "" if it read all of them."""
        return self._trouble

    def look(self, model: str) -> ModelFolder | None:
        """Returns one model, or None if it is not there."""
        folder = self._look(model, {})
        return folder if folder is not None and folder.versions else None

    def _look(self, model: str, passed_over: dict[str, str]) -> ModelFolder | None:
        seen_s = monotonic() if self._seen_s is None else self._seen_s
        try:
            listing = self._loader.versions(model)
            stamp = self._loader.stamp(model)
            source, error, stamp = self._configuration(model, stamp)
            filename = _filename(source)
            versions = self._versions(model, listing, filename, passed_over)
        except LoaderError as failed:
            if isinstance(failed, SourceNotFound):
                return None
            logger.warning("model directory cannot be read: model=%s error=%s", model, failed)
            return self._known.get(model)
        origin = self._loader.origin(model)
        read, aliases = partial(self._loader.read, model), dict(listing.aliases)
        folder = ModelFolder(model, read, source, stamp, versions, error, origin, aliases, seen_s, dict(listing.notes))
        if not versions:
            holds = f", or a label that holds {filename}" if filename else ""
            passed_over[model] = error if folder.is_unread else f"no version directory in it: a number{holds}"
        elif not folder.policy.select(versions):
            passed_over[model] = f"its version_policy selects none of its versions {', '.join(sorted(versions))}"
        return folder

    def _configuration(self, model: str, stamp: str) -> tuple[ConfigSource, str, str]:
        """Returns the model's configuration, what is wrong with it, and its stamp; it is read where its stamp is new.

        What cannot be read now says nothing about what it holds: the last one goes on, under a stamp that is never met.
        """
        known = self._known.get(model)
        if known is not None and known.stamp == stamp:
            return known.source, known.error, stamp
        try:
            return parse_text(self._loader.read(model, CONFIG_FILENAME, MAX_BYTES)), "", stamp
        except SourceNotFound:
            return EMPTY, "", stamp
        except (LoaderError, GatewayError) as refused:
            if isinstance(refused, LoaderError) and refused.retryable:
                return EMPTY if known is None else known.source, str(refused), f"{_UNREAD}{stamp}"
            return EMPTY, str(refused), stamp

    def _versions(self, model: str, listing: Listing, filename: str, passed_over: dict[str, str]) -> dict[str, str]:
        for name, reason in listing.refused.items():
            if is_version_name(name):
                passed_over[f"{model}/{name}"] = reason
        versions = {}
        for name in _allowed(listing.names, check_version_name, f"{model}/", passed_over):
            # A numbered directory without the file is a version that fails with a clear reason.
            if not name.isdigit() and not (filename and self._loader.holds(model, f"{name}/{filename}")):
                if name not in _SIDE_DIRECTORIES:
                    why = f"it holds no {filename}" if filename else "versions without a model file are numbers"
                    passed_over[f"{model}/{name}"] = f"no version: {why}"
                continue
            try:
                versions[name] = self._loader.fingerprint(model, name)
            except LoaderError as error:
                versions[name] = f"unreadable: {error}"
        return versions


def refusal_of(error: LoaderError) -> GatewayError:
    """Returns the error as it is told: what its source may give a moment later is tried again."""
    return (Unavailable if error.retryable else FailedPrecondition)(str(error))


def _filename(source: ConfigSource) -> str:
    """Returns the name of the model's file; "" where the model's kind has none."""
    try:
        kind = kind_of(source)
    except FailedPrecondition:  # the load says so
        kind = ModelKind.ONNX
    return (source.message.default_model_filename or MODEL_FILENAME) if kind.has_file else ""


def _allowed(
    names: Iterable[str], check: Callable[[str], object], above: str, passed_over: dict[str, str]
) -> Iterator[str]:
    """Yields the names that `check` allows; records of the others why it does not."""
    for name in names:
        try:
            check(name)
        except InvalidArgument as error:
            passed_over[above + name] = str(error)
        else:
            yield name


# ---- what to do about it ----


class CatalogChange(Enum):
    LOAD = "load"
    REVIVE = "revive"
    RETIRE = "retire"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class PlannedChange:
    change: CatalogChange
    model: str
    version: str

    @property
    def ends(self) -> bool:
        """Whether the version serves no more after it."""
        return self.change in (CatalogChange.RETIRE, CatalogChange.FORGET)


@dataclass(frozen=True, slots=True)
class Presence:
    """A version as the catalog holds it: the fingerprints of the files that serve and of those that failed last."""

    state: VersionState
    serving: str = ""
    failed: str = ""
    loading: bool = False


def wanted(
    folders: Mapping[str, ModelFolder],
    required: Mapping[str, frozenset[str]],
    unloaded: frozenset[str],
    overrides: Mapping[str, ConfigSource],
    kept: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[Key, str]:
    """Returns the versions to load, each with a fingerprint of its files and its configuration.

    1. A model that an operator unloaded stays unloaded until an operator loads it.
    2. Of every other model, the versions that its policy selects and those that a route requires are loaded.
    3. A required version whose directory is gone is kept as it is; its fingerprint is "", or, where `kept` has the
       digest of its content, one by which the content store's copy is loaded if the version is not.
    """
    wishes: dict[Key, str] = {}
    for model, folder in folders.items():
        if model in unloaded:
            continue
        override = overrides.get(model)
        policy = folder.policy if override is None else version_policy(override)
        stamp = folder.stamp if override is None else override_stamp(folder, override)
        chosen = policy.select(folder.versions) | (required.get(model, frozenset()) & folder.versions.keys())
        for version in chosen:
            wishes[model, version] = f"{stamp}:{folder.versions[version]}"
    for model, versions in required.items():
        if model not in unloaded:
            for version in versions:
                digest = (kept or {}).get(model, {}).get(version, "")
                wishes.setdefault((model, version), f"{_KEPT}{digest}" if digest else "")
    return wishes


def override_stamp(folder: ModelFolder, override: ConfigSource) -> str:
    """Returns the configuration's part of a fingerprint where a client's configuration replaces config.pbtxt."""
    text = override.message.SerializeToString(deterministic=True)
    return f"{folder.stamp}+{sha256(text).hexdigest()}"


def plan(wishes: Mapping[Key, str], present: Mapping[Key, Presence]) -> tuple[PlannedChange, ...]:
    """Returns the steps from the versions that are present to those that are wanted.

    1. A version is loaded if it is new, or its fingerprint is neither the one that serves nor the one that failed.
    2. A draining version that is wanted again comes back without a load, if its files are the same, for all one knows.
    3. A version that is loading is left alone: the next plan sees how the load ended.
    4. A version that is no longer wanted is retired, but only once a wanted version of its model serves (or none is
       wanted): a new version that fails must not take the old one with it.
    5. A version that is not wanted and holds nothing is forgotten.
    6. A version whose directory is gone is loaded from its copy if it does not serve; while it serves it is left alone.

    Order: loads come newest version first.
    """
    actions = []
    for key in sorted(wishes, key=lambda key: (key[0], version_order(key[1])), reverse=True):
        change = _change_for(wishes[key], present.get(key))
        if change is not None:
            actions.append(PlannedChange(change, *key))
    wished = {model for model, _ in wishes}
    served = {key[0] for key in wishes if key in present and present[key].state is VersionState.AVAILABLE}
    for key in sorted(present.keys() - wishes.keys()):
        held = present[key]
        if held.loading:
            continue
        if held.state is VersionState.AVAILABLE:
            if key[0] in wished and key[0] not in served:
                continue
            actions.append(PlannedChange(CatalogChange.RETIRE, *key))
        elif held.state in (VersionState.FAILED, VersionState.END):
            actions.append(PlannedChange(CatalogChange.FORGET, *key))
    return tuple(actions)


def serves_again(fingerprint: str, serving: str) -> bool:
    """Returns whether a draining version is what is wanted: its files are the same, or gone, or there is no telling."""
    return fingerprint in ("", serving) or fingerprint.startswith((_KEPT, _UNREAD))


def _change_for(fingerprint: str, held: Presence | None) -> CatalogChange | None:
    if held is None:
        return CatalogChange.LOAD if fingerprint else None
    if held.loading:
        return None
    if held.state is VersionState.UNLOADING and serves_again(fingerprint, held.serving):
        return CatalogChange.REVIVE
    if not fingerprint or fingerprint == held.failed:
        return None
    if held.state is VersionState.AVAILABLE and fingerprint.startswith(_KEPT):
        return None
    if held.state is VersionState.AVAILABLE and fingerprint == held.serving:
        return None
    return CatalogChange.LOAD
