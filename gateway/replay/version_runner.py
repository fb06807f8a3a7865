"""Runs a version in a process of its own, within limits on memory and time, and goes on where a request ends it."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final, Generic, Self, TypeVar

import msgspec

from gateway.errors import FailedPrecondition
from gateway.replay.run_files import EnsembleFiles, VersionFiles
from gateway.replay.run_message import LENGTH_BYTES, MOST_BYTES, RunAnswer, RunContract, RunRequest, SentTensor, framed
from gateway.serving.probe import Prober, ProbeResult, cause_of_death
from gateway.serving.probe_request import to_json

_OPEN_S: Final = 60.0
_STDERR_BYTES: Final = 2000
Kind = TypeVar("Kind", RunContract, RunAnswer)
Files = TypeVar("Files", VersionFiles, EnsembleFiles)


class RunnerGone(Exception):
    """The version has ended its process too often: it cannot be run on."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Units: seconds that one run may take, seconds of CPU time of all runs together; `deaths` of the process."""

    run_s: float = 30.0
    cpu_s: float = 3600.0
    deaths: int = 5


class Runner(Generic[Files]):
    """What can be run of these files, within limits; `contract` is what it takes and answers, `probed` what its first
    runs have shown.
    """

    def __init__(self, files: Files, limits: RunLimits | None = None, prober: Prober | None = None) -> None:
        self._files: Files = files
        self._limits = limits or RunLimits()
        self._prober = prober or Prober()
        self.contract = RunContract()
        self.probed = ProbeResult(ok=False)

    @property
    def version(self) -> str:
        return self._files.candidate.version

    @property
    def digest(self) -> str:
        return self._files.digest


class VersionRunner(Runner[VersionFiles]):
    """One version that can be run. Use it as a context: its process ends with the block.

    `peak_bytes` is the most memory that it held beyond what the process had before.
    """

    def __init__(self, files: VersionFiles, limits: RunLimits | None = None, prober: Prober | None = None) -> None:
        super().__init__(files, limits, prober)
        self._process: asyncio.subprocess.Process | None = None
        self._errors: IO[bytes] | None = None
        self._deaths = 0
        self.peak_bytes = 0

    @property
    def pid(self) -> int | None:
        """Returns the number of the process, None while there is none."""
        return self._process.pid if self._process is not None else None

    async def __aenter__(self) -> Self:
        """Raises: FailedPrecondition with the reason why the version cannot be run."""
        self.probed = await self._prober.probe(self._files.probe)
        if not self.probed.ok:
            raise FailedPrecondition(f"version {self.version!r} cannot be loaded: {self.probed.reason}")
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def run(self, tensors: Sequence[SentTensor]) -> RunAnswer:
        """Returns the answer to these inputs. What ends the process is an answer, too: one with an error.

        Raises: RunnerGone.
        """
        if self._process is None:
            await self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            async with asyncio.timeout(self._limits.run_s):
                process.stdin.write(framed(tuple(tensors)))
                await process.stdin.drain()
                answer = await self._heard(RunAnswer)
        except TimeoutError:
            await self._end()
            return self._died(f"the run took longer than {self._limits.run_s:g} s")
        except ConnectionError:
            answer = None
        if answer is None:
            return self._died(await self._cause())
        self.peak_bytes = max(self.peak_bytes, answer.peak_bytes - self.contract.baseline_bytes)
        return answer

    def _died(self, cause: str) -> RunAnswer:
        self._deaths += 1
        if self._deaths >= self._limits.deaths:
            raise RunnerGone(f"version {self.version!r} ended its process {self._deaths} times; the last one: {cause}")
        return RunAnswer(error=f"it ended its process: {cause}")

    async def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "gateway.replay.run_child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        candidate = self._files.candidate
        request = RunRequest(
            candidate.model,
            candidate.version,
            to_json(self._files.probe),
            to_json(self.probed),
            candidate.source.message.SerializeToString(deterministic=True),
            tuple(sorted(candidate.source.fields)),
            dict(self._files.files),
            self._limits.cpu_s,
        )
        assert self._process.stdin is not None
        contract: RunContract | None = None
        try:
            async with asyncio.timeout(_OPEN_S):
                self._process.stdin.write(framed(request))
                await self._process.stdin.drain()
                contract = await self._heard(RunContract)
        except TimeoutError:
            raise FailedPrecondition(f"version {self.version!r} took longer than {_OPEN_S:g} s to be opened") from None
        except ConnectionError:
            pass
        if contract is None:
            raise FailedPrecondition(f"version {self.version!r} cannot be opened: {await self._cause()}")
        if contract.reason:
            raise FailedPrecondition(f"version {self.version!r} cannot be opened: {contract.reason}")
        self.contract = contract

    async def _heard(self, kind: type[Kind]) -> Kind | None:
        """Returns the process's next message, or None if it ended without one."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            length = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "little")
            if length > MOST_BYTES:
                return None
            return msgspec.msgpack.decode(await self._process.stdout.readexactly(length), type=kind)
        except asyncio.IncompleteReadError:
            return None

    async def _cause(self) -> str:
        """Returns how the process has ended, in words; it is reaped."""
        assert self._process is not None
        code = await self._process.wait()
        tail = ""
        if self._errors is not None:
            self._errors.seek(max(0, os.fstat(self._errors.fileno()).st_size - _STDERR_BYTES))
            tail = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        await self._end()
        return cause_of_death(code, "running") if code < 0 else f"exit code {code} ({tail})"

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            if process.returncode is None:
                process.kill()
            await process.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None
