"""The registry of the versions that a worker holds: requests look them up, the catalog changes their states.

Everything here happens on the loop. A request pays for one or two dictionary look-ups.
"""

import logging
from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from gateway.errors import GatewayError, NotFound, UnknownModel, UnknownVersion
from gateway.serving.candidate import Loaded
from gateway.serving.model_config import check_model_name, check_version_name, version_order
from gateway.serving.provenance import UNKNOWN_ORIGIN, Provenance
from gateway.serving.repository import Key, Presence
from gateway.serving.session import Session
from gateway.serving.version import Version, VersionEvent, VersionState

logger = logging.getLogger(__name__)

OnVersion = Callable[[Version], None]


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version as an operator sees it; `reason` says why it is in this state, where that is not obvious."""

    model: str
    version: str
    state: VersionState
    reason: str
    digest: str
    in_flight: int
    max_batch_size: int
    merging: str
    weights: str = ""


class VersionEntry:
    """Holds one version: the object that is shown and served, and the fingerprints of the files that were tried."""

    __slots__ = ("failed", "identity", "loading", "serving", "version")

    def __init__(self, version: Version) -> None:
        self.version = version
        self.serving = ""
        self.identity = ""
        self.failed = ""
        self.loading = False

    def presence(self) -> Presence:
        return Presence(self.version.state, self.serving, self.failed, self.loading)


class Registry:
    """Finds versions for requests and holds their states."""

    def __init__(self, releaser: Executor, *, on_available: OnVersion | None = None, on_ended: OnVersion | None = None):
        self._releaser = releaser
        self._on_available = on_available
        self._on_ended = on_ended
        self._held: dict[Key, VersionEntry] = {}
        self._names: dict[str, list[str]] = {}  # the versions of each model that is held, by age
        self._available: dict[str, dict[str, Version]] = {}
        self._newest: dict[str, Version] = {}
        self._subscribers: list[OnVersion] = []

    # ---- for requests ----

    def version(self, model: str, name: str) -> Version:
        """Returns the version, which is AVAILABLE.

        Raises: UnknownModel, UnknownVersion, Unavailable (loading, unloading), VersionNotReady (failed),
                InvalidArgument (no such thing can exist).
        """
        try:
            return self._available[model][name]
        except KeyError:
            raise self._refusal(model, name) from None

    def newest(self, model: str) -> Version:
        """Returns the highest AVAILABLE version number of the model, or its last label if it has no numbers.

        Raises: UnknownModel, NotFound (all unloaded), Unavailable (loading), VersionNotReady (failed), InvalidArgument.
        """
        try:
            return self._newest[model]
        except KeyError:
            raise self._refusal_of_all(model) from None

    # ---- for operators ----

    def states(self, model: str | None = None) -> list[VersionStatus]:
        """Returns the status of every version, or of one model's versions, sorted by model and age."""
        models = sorted(self._names) if model is None else [model]
        return [_status(held.version) for name in models for held in self._of_model(name)]

    def details(self, model: str, name: str) -> tuple[Provenance, float, int]:
        """Returns what is known of a version's origin, of a run of one row, and of the memory that its trial needed.

        Units: microseconds, bytes; 0 where it is not known.
        """
        held = self._held.get((model, name))
        if held is None:
            return UNKNOWN_ORIGIN, 0.0, 0
        return held.version.provenance, held.version.run_us, held.version.memory_bytes

    def subscribe(self, callback: OnVersion) -> Callable[[], None]:
        """Calls back on every change of a version's state, until the function that it returns is called."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def attach(self, on_available: OnVersion, on_ended: OnVersion | None = None) -> None:
        """Sets the callbacks: `on_available` runs before a version is published, `on_ended` when it has ended.

        Order: before the first load.
        """
        self._on_available, self._on_ended = on_available, on_ended

    # ---- for the catalog ----

    def _presences(self) -> Mapping[Key, Presence]:
        return {key: held.presence() for key, held in self._held.items()}

    def _of_model(self, model: str) -> Iterator[VersionEntry]:
        return iter([self._held[model, name] for name in self._names.get(model, ())])

    def _hold(self, version: Version) -> VersionEntry:
        """Adds a version under a name that none has yet."""
        held = self._held[version.model, version.name] = VersionEntry(version)
        insort(self._names.setdefault(version.model, []), version.name, key=version_order)
        return held

    def _begin(self, key: Key) -> Version:
        """Adds a version that is LOADING; it is shown unless another one serves under its name."""
        version = Version(*key)
        version.on_idle = self._drained
        version.move(VersionEvent.LOAD)
        held = self._held.get(key)
        if held is None:
            held = self._hold(version)
        elif held.version.state not in (VersionState.AVAILABLE, VersionState.UNLOADING):
            held.version = version
        held.loading = True
        self._notify(version)
        return version

    def _publish(self, version: Version, loaded: Loaded, fingerprint: str) -> None:
        """Makes the version AVAILABLE; the version that served under its name drains.

        Order: all that a request may touch is in place before requests can find the version; they no longer find the
               previous one when it starts to drain.
        """
        held = self._held[version.model, version.name]
        version.equip(
            loaded.session,
            loaded.config,
            digest=loaded.digest,
            run_us=loaded.run_us,
            memory_bytes=loaded.memory_bytes,
            provenance=loaded.provenance,
            weights=loaded.weights,
            shared_bytes=loaded.shared_bytes,
            is_cold=loaded.is_cold,
            load_ns=loaded.load_ns,
        )
        if self._on_available is not None:
            self._on_available(version)
        version.move(VersionEvent.READY)
        replaced, held.version = held.version, version
        held.serving, held.failed, held.loading = fingerprint, "", False
        held.identity = loaded.identity
        self._expose(version)
        logger.info(
            "version available: model=%s version=%s digest=%s load_ms=%.1f weights=%s",
            version.model,
            version.name,
            version.digest,
            loaded.load_ms,
            loaded.weights or ("its own" if loaded.config.kind.has_file else "none"),
        )
        for warning in loaded.config.warnings:
            logger.warning("version has a warning: model=%s version=%s: %s", version.model, version.name, warning)
        self._notify(version)
        if replaced is not version and replaced.state is VersionState.AVAILABLE:
            self._drain(replaced, "replaced by newer files")

    def _fail(self, version: Version, reason: str, fingerprint: str) -> None:
        """Ends a load that failed; `fingerprint` names the files that must not be tried again, "" if they may be."""
        version.move(VersionEvent.FAIL, reason)
        held = self._held.get((version.model, version.name))
        if held is not None:
            held.loading, held.failed = False, fingerprint
            if held.version is not version:
                held.version.reason = f"newer files failed to load: {reason}"
        logger.warning("version failed: model=%s version=%s reason=%s", version.model, version.name, reason)
        self._notify(version)

    def _drop(self, version: Version, reason: str) -> None:
        """Ends a version that never served."""
        version.move(VersionEvent.DROP, reason)
        held = self._held.get((version.model, version.name))
        if held is not None:
            held.loading = False
        self._notify(version)

    def _retire(self, key: Key, reason: str) -> None:
        """Hides the version from requests; it ends when its last lease ends."""
        version = self._held[key].version
        if version.state is VersionState.AVAILABLE:
            self._hide(version)
            self._drain(version, reason)
        elif version.state in (VersionState.START, VersionState.FAILED):
            self._drop(version, reason)
        elif version.state is VersionState.END:
            version.reason = reason

    def _revive(self, key: Key) -> None:
        version = self._held[key].version
        version.move(VersionEvent.REVIVE)
        self._expose(version)
        self._notify(version)

    def _forget(self, key: Key) -> None:
        held = self._held.pop(key)
        names = self._names[key[0]]
        names.remove(key[1])
        if not names:
            del self._names[key[0]]
        if held.version.state is VersionState.FAILED:
            held.version.move(VersionEvent.DROP)
            self._notify(held.version)

    def _note_unloaded(self, key: Key) -> None:
        """Shows a version that is in the repository and that an operator unloaded."""
        if key not in self._held:
            version = Version(*key)
            version.move(VersionEvent.DROP, "unloaded")
            self._hold(version)

    # ---- inside ----

    def _expose(self, version: Version) -> None:
        self._available.setdefault(version.model, {})[version.name] = version
        self._renew_newest(version.model)

    def _hide(self, version: Version) -> None:
        names = self._available[version.model]
        del names[version.name]
        if not names:
            del self._available[version.model]
        self._renew_newest(version.model)

    def _renew_newest(self, model: str) -> None:
        names = self._available.get(model)
        if names:
            self._newest[model] = names[max(names, key=version_order)]
        else:
            self._newest.pop(model, None)

    def _drain(self, version: Version, reason: str) -> None:
        version.move(VersionEvent.RETIRE, reason)
        self._notify(version)
        if version.leases == 0:
            self._drained(version)

    def _drained(self, version: Version) -> None:
        version.move(VersionEvent.DRAINED, version.reason)
        held = self._held.get((version.model, version.name))
        if held is not None and held.version is version:
            held.serving = ""
        if self._on_ended is not None:
            self._on_ended(version)
        sessions = [version.session]
        version.session = None
        self._release(sessions)
        logger.info("version ended: model=%s version=%s reason=%s", version.model, version.name, version.reason)
        self._notify(version)

    def _release(self, sessions: list[Session | None]) -> None:
        """Ends the last references on a thread: freeing a large session takes time."""
        try:
            self._releaser.submit(sessions.clear)
        except RuntimeError:  # the worker is going away, and the thread has
            sessions.clear()

    def _notify(self, version: Version) -> None:
        for callback in tuple(self._subscribers):
            callback(version)

    def _refusal(self, model: str, name: str) -> GatewayError:
        check_model_name(model)
        check_version_name(name)
        held = self._held.get((model, name))
        if held is not None:
            return held.version.refusal()
        return UnknownVersion(model, name) if self._knows(model) else UnknownModel(model)

    def _refusal_of_all(self, model: str) -> GatewayError:
        check_model_name(model)
        if not self._knows(model):
            return UnknownModel(model)
        versions = [held.version for held in self._of_model(model)]
        for states in ((VersionState.START, VersionState.LOADING, VersionState.UNLOADING), (VersionState.FAILED,)):
            matching = [version for version in versions if version.state in states]
            if matching:
                return max(matching, key=lambda version: version_order(version.name)).refusal()
        return NotFound(f"Request for unknown model: {model!r} has no available versions")

    def _knows(self, model: str) -> bool:
        return model in self._names


def _status(version: Version) -> VersionStatus:
    return VersionStatus(
        version.model,
        version.name,
        version.state,
        version.reason,
        version.digest,
        version.leases,
        version.max_batch_size,
        version.config.merging,
        version.weights,
    )
