"""The preparation's process: writes a version in ONNX Runtime's optimised form, and tries what it wrote.

Reads one line of JSON (a PreparationRequest) from standard input and writes one (a Refusal, whose reason is "" once the
files are there) to what was its standard output. It steps back from the CPU and the disk.
"""

import ctypes
import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Final

from msgspec import structs

from gateway.errors import FailedPrecondition, GatewayError
from gateway.serving.autogroup import lower_autogroup
from gateway.serving.heap import reused_buffers, settle_heap
from gateway.serving.preparation_request import PreparationRequest
from gateway.serving.prepared_store import MODEL_FILENAME, Refusal, seal
from gateway.serving.probe_child import end_with_parent, public_reason, set_limits
from gateway.serving.probe_request import from_json, to_json
from gateway.serving.session import WEIGHTS_FILENAME, Session
from gateway.serving.version_session import session_of
from gateway.serving.warm_up import Feed, WarmUp
from gateway.tensor import Array
from loaders.loader import LocalVersion
from loaders.store import hashed

_NICENESS: Final = 10
_LAST: Final = 19  # niceness, of a process and of a session
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS: Final = 1
_IOPRIO_CLASS_IDLE: Final = 3 << 13
_SHARE: Final = 2  # a half of the weights must lie in the file that is mapped


class Unprepared(Exception):
    """Raised when a version cannot be prepared, and never will be."""


def main() -> None:
    """Answers the request on standard input."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        end_with_parent()
        settle_heap()
        request = from_json(sys.stdin.buffer.readline(), PreparationRequest)
        stepped_back = step_back(idle=request.idle)
        probe = request.probe
        # The files that are written are mapped when they are tried.
        limit = probe.memory_limit + 2 * request.file_limit
        set_limits(replace(probe, memory_bytes=limit), file_bytes=request.file_limit)
        answers.write(to_json(structs.replace(_answer(request), stepped_back=stepped_back)) + b"\n")


def step_back(*, idle: bool) -> bool:
    """Lets every other process of the machine go first, at the disk and at the CPU; with `idle` whatever it costs.

    Without it the session keeps its share of the CPU: there is a limit of time for what is done then. Elsewhere than on
    Linux others go first at the CPU alone. Returns False where the session should step back and does not.
    """
    os.nice(_LAST if idle else _NICENESS)
    stepped_back = lower_autogroup(_LAST) if idle else True
    if sys.platform == "linux":
        # Not the idle class: the kernel wakes others' threads on a CPU that only that class uses, as on a free one, and
        # where it shares the CPU among sessions they wait there for the next tick.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        number = _IOPRIO_SET.get(os.uname().machine)
        if number is not None:
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE)
    return stepped_back


def _answer(request: PreparationRequest) -> Refusal:
    try:
        prepare(request)
    except Unprepared as error:
        return Refusal(str(error))
    except MemoryError:
        return Refusal("preparing it needs more memory than the limit", lasting=False)
    except OSError as error:
        return Refusal(f"its prepared files cannot be written: {error.strerror}", lasting=False)
    except GatewayError as error:
        reason = str(error).replace(f"{request.directory}/", "")
        return Refusal(f"preparing it failed: {public_reason(reason, str(request.probe.local.path))}", lasting=False)
    return Refusal("")


def prepare(request: PreparationRequest) -> None:
    """Writes a prepared model into the directory, with its manifest, once it has answered as the version does.

    Raises: Unprepared, GatewayError, OSError, MemoryError.
    """
    _check_content(request.probe.local)
    target = request.directory / MODEL_FILENAME
    with reused_buffers():  # every fault keeps the kernel from whoever is to go first
        session = session_of(request.probe, request.facts, saves_to=target)
    weights = request.directory / WEIGHTS_FILENAME
    if not weights.exists() or weights.stat().st_size * _SHARE < request.facts.weight_bytes:
        raise Unprepared("its weights are no initializers, which alone can be shared")
    feeds = _warm_up(session, request).feeds()
    if not feeds:
        raise Unprepared("it takes no inputs that are known")
    feeds = feeds if request.batches else feeds[:1]
    expected, described = _answers(session, feeds), _description(session)
    del session
    with reused_buffers():
        prepared = session_of(request.probe, request.facts, prepared=target)
    if _description(prepared) != described:
        raise Unprepared("its prepared form has other inputs, outputs or metadata")
    if _answers(prepared, feeds) != expected:
        raise Unprepared("its prepared form answers otherwise")
    seal(request.directory, request.key)


def _check_content(local: LocalVersion) -> None:
    for entry in local.files:
        if hashed(local.path, entry.name) != entry:
            raise FailedPrecondition(f"{entry.name} changed since it was fetched")


def _warm_up(session: Session, request: PreparationRequest) -> WarmUp:
    probe = request.probe
    return WarmUp(session, probe.max_batch_size, probe.warmups, allow_nan=probe.policy.allow_nan, seed=probe.seed)


def _description(session: Session) -> tuple[object, ...]:
    return session.inputs, session.outputs, session.overridable, session.may_batch, dict(session.metadata)


def _answers(session: Session, feeds: list[Feed]) -> list[tuple[object, ...]]:
    """Returns the outputs of each run to the bit. Raises: GatewayError, where a run fails."""
    return [_bits(output) for feed in feeds for output in session.run(None, feed)]


def _bits(output: Array) -> tuple[object, ...]:
    content = output.reshape(-1).tolist() if output.dtype == object else output.tobytes()
    return output.dtype.str, output.shape, content


if __name__ == "__main__":
    main()
