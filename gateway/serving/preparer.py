"""Prepares versions, so that the workers of a host have their weights once: in a process of its own, one at a time.

    worker ── PreparationRequest ──> python -m gateway.serving.preparation_child ── files ──> PreparedStore

A version that cannot be prepared is loaded as any other; the text that says why is shown with it.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import time
from typing import Final, TypeVar

from msgspec import structs

from gateway.errors import FailedPrecondition, GatewayError
from gateway.serving.heap import give_back_memory, reused_buffers
from gateway.serving.host_lock import awaited_lock
from gateway.serving.preparation_request import PreparationRequest, objection
from gateway.serving.prepared_store import PreparedStore, Refusal, preparation_key
from gateway.serving.probe_request import ProbeRequest, ProbeResult, from_json, to_json
from gateway.serving.run_environment import RunEnvironment, present_environment
from gateway.serving.session import Session, runs_on_cpu
from gateway.serving.version_session import session_of
from loaders.loader import LocalVersion

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LINE_LIMIT: Final = 1 << 20
_FORMS: Final = 3  # of the weights at most in the prepared file: as they were, and as one or two kernels read them
_SPARE_BYTES: Final = 64 << 20
# A load that uses buffers again may hold several of them for a moment, at most as much as it maps.
_MOST_REUSED_BYTES: Final = 1 << 30
_KEPT_FREE_BYTES: Final = 1 << 30  # of the disk, for the log


class Preparer:
    """Prepares versions and finds prepared ones, in a directory that the workers of a host share.

    For `idle_s` a preparation gets only what nobody else wants of the CPU; on a machine that is always busy it then
    begins again with the share of any other session.

    Units: `min_bytes` of weights from which a version is prepared; `max_bytes` of all prepared models, 0: none are;
           `timeout_s` for a preparation, with those before it.
    """

    def __init__(
        self, directory: Path, *, min_bytes: int, max_bytes: int, timeout_s: float = 300.0, idle_s: float = 60.0
    ) -> None:
        self._store = PreparedStore(directory, max_bytes=max_bytes)
        self._min_bytes = min_bytes
        self._timeout_s = timeout_s
        self._idle_s = idle_s

    def objection(self, request: ProbeRequest, result: ProbeResult) -> str:
        """Returns why the version is not to be prepared; "" if it is."""
        return objection(
            request,
            result,
            on_cpu=runs_on_cpu(request.options),
            min_bytes=self._min_bytes,
            max_bytes=self._store.max_bytes,
        )

    def will_share(self, request: ProbeRequest, result: ProbeResult) -> bool:
        """Returns whether the version's weights will be shared once it is loaded, by what is known now. It blocks."""
        if self.objection(request, result):
            return False
        return self._store.refusal(self._key(request), asked_at=time()) is None

    def keep(self, digests: set[str]) -> None:
        """Marks the entries of these versions as used. It blocks."""
        with suppress(OSError):
            self._store.keep(digests)

    def noted_copy(self, place: str) -> LocalVersion | None:
        """Returns the verified copy that a prepared version was made from, by where it came from. It blocks."""
        return self._store.noted_copy(place)

    def note_copy(self, place: str, local: LocalVersion) -> None:
        """Notes the verified copy of a version that is prepared, so that it need not be read again. It blocks."""
        with suppress(OSError):
            self._store.note_copy(place, local)

    def opened(self, request: ProbeRequest, result: ProbeResult, use: Callable[[Session], T]) -> T | None:
        """Returns what `use` makes of a session of the version's prepared form; None where that cannot be had.

        An entry that is damaged, or that the runtime refuses, is removed. It blocks.
        """
        key, refused = self._key(request), ""
        try:
            with self._store.opened(key) as entry:
                if entry is None:
                    return None
                try:
                    with reused_buffers() if entry.size <= _MOST_REUSED_BYTES else _given_back():
                        session = session_of(request, result.facts, prepared=entry.model)
                except FailedPrecondition as error:
                    refused = str(error)
                else:
                    return use(session)
            self._store.remove(key)  # not under the lock that readers share
            self._store.refuse(key, Refusal(f"its prepared form could not be loaded: {refused}", lasting=False))
        except GatewayError as error:
            refused = str(error)
        except OSError as error:
            refused = f"it cannot be read: {error.strerror}"
        logger.warning("prepared form is not used: digest=%s reason=%s", request.local.digest, refused)
        return None

    async def prepare(self, request: ProbeRequest, result: ProbeResult, *, again: bool = False) -> str:
        """Returns "" once the version's prepared form is there, or why it is not; never raises for a version.

        What failed for a reason that may pass is not repeated for an hour, except with `again`.

        Order: on cancellation the process has ended and nothing of the preparation is left before this returns.
        """
        asked_at = time()
        key, is_trying = await asyncio.to_thread(self._key, request), False
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.to_thread(self._store.make)
                async with awaited_lock(self._store.preparing_lock):
                    if await asyncio.to_thread(self._store.has, key):
                        return ""
                    known = self._store.refusal(key, asked_at=asked_at, again=again)
                    if known is None:
                        is_trying = True
                        known = await self._attempt(key, request, result)
                        if known.reason:
                            self._store.refuse(key, known)
                    return known.reason
        except TimeoutError:
            late = Refusal(f"preparing it did not end within {self._timeout_s:g} s", lasting=False)
            if is_trying:
                with suppress(OSError):
                    self._store.refuse(key, late)
            return late.reason
        except OSError as error:
            return f"prepared models cannot be kept: {error.strerror}"

    async def _attempt(self, key: str, request: ProbeRequest, result: ProbeResult) -> Refusal:
        assert result.facts is not None
        limit = _FORMS * result.facts.weight_bytes + _SPARE_BYTES
        free = await asyncio.to_thread(self._store.free_bytes)
        if free < limit + _KEPT_FREE_BYTES:
            return Refusal(
                f"the disk of prepared models has {free} bytes free, {limit + _KEPT_FREE_BYTES} are needed to prepare "
                "it and to keep room for the log",
                lasting=False,
            )
        try:
            staging = await asyncio.to_thread(self._store.stage)
            wanted = PreparationRequest(
                replace(request, timeout_s=self._timeout_s),
                result.facts,
                batches=result.batches,
                key=key,
                directory=staging,
                file_limit=limit,
                idle=True,
            )
            refusal = await self._answer(wanted)
            if not refusal.stepped_back:
                logger.warning(
                    "preparation shared the CPU with the workers as an equal: digest=%s", request.local.digest
                )
            if not refusal.reason and not await asyncio.to_thread(self._store.publish, key, staging):
                refusal = Refusal(
                    f"prepared, it has more bytes than prepared models may have ({self._store.max_bytes})"
                )
        finally:
            await asyncio.to_thread(self._store.unstage)
        if refusal.reason:
            logger.warning("version is not prepared: digest=%s reason=%s", request.local.digest, refusal.reason)
        else:
            logger.info("version prepared: digest=%s", request.local.digest)
        return refusal

    async def _answer(self, wanted: PreparationRequest) -> Refusal:
        if self._idle_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s):
                    return await _run(wanted)
            await asyncio.to_thread(self._store.stage)
        return await _run(structs.replace(wanted, idle=False))

    def _key(self, request: ProbeRequest) -> str:
        return preparation_key(request, self._environment)

    @cached_property
    def _environment(self) -> RunEnvironment:
        return present_environment(0, 0)


@contextmanager
def _given_back() -> Iterator[None]:
    try:
        yield
    finally:
        give_back_memory()


async def _run(request: PreparationRequest) -> Refusal:
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "gateway.serving.preparation_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is the worker's to handle
            limit=_LINE_LIMIT,
        )
    except OSError as error:
        return Refusal(f"no process could be started to prepare it: {error.strerror}", lasting=False)
    try:
        answer, _ = await process.communicate(to_json(request) + b"\n")
    except ConnectionError:
        answer = b""
    finally:
        if process.returncode is None:
            process.kill()
        code = await process.wait()
    if not answer.endswith(b"\n"):
        return Refusal(f"the process that prepared it ended early (code {code})", lasting=False)
    return from_json(answer, Refusal)
