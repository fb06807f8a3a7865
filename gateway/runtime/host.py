"""What one worker does for the whole host: counts of all workers, and loading and unloading in all of them.

Each worker answers the same operations to the others (`operations`), so any of them can be asked by a client.
"""

import hashlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.errors import DeadlineExceeded, FailedPrecondition, GatewayError, InvalidArgument, NotFound
from gateway.page.host_view import HostView
from gateway.routing.decision.route import announce
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.audit_trail import append
from gateway.routing.store.change import Change
from gateway.routing.store.redis_store import RedisStore
from gateway.runtime.peers import Operation, Payload, PeerGone, Peers, ask
from gateway.serving.catalog import Catalog
from gateway.serving.registry import VersionStatus
from gateway.serving.replacement import Replacement
from gateway.telemetry.sums import Tree, add_all, branch

LOAD_LIMIT_S: Final = 600.0
InForce = Callable[[str], frozenset[str]]
_log = logging.getLogger(__name__)


class HostCounts:
    """The counts of all workers of this host, those of dead ones included while the control process lives."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def sums(self) -> Tree:
        """Returns the sums over all workers, as of now.

        While the control process is being restarted: over the workers that answer.
        """
        try:
            return await ask(self._peers.control, "counters", {})
        except GatewayError as error:
            _log.warning("the control process does not answer: %s", error)
        answers = await self._peers.ask_all("counters", {})
        return add_all(
            branch(answer, "counters", "sums") for answer in answers.values() if not isinstance(answer, GatewayError)
        )

    async def view(self) -> HostView:
        """Returns what this host does now. Raises: GatewayError (the control process does not answer)."""
        return msgspec.convert(await ask(self._peers.control, "host_view", {}), HostView)


class HostQuotaUses:
    """The quotas of all workers of this host."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def present(self) -> list[Payload]:
        """Returns what each worker that answers says of its quotas; nothing where there are none."""
        answers = await self._peers.ask_all("quotas", {})
        return [answer for answer in answers.values() if not isinstance(answer, GatewayError) and answer]


class HostFleet:
    """The workers of this host, as far as versions are concerned."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def versions(self, model: str) -> Mapping[str, Sequence[VersionStatus]]:
        """Returns what each other worker that answers says of the model's versions ("": of all models), by its id."""
        answers = await self._peers.ask_all("states", {"model": model}, own=False)
        return {
            str(answer["id"]): _statuses(answer.get("versions"))
            for answer in answers.values()
            if not isinstance(answer, GatewayError)
        }

    async def prepare(self, document: RouteDocument, *, timeout_s: float = LOAD_LIMIT_S) -> None:
        """Every worker of this host has loaded and warmed the versions, beside those that serve, and has read the
        document: to follow it is to swap a reference.

        Raises: FailedPrecondition naming what is not ready and why. A worker that is not there, or does not answer in
                time, is not waited for: it prepares the route itself before it swaps, and acknowledges after.
        """
        payload: Payload = {
            "model": document.model,
            "versions": sorted(document.versions()),
            "document": document.to_json(),
        }
        answers = await self._peers.ask_all("prepare", payload, timeout_s=timeout_s)
        for answer in answers.values():
            if isinstance(answer, NotFound):
                raise FailedPrecondition(str(answer))
            if isinstance(answer, GatewayError) and not isinstance(answer, PeerGone | DeadlineExceeded):
                raise answer


class HostRepository:
    """Loads and unloads in every worker of this host.

    This worker goes first: what cannot be done at all fails here, with every other worker unchanged. A worker that is
    not there needs nothing: it keeps to what operators asked for when it starts. What cannot be recorded in the audit
    trail is not done.
    """

    def __init__(self, catalog: Catalog, peers: Peers, store: RedisStore, *, loaded: Callable[[str], None]) -> None:
        """Tells `loaded` each model that was loaded."""
        self._store = store
        self._catalog = catalog
        self._peers = peers
        self._loaded = loaded

    async def load(self, model: str, config: str | None, *, actor: str) -> None:
        detail = f"config sha256 {hashlib.sha256(config.encode()).hexdigest()}" if config is not None else ""
        await append(self._store, "model.load", model=model, detail=detail, change=_asked_by(actor))
        await self._catalog.load(model, config)
        self._loaded(model)
        await self._others("load", {"model": model, "config": config})

    async def unload(self, model: str, *, actor: str) -> None:
        await append(self._store, "model.unload", model=model, change=_asked_by(actor))
        await self._catalog.unload(model)
        await self._others("unload", {"model": model})

    async def _others(self, operation: str, payload: Payload) -> None:
        answers = await self._peers.ask_all(operation, payload, timeout_s=LOAD_LIMIT_S, own=False)
        for slot, answer in sorted(answers.items()):
            if isinstance(answer, GatewayError) and not isinstance(answer, PeerGone):
                _log.error("%s of %s failed in worker %d: %s", operation, payload["model"], slot, answer)
                raise answer


class ReplacementRecorder:
    """Records in the audit trail that other content is to serve under a version's name, once for all workers."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def __call__(self, replacement: Replacement) -> None:
        """Returns once it is recorded. Raises: GatewayError."""
        digests = f"{replacement.previous_digest} -> {replacement.digest}"
        what = f"{socket.gethostname()} {replacement.model}/{replacement.version} {digests} {replacement.fingerprint}"
        await append(
            self._store,
            "version.replaced",
            model=replacement.model,
            detail=f"version {replacement.version}: {digests}",
            change=Change(source="model repository", reason="files of a version that no route names were overwritten"),
            once=hashlib.sha256(what.encode()).hexdigest(),
        )


def _asked_by(actor: str) -> Change:
    return Change(actor=actor, source="api")


def operations(
    catalog: Catalog,
    *,
    count: Callable[[], Payload],
    describe: Callable[[], Payload],
    in_force: InForce,
    quotas: Callable[[], Payload] = dict,
) -> Mapping[str, Operation]:
    """Returns what a worker answers to the other processes of its host.

    `count` answers its counts with slot and boot, `describe` what it is; `in_force(model)` the versions that its rules
    name now.
    """

    async def counters(_: Payload) -> Payload:
        return count()

    async def load(payload: Payload) -> Payload:
        config = payload.get("config")
        await catalog.load(_model(payload), config if isinstance(config, str) else None)
        return {}

    async def unload(payload: Payload) -> Payload:
        await catalog.unload(_model(payload))
        return {}

    async def prepare(payload: Payload) -> Payload:
        model, versions = _model(payload), payload.get("versions")
        if not isinstance(versions, list):
            raise InvalidArgument(f"versions is {versions!r}, allowed: a list of texts")
        await catalog.require(model, {str(version) for version in versions} | in_force(model))
        announce(str(payload.get("document")))
        return {}

    async def states(payload: Payload) -> Payload:
        return {"id": describe()["id"], "versions": version_states(catalog, str(payload.get("model") or ""))}

    async def present_quotas(_: Payload) -> Payload:
        return quotas()

    async def worker(_: Payload) -> Payload:
        return describe()

    return {
        "counters": counters,
        "load": load,
        "unload": unload,
        "prepare": prepare,
        "states": states,
        "quotas": present_quotas,
        "worker": worker,
    }


def version_states(catalog: Catalog, model: str = "") -> list[dict[str, object]]:
    """Returns every version (of one model, if named) with its state, as JSON can hold it."""
    states: list[dict[str, object]] = msgspec.to_builtins(catalog.states(model or None))
    return states


def _statuses(versions: object) -> list[VersionStatus]:
    """Returns what `version_states` made, read back from a worker of the same release."""
    return msgspec.convert(versions, list[VersionStatus]) if isinstance(versions, list) else []


def _model(payload: Payload) -> str:
    model = payload.get("model")
    if not isinstance(model, str):
        raise InvalidArgument(f"model is {model!r}, allowed: text")
    return model
