"""The load pipeline, from a version directory to a session that has run: fetch, probe, open, warm up.

None of it runs on the loop. Files and sessions are handled on threads, and a model first runs in a process of its own,
so that a hostile one cannot harm the worker (`gateway.serving.probe`).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from errno import errorcode
from functools import partial
from time import perf_counter_ns
from typing import Final, TypeVar

from gateway.errors import FailedPrecondition, GatewayError, Internal, Unavailable
from gateway.serving.candidate import Candidate, Loaded
from gateway.serving.declaration import Describe, declared, declared_digest
from gateway.serving.fetch_lanes import FETCH_PATIENCE_S, FetchLanes
from gateway.serving.files_read_once import read_ahead, reading_once
from gateway.serving.model_kind import ModelKind
from gateway.serving.model_policy import Policy
from gateway.serving.opening import describe_version, identity_of, open_version
from gateway.serving.preparer import Preparer
from gateway.serving.probe import Prober, ProbeRequest, ProbeResult
from gateway.serving.provenance import MAX_RECORD_BYTES, provenance, record_name
from gateway.serving.repository import refusal_of
from gateway.serving.session import Session
from gateway.threads import started_threads
from loaders.errors import LoaderError
from loaders.loader import NO_NOTES, Loader, LocalVersion
from loaders.model_signature import TrustedKeys

logger = logging.getLogger(__name__)

T = TypeVar("T")

# These errors of the operating system last until somebody changes something: to try at each look would help nobody.
_LASTING: Final = frozenset(("EACCES", "EPERM", "ELOOP", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "EFBIG", "EUCLEAN"))


class Pipeline:
    """Loads versions, a few at a time; with `trusted_keys` only those that one of the keys has signed.

    A version that takes longer than `fetch_patience_s` to come counts as one on trial: nobody waits for it.

    With a `preparer` the weights of large versions are shared with the other processes of the host.
    """

    def __init__(
        self,
        loader: Loader,
        prober: Prober,
        *,
        intra_threads: int,
        policy: Policy | None = None,
        loads_at_once: int = 2,
        fetch_patience_s: float = FETCH_PATIENCE_S,
        probe_timeout_s: float = 60.0,
        trusted_keys: TrustedKeys | None = None,
        preparer: Preparer | None = None,
    ) -> None:
        self._loader = loader
        self._preparer = preparer
        self._prober = prober
        self._intra_threads = intra_threads
        self._policy = policy or Policy()
        self._probe_timeout_s = probe_timeout_s
        self._trusted_keys = trusted_keys
        self._describes: dict[ModelKind, Describe] = {}
        self._permits = asyncio.Semaphore(loads_at_once)
        self._lanes = FetchLanes(loads_at_once, fetch_patience_s)
        self._threads = started_threads(loads_at_once, "load")

    def describe_by(self, kind: ModelKind, describe: Describe) -> None:
        """Has `describe` complete the configuration of each version of that kind, which has no model file.

        Order: before the first load.
        """
        self._describes[kind] = describe

    async def load(
        self,
        candidate: Candidate,
        *,
        again: bool = False,
        cold: bool = False,
        on_trial: Callable[[], None] | None = None,
    ) -> Loaded:
        """Returns the loaded candidate; its session runs from a verified copy that nobody writes to.

        With `cold` the copy is there, and no session of a version with a model file.

        A version that the host knows to be good does not queue behind those on trial; `on_trial` is called before a
        trial or a preparation begins. With `again` those that took too long before are repeated.

        Raises: GatewayError; its text is the reason, fit to be shown.
        """
        begin_ns = perf_counter_ns()
        loaded = await self._load(candidate, again, cold, on_trial or _nothing)
        return replace(loaded, load_ms=(perf_counter_ns() - begin_ns) / 1e6)

    async def _load(self, candidate: Candidate, again: bool, cold: bool, on_trial: Callable[[], None]) -> Loaded:
        candidate.check()
        if not candidate.kind.has_file:
            return await self._declared(candidate, on_trial)
        if self._preparer is not None and not cold:
            prepared = await self._known_prepared(self._preparer, reading_once(candidate), on_trial)
            if prepared is not None:
                return prepared
        candidate = reading_once(candidate)
        read = partial(self._whole_request, candidate)
        request = await self._fetched(candidate, read, on_trial, apart=bool(candidate.pin))
        result = await self._prober.known(request, again=again)
        if result is None:
            on_trial()
            result = await self._prober.probe(request, again=again)
        if not result.ok:
            raise (FailedPrecondition if result.was_tried else Unavailable)(result.reason)
        weights = ""
        if cold:
            async with self._permits:
                return await self._on_thread(partial(self._described, candidate, request, result))
        if self._preparer is not None:
            shared, weights = await self._shared(self._preparer, candidate, request, result, again, on_trial)
            if shared is not None:
                return shared
        async with self._permits:
            loaded = await self._on_thread(partial(self._opened, candidate, request, result))
        return replace(loaded, weights=weights)

    async def _shared(
        self,
        preparer: Preparer,
        candidate: Candidate,
        request: ProbeRequest,
        result: ProbeResult,
        again: bool,
        on_trial: Callable[[], None],
    ) -> tuple[Loaded | None, str]:
        """Returns the version in its prepared form, which is made if it is not there; else None, and why not."""
        why = preparer.objection(request, result)
        if not why:
            loaded = await self._prepared(preparer, candidate, request, result)
            if loaded is None:
                on_trial()
                why = await preparer.prepare(request, result, again=again)
                loaded = None if why else await self._prepared(preparer, candidate, request, result)
            if loaded is not None:
                with suppress(Unavailable):  # no thread: nothing is noted
                    note = partial(self._note_copy, preparer, candidate, request)
                    await self._fetched(candidate, note, on_trial, apart=True)
                return loaded, ""
        return None, f"its own: {why or 'its prepared form could not be loaded, see the log'}"

    async def _known_prepared(
        self, preparer: Preparer, candidate: Candidate, on_trial: Callable[[], None]
    ) -> Loaded | None:
        """Returns the version in its prepared form, if the host has that; the version's own files are not read then.

        They were verified before it was made of them, and it is verified itself.
        """
        read = partial(self._noted_request, preparer, candidate)
        request = await self._fetched(candidate, read, on_trial, apart=True)
        result = None if request is None else await self._prober.known(request)
        if request is None or result is None or not result.ok or preparer.objection(request, result):
            return None
        return await self._prepared(preparer, candidate, request, result)

    async def _prepared(
        self, preparer: Preparer, candidate: Candidate, request: ProbeRequest, result: ProbeResult
    ) -> Loaded | None:
        """Returns the version in its prepared form; None where that is not there or cannot be loaded."""
        use = partial(self._opened, candidate, request, result)
        async with self._permits:
            loaded = await self._on_thread(partial(preparer.opened, request, result, use))
        return None if loaded is None else _sharing(loaded, result)

    async def identity(self, candidate: Candidate) -> str:
        """Returns a hash of the candidate's files, configuration, labels and warm-up data.

        It changes exactly when a load could give another version.

        Raises: GatewayError, where the candidate cannot be read.
        """
        if not candidate.kind.has_file:
            return await self._fetched(candidate, lambda: declared_digest(candidate.source, candidate.folder))
        read = partial(self._request, candidate)
        return await self._fetched(candidate, lambda: identity_of(candidate, read()), apart=bool(candidate.pin))

    async def digest(self, candidate: Candidate) -> str:
        """Returns the digest of the repository's present content, whatever the pin says. Raises: GatewayError."""
        return await self._fetched(candidate, lambda: self._loader.digest(candidate.model, candidate.version))

    def keep_prepared(self, digests: set[str]) -> None:
        """Marks the prepared forms of these versions as used: others make room before them. It blocks."""
        if self._preparer is not None:
            self._preparer.keep(digests)

    def progress(self, model: str, version: str) -> str:
        """Returns how far a copy of the version is that takes long; "" where none is under way."""
        return self._loader.progress(model, version)

    async def aclose(self) -> None:
        """Lets no further load begin, and ends the trials."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._prober.aclose()

    async def _declared(self, candidate: Candidate, on_trial: Callable[[], None]) -> Loaded:
        """Returns a version without a model file, whose configuration is its content.

        It counts as on trial: what it needs may be, and nobody waits for that longer than for the trial itself.
        """
        describe = self._describes.get(candidate.kind)
        if describe is None:
            raise FailedPrecondition(f"a model of {candidate.kind.shown!r} cannot be served here")
        source, folder = candidate.source, candidate.folder
        config = await self._fetched(candidate, lambda: declared(source, folder), on_trial)
        digest = await self._fetched(candidate, lambda: declared_digest(source, folder), on_trial)
        on_trial()
        config = await describe(candidate.model, source, config)
        return Loaded(None, config, digest, 0.0, digest)

    def _opened(
        self, candidate: Candidate, request: ProbeRequest, result: ProbeResult, prepared: Session | None = None
    ) -> Loaded:
        """Returns the version, with what is known of its origin."""
        loaded = open_version(candidate, request, result, prepared)
        return self._with_origin(candidate, request, result, loaded)

    def _described(self, candidate: Candidate, request: ProbeRequest, result: ProbeResult) -> Loaded:
        """Returns the version without a session, with what is known of its origin, and of its weights."""
        loaded = self._with_origin(candidate, request, result, describe_version(candidate, request, result))
        if self._preparer is None or not self._preparer.will_share(request, result):
            return loaded
        return replace(loaded, shared_bytes=_weight_bytes(result))

    def _with_origin(self, candidate: Candidate, request: ProbeRequest, result: ProbeResult, loaded: Loaded) -> Loaded:
        try:
            record = candidate.folder.read_file(record_name(candidate.version), MAX_RECORD_BYTES)
        except LoaderError:
            record = None  # nobody published it so, or the source is away
        checked = self._trusted_keys is not None
        metadata = {} if result.facts is None else result.facts.metadata
        notes = candidate.folder.notes.get(candidate.version, NO_NOTES)
        origin = provenance(request.local, metadata, record, notes, signature_checked=checked)
        return replace(loaded, provenance=origin)

    def _noted_request(self, preparer: Preparer, candidate: Candidate) -> ProbeRequest | None:
        """Returns the request for the copy that the candidate was prepared from; None where that is not known."""
        try:
            local = preparer.noted_copy(candidate.place) if candidate.place else None
            if local is None:
                return None
            request = self._request_for(candidate, local)
            read_ahead(candidate)
            return request
        except (LoaderError, GatewayError, OSError):
            return None  # the way that reads the files says what is wrong with them

    def _note_copy(self, preparer: Preparer, candidate: Candidate, request: ProbeRequest) -> None:
        """Notes of which copy the candidate is prepared, by its digest; and by its files, if they are as when it was
        listed: what was copied since then is what they still say.
        """
        preparer.note_copy(f"digest {request.local.digest}", request.local)
        if candidate.pin or not candidate.place:
            return
        with suppress(LoaderError):
            if candidate.fingerprint.endswith(self._loader.fingerprint(candidate.model, candidate.version)):
                preparer.note_copy(candidate.place, request.local)

    def _whole_request(self, candidate: Candidate) -> ProbeRequest:
        """As `_request`; what else the load needs of the repository is read, too."""
        request = self._request(candidate)
        read_ahead(candidate)
        return request

    def _request(self, candidate: Candidate) -> ProbeRequest:
        """Returns the request to the probe for a copy of the candidate."""
        candidate.check()
        local = self._loader.fetch(candidate.model, candidate.version, digest=candidate.pin or None)
        return self._request_for(candidate, local)

    def _request_for(self, candidate: Candidate, local: LocalVersion) -> ProbeRequest:
        if self._trusted_keys is not None:
            self._trusted_keys.check(local)
        return candidate.request(
            local, intra_threads=self._intra_threads, policy=self._policy, timeout_s=self._probe_timeout_s
        )

    async def _fetched(
        self,
        candidate: Candidate,
        work: Callable[[], T],
        on_late: Callable[[], None] | None = None,
        *,
        apart: bool = False,
    ) -> T:
        """Returns what `work` reads of the candidate's repository; one that is slow holds up no load of others.

        What is `apart` needs content that the host has, and does not queue behind what is still to come.
        """
        return await self._lanes.run(candidate.folder.origin, partial(_explained, work), on_late, apart=apart)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(_explained, work))


def _sharing(loaded: Loaded, result: ProbeResult) -> Loaded:
    """Returns the version as one whose weights the processes of the host share."""
    return replace(loaded, weights="shared", shared_bytes=_weight_bytes(result))


def _weight_bytes(result: ProbeResult) -> int:
    return 0 if result.facts is None else result.facts.weight_bytes


def _nothing() -> None:
    """Does what is done before a trial that nobody wants to know of."""


def _explained(work: Callable[[], T]) -> T:
    """Returns what `work` returns; turns an error that it raises into a reason."""
    try:
        return work()
    except LoaderError as error:
        raise refusal_of(error) from error
    except OSError as error:
        if errorcode.get(error.errno or 0) in _LASTING:
            raise FailedPrecondition(f"files cannot be read: {error.strerror}") from error
        raise Unavailable(f"files cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FailedPrecondition("there is not enough memory for the version") from error


def reason_of(error: GatewayError) -> str:
    """Returns why a load failed, as text for an operator."""
    return "internal error, see the log" if isinstance(error, Internal) else str(error)[:1000]
