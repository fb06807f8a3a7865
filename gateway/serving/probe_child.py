"""The probe's process: verifies, loads and warms up one version, so that a model can crash it and not a worker.

Reads one line of JSON (a ProbeRequest) from standard input and writes lines of JSON (ProbeMessage) to what was its
standard output: one before each stage, and the result at the end. The limits are set before the first byte of the
model is read. Whatever else is printed, by native code too, goes to standard error.
"""

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from math import ceil
from time import perf_counter_ns
from typing import IO

from gateway.errors import FailedPrecondition, GatewayError
from gateway.serving.empty_inputs import try_empty_inputs
from gateway.serving.heap import limit_arenas
from gateway.serving.probe_request import ProbeMessage, ProbeRequest, ProbeResult, from_json, to_json
from gateway.serving.process_ban import ban_processes
from gateway.serving.runtime_message import without_places
from gateway.serving.session import Session, runs_on_cpu
from gateway.serving.verification import ModelFacts, verify
from gateway.serving.version_session import session_of
from gateway.serving.warm_up import OutOfMemory, WarmUp

VERIFYING = "being verified"
LOADING = "being loaded"
WARMING = "being warmed up"
EMPTY = "being run without rows or elements"

_MAX_REASON = 600
_MIB = 1 << 20
NICENESS = 5  # traffic comes first
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def main() -> None:
    """Answers the request on standard input."""
    with os.fdopen(os.dup(1), "wb") as answers, os.fdopen(os.dup(0), "rb") as requests:
        os.dup2(2, 1)
        end_with_parent()
        os.nice(NICENESS)
        answer(requests, answers)


def answer(requests: IO[bytes], answers: IO[bytes], *, growth_bytes: int = 0) -> None:
    """Answers one request. Everything that the model can do ends with this process.

    `growth_bytes` is by how much such a process grows whatever it tries: a fork has the pages of libraries only once it
    has used them.
    """
    request = from_json(requests.readline(), ProbeRequest)
    baseline_rss = peak_memory() + growth_bytes
    set_limits(request)
    try:
        result = probe(request, answers)
    except OutOfMemory as error:
        result = _refused(request, str(error), lasting=False)
    except MemoryError:
        limit = f"{request.memory_limit // _MIB} MiB"
        result = _refused(request, f"it needs more memory than the limit of {limit}", lasting=False)
    except OSError as error:
        result = _refused(request, f"its files cannot be read: {error.strerror}", lasting=False)
    except GatewayError as error:
        result = _refused(request, str(error), lasting=True)
    result = replace(result, baseline_rss_bytes=baseline_rss, peak_rss_bytes=peak_memory())
    _say(answers, ProbeMessage(result=result))


def public_reason(text: str, directory: str) -> str:
    """Returns `text` without this machine's paths and without control characters, cut to a readable length."""
    text = text.replace(f"{directory}/", "").replace(directory, "the version directory")
    text = " ".join(without_places(text).split())
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."


def probe(request: ProbeRequest, answers: IO[bytes]) -> ProbeResult:
    """Returns the result for a version that is good, tried in this process; says each stage before it begins.

    Raises: GatewayError, OSError, MemoryError.
    """
    _say(answers, ProbeMessage(stage=VERIFYING))
    facts = verify(request.local, filename=request.filename, policy=request.policy)
    _say(answers, ProbeMessage(stage=LOADING))
    begin = perf_counter_ns()
    session = _session(request, facts)
    load_ms = (perf_counter_ns() - begin) / 1e6
    _say(answers, ProbeMessage(stage=WARMING))
    findings = WarmUp(
        session, request.max_batch_size, request.warmups, allow_nan=request.policy.allow_nan, seed=request.seed
    ).run()
    warnings = [*([facts.objection] if facts.objection else []), *findings.warnings]
    result = ProbeResult(
        ok=True,
        facts=facts,
        inputs=session.inputs,
        outputs=session.outputs,
        overridable=session.overridable,
        answers=findings.answers,
        run_us=findings.run_us,
        batches=findings.batches,
        rows_independent=findings.rows_independent,
        bit_equal=findings.bit_equal,
        repeatable=findings.repeatable,
        warnings=tuple(public_reason(warning, str(request.local.path)) for warning in warnings),
        load_ms=load_ms,
    )
    _say(answers, ProbeMessage(stage=EMPTY, provisional=result))
    try_empty_inputs(session, findings.feed, batches=findings.batches)
    return result


def _session(request: ProbeRequest, facts: ModelFacts) -> Session:
    """Returns the session; if the runtime refuses the model, the error also names what the ONNX checker objects to."""
    try:
        return session_of(request, facts)
    except FailedPrecondition as error:
        raise FailedPrecondition("; ".join(filter(None, (str(error), facts.objection)))) from error


def _refused(request: ProbeRequest, reason: str, *, lasting: bool) -> ProbeResult:
    return ProbeResult(ok=False, reason=public_reason(reason, str(request.local.path)), lasting=lasting)


def _say(answers: IO[bytes], message: ProbeMessage) -> None:
    answers.write(to_json(message) + b"\n")
    answers.flush()


def end_with_parent() -> None:
    """Has the kernel end this process with its parent, and limits malloc's arenas."""
    limit_arenas(2)
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def forbid_tracing() -> None:
    """Has the kernel refuse this process's memory to other processes of its user, and that of its forks."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def set_limits(request: ProbeRequest, *, file_bytes: int = 16 * _MIB) -> None:
    """Bounds this process's address space, CPU time and files by the request, before it reads the model.

    The address space on Linux alone.

    Units: `file_bytes` of one file; a probe writes nothing but what it prints.

    It can start no other process from now on, where the kernel can forbid it, and as many threads as their stacks find
    room in the address space.
    """
    threads = max(request.intra_threads, request.inter_threads, 1)
    limits = {
        resource.RLIMIT_CPU: ceil(request.timeout_s * threads) + 1,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: file_bytes,
    }
    # macOS holds no process to such a limit; a GPU's driver reserves more addresses than any machine has memory.
    if sys.platform == "linux" and runs_on_cpu(request.options):
        limits[resource.RLIMIT_AS] = memory_figure("VmSize") + request.memory_limit
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (wanted, hard))
    ban_processes()


def peak_memory() -> int:
    """Returns the most memory that this process has held at a time, in bytes."""
    if sys.platform == "linux":
        return memory_figure("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def memory_figure(name: str) -> int:
    """Returns a memory figure that Linux has of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
