"""Probes in forks of one process that has everything imported, for tests with a thousand models."""

import asyncio
import multiprocessing
import os
import sys
from dataclasses import replace
from multiprocessing.connection import Connection

from gateway.serving import probe_child
from gateway.serving.probe import Prober
from gateway.serving.probe_request import ProbeMessage, ProbeRequest, ProbeResult, from_json, to_json

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["gateway.serving.probe_child"])
_LIMIT_S = 60


class ForkedProber(Prober):
    """Tries each version by the same code within the same limits as the gateway's own, in a forked process."""

    async def probe(self, request: ProbeRequest, *, again: bool = False) -> ProbeResult:
        async with self._permit():
            return await asyncio.to_thread(_tried, request)


def _tried(request: ProbeRequest) -> ProbeResult:
    ours, theirs = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_child, args=(theirs, to_json(request)))
    process.start()
    theirs.close()
    provisional = None
    try:
        with os.fdopen(os.dup(ours.fileno()), "rb") as lines:
            for line in lines:
                message = from_json(line, ProbeMessage)
                provisional = message.provisional or provisional
                if message.result is not None:
                    return message.result
    finally:
        ours.close()
        process.join(_LIMIT_S)
    reason = f"its process ended with {process.exitcode}"
    if provisional is not None:
        return replace(provisional, empty_inputs=reason)
    return ProbeResult(ok=False, reason=reason, lasting=False)


def _child(answers: Connection, request: bytes) -> None:
    """Answers as `probe_child.main` does, to another descriptor."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as line:
        line.write(request + b"\n")  # a request of a few KiB fits into a pipe
    sys.stdin = os.fdopen(read)  # that of such a process is closed
    os.dup2(answers.fileno(), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    probe_child.main()
