"""Tries a version in a process of its own before a worker loads it.

    worker ── ProbeRequest ──> a fork of the zygote ── ProbeResult ──> worker, and the cache for its siblings

No trial has anything of another one: each is forked from a process that never reads a model (`zygote_process`), within
its own limits, and ends with its result. Where that process dies during a trial, the trial is repeated with a zygote of
its own, so that a model that ends the trials of others is found, and those are judged rightly.

The workers of a host share the cache: the first worker probes under a file lock, the others wait for its result without
blocking their loops.
"""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import IO

from gateway.serving.host_lock import awaited_lock
from gateway.serving.patient_permits import PatientPermits
from gateway.serving.probe_child import main, public_reason
from gateway.serving.probe_request import ProbeMessage, ProbeRequest, ProbeResult, from_json, to_json
from gateway.serving.session import runtime_key
from gateway.serving.zygote import Trial, Zygote, ZygoteGone

__all__ = ["ProbeRequest", "ProbeResult", "Prober"]

logger = logging.getLogger(__name__)

_LINE_LIMIT = 64 << 20
_EMPTY_LIMIT_S = 5.0  # runs without rows or elements take no time, unless they never end
_STDERR_SHOWN = 2000
_TIMEOUT_REMEMBERED_S = 3600.0  # a hanging model must not delay every start; a busy machine may be the cause
_SIGNALS = {
    signal.SIGKILL: "memory limit of the machine?",
    signal.SIGABRT: "aborted, out of memory?",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "arithmetic error",
    signal.SIGXCPU: "CPU time limit",
}


class Prober:
    """Probes versions: the same content with the same parameters once per host.

    `cache` is a directory of this host; without one every probe runs. `concurrency` probes of this worker run side by
    side; one that takes longer than `patience_s` makes room for another, so that a model that hangs does not delay
    the others. The process that probes are forked from is kept for `idle_s` after the last one; where that is not 0 the
    prober must be closed.
    """

    def __init__(
        self, cache: Path | None = None, *, concurrency: int = 4, patience_s: float = 5.0, idle_s: float = 0.0
    ) -> None:
        self._cache = cache
        self._zygote = Zygote(idle_s=idle_s)
        self._permits = PatientPermits(concurrency, patience_s)

    async def known(self, request: ProbeRequest, *, again: bool = False) -> ProbeResult | None:
        """Returns the result that the host remembers of this content, or None if the content has to be probed.

        A good or bad result is remembered for ever, one that took too long for an hour, or not at all with `again`.
        """
        if self._cache is None:
            return None
        asked_at = time()
        return await asyncio.to_thread(lambda: _read(self._path(request), asked_at, again=again))

    async def probe(self, request: ProbeRequest, *, again: bool = False) -> ProbeResult:
        """Returns the result of the probe; never raises for a bad version.

        Order: on cancellation the process has ended before this returns.
        """
        async with self._permits.held():
            if self._cache is None or not await asyncio.to_thread(_made, self._cache):
                return await _run(self._zygote, request)
            asked_at = time()
            path = await asyncio.to_thread(self._path, request)
            async with awaited_lock(path.with_suffix(".lock")):
                known = await asyncio.to_thread(lambda: _read(path, asked_at, again=again))
                if known is None:
                    known = await _run(self._zygote, request)
                    await asyncio.to_thread(_write, path, known)
                return known

    async def aclose(self) -> None:
        """Ends whatever probe runs, and the process that it was forked from."""
        await self._zygote.aclose()

    def _path(self, request: ProbeRequest) -> Path:
        return (self._cache or Path()) / f"{request.key(runtime_key())}.json"


async def _run(zygote: Zygote, request: ProbeRequest) -> ProbeResult:
    progress = _Progress()
    try:
        try:
            return await _tried(zygote, request, progress)
        except ZygoteGone:
            progress = _Progress()
            return await _tried(Zygote(), request, progress)
    except ZygoteGone:
        reason = f"the process from which it was forked ended while it was {progress.stage}"
        return ProbeResult(ok=False, reason=reason, lasting=False)
    except OSError as error:
        reason = f"no process could be started to try it: {error.strerror}"
        return ProbeResult(ok=False, reason=reason, lasting=False, was_tried=False)


async def _tried(zygote: Zygote, request: ProbeRequest, progress: "_Progress") -> ProbeResult:
    async with zygote.trial() as trial:
        try:
            async with asyncio.timeout(request.timeout_s) as limit:
                result = await _talk(trial, request, progress, limit)
                if result is not None:
                    return result
                code = await zygote.end(trial)
        except TimeoutError:
            if progress.provisional is not None:
                return replace(progress.provisional, empty_inputs="did not end")
            reason = f"took longer than {request.timeout_s:g} s while {progress.stage}"
            return ProbeResult(ok=False, reason=reason, lasting=False, timed_out=True)
        died = _died(code, progress.stage, trial.errors, request)
        if progress.provisional is not None:
            return replace(progress.provisional, empty_inputs=died.reason)
        return died


@dataclass(slots=True)
class _Progress:
    """Holds how far a probe has come; its process reports each stage before it begins."""

    stage: str = "being started"
    provisional: ProbeResult | None = None


async def _talk(trial: Trial, request: ProbeRequest, progress: _Progress, limit: asyncio.Timeout) -> ProbeResult | None:
    """Returns the result that the process reports, or None if it ended without one."""
    try:
        trial.requests.write(to_json(request) + b"\n")
        await trial.requests.drain()
        async for line in trial.answers:
            if not line.endswith(b"\n"):
                break  # it died in the middle of it
            message = from_json(line, ProbeMessage)
            if message.result is not None:
                return message.result
            progress.stage = message.stage
            if message.provisional is not None:
                progress.provisional = message.provisional
                limit.reschedule(asyncio.get_running_loop().time() + _EMPTY_LIMIT_S)
    except (ConnectionError, ValueError):  # it died, or what it says is no answer of ours
        pass
    return None


def cause_of_death(code: int, stage: str) -> str:
    """Returns in words how a process that a signal ended has died."""
    return f"killed by signal {-code} ({_SIGNALS.get(signal.Signals(-code), 'crash')}) while {stage}"


def _died(code: int, stage: str, errors: IO[bytes], request: ProbeRequest) -> ProbeResult:
    errors.seek(max(0, os.fstat(errors.fileno()).st_size - _STDERR_SHOWN))
    tail = public_reason(errors.read().decode("utf-8", "replace"), str(request.local.path))
    logger.warning("probe died: code=%d stage=%s digest=%s stderr=%s", code, stage, request.local.digest, tail)
    if code < 0:
        reason = cause_of_death(code, stage)
        return ProbeResult(ok=False, reason=reason, lasting=False, timed_out=-code == signal.SIGXCPU)
    return ProbeResult(ok=False, reason=f"the probe ended with exit code {code} while {stage}", lasting=False)


def _made(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("probe results cannot be kept: error=%s", error.strerror)
        return False
    return True


def _read(path: Path, asked_at: float, *, again: bool) -> ProbeResult | None:
    """Returns the cached result if it still holds, else None.

    A lasting result holds for ever. One that took too long holds for an hour, or not at all with `again`. Any other
    holds only for callers that were already waiting when it was written.
    """
    try:
        finished_at = path.stat().st_mtime
        result = from_json(path.read_bytes(), ProbeResult)
    except (OSError, ValueError):
        return None
    remembered = result.timed_out and not again and asked_at - finished_at < _TIMEOUT_REMEMBERED_S
    return result if result.lasting or remembered or finished_at >= asked_at else None


def _write(path: Path, result: ProbeResult) -> None:
    staging = path.with_suffix(f".{os.getpid()}")
    try:
        staging.write_bytes(to_json(result))
        os.replace(staging, path)
    except OSError as error:
        logger.warning("probe result not kept: error=%s", error.strerror)


if __name__ == "__main__":
    main()
