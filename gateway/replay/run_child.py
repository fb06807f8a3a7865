"""The process that runs one version for a replay, so that a model can crash it and nothing else.

Reads frames from standard input: a RunRequest, then lists of tensors, one for each run. Answers each on what was its
standard output: with a RunContract, then with RunAnswers. It lives within the limits of a probe, at the lowest
priority, and ends with its parent.
"""

import os
from dataclasses import replace
from time import perf_counter_ns
from typing import IO, Any

import msgspec

from gateway.errors import GatewayError
from gateway.pb import inference_pb2
from gateway.replay.run_message import (
    LENGTH_BYTES,
    RunAnswer,
    RunContract,
    RunRequest,
    SentTensor,
    arrays,
    framed,
    sent,
)
from gateway.serving.candidate import Candidate, Loaded
from gateway.serving.config_source import ConfigSource
from gateway.serving.opening import open_version
from gateway.serving.probe_child import end_with_parent, peak_memory, public_reason, set_limits
from gateway.serving.probe_request import ProbeRequest, ProbeResult, from_json
from gateway.serving.repository import ModelFolder
from gateway.serving.session import RunFailed
from loaders.errors import SourceNotFound

_NICENESS = 19


def main() -> None:
    """Answers the frames on standard input until its end."""
    with os.fdopen(os.dup(1), "wb") as answers, os.fdopen(0, "rb", closefd=False) as questions:
        os.dup2(2, 1)
        end_with_parent()
        os.nice(_NICENESS)
        request = _next(questions, RunRequest)
        if request is None:
            return
        baseline_bytes = peak_memory()
        probe = from_json(request.probe, ProbeRequest)
        set_limits(replace(probe, timeout_s=request.cpu_s))
        try:
            loaded = open_version(_candidate(request), probe, from_json(request.result, ProbeResult))
        except (GatewayError, OSError, MemoryError) as error:
            reason = public_reason(str(error) or "not enough memory", str(probe.local.path))
            _say(answers, RunContract(reason=reason or "it cannot be opened"))
            return
        config = loaded.config
        _say(
            answers,
            RunContract(
                config.inputs,
                config.outputs,
                config.max_batch_size > 0,
                config.max_request_rows,
                baseline_bytes,
            ),
        )
        while (tensors := _next(questions, tuple[SentTensor, ...])) is not None:
            _say(answers, _answer(loaded, tensors))


def _candidate(request: RunRequest) -> Candidate:
    def read(name: str, _limit: int) -> bytes:
        if name not in request.files:
            raise SourceNotFound(f"{name[:80]!a} is not there")
        return request.files[name]

    source = ConfigSource(inference_pb2.ModelConfig.FromString(request.message), frozenset(request.fields), ())
    return Candidate(ModelFolder(request.model, read, source, "", {}), request.version, source, "")


def _answer(loaded: Loaded, tensors: tuple[SentTensor, ...]) -> RunAnswer:
    specs = loaded.config.outputs
    feeds = arrays(tensors)
    began_ns = perf_counter_ns()
    try:
        outputs = loaded.opened.run([spec.name for spec in specs], feeds)
    except RunFailed as error:
        return RunAnswer(error=error.public_reason, peak_bytes=peak_memory())
    except (GatewayError, MemoryError) as error:
        return RunAnswer(error=str(error) or "not enough memory", peak_bytes=peak_memory())
    run_ns = perf_counter_ns() - began_ns
    made = tuple(sent(spec.name, spec.datatype, array) for spec, array in zip(specs, outputs, strict=True))
    return RunAnswer(made, run_ns=run_ns, peak_bytes=peak_memory())


def _next(questions: IO[bytes], kind: Any) -> Any:
    """Returns the next message, None at the end."""
    length = questions.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    return msgspec.msgpack.decode(questions.read(int.from_bytes(length, "little")), type=kind)


def _say(answers: IO[bytes], message: RunContract | RunAnswer) -> None:
    answers.write(framed(message))
    answers.flush()


if __name__ == "__main__":
    main()
