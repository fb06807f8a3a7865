"""Runs a logged request again: the same content of the version, the same input, and the answer held against the log."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.lake_sql import text
from gateway.drift.report.span import DAY_US, Span
from gateway.errors import Code, FailedPrecondition, NotFound
from gateway.replay.ensemble_runner import AnyRunner, runner_of
from gateway.replay.logged_request import LoggedRequest, logged_requests
from gateway.replay.logged_tensor import tensor_of
from gateway.replay.replay_question import RerunQuestion
from gateway.replay.replay_report import MISSING
from gateway.replay.rerun_report import OutputDifference, RerunReport
from gateway.replay.row_answer import as_floats, same_bits
from gateway.replay.run_files import EnsembleFiles
from gateway.replay.run_message import arrays, as_logged, sent
from gateway.replay.version_runner import RunnerGone
from gateway.replay.version_source import Ran, VersionSource
from gateway.serving.probe import Prober
from gateway.serving.run_environment import environment_at, present_environment
from gateway.tensor import Array, TensorSpec
from loaders.errors import LoaderError

_MOST_MERGED: Final = 256  # rows of a run that are tried
_STEP_US: Final = 1_000_000  # after the end of a request, none of its steps has begun


async def rerun(question: RerunQuestion) -> RerunReport:
    """Returns what came of it.

    Raises: NotFound (no such request), FailedPrecondition (it cannot be run again), and other GatewayErrors.
    """
    data_dir = Path(question.data_dir)
    source = VersionSource(data_dir, question.repository, [Path(path) for path in question.links_to])
    lake_dir = data_dir / "log" / "lake"
    if not lake_dir.is_dir():
        raise FailedPrecondition(f"no prediction log at {lake_dir}: name the gateway's own data directory")
    with Lake(lake_dir, threads=1) as lake:
        where = f"request_id = {text(question.request_id)}"
        selection = Selection(question.model, Span(0, question.now_us + DAY_US), where=where, as_sent=True)
        marks = list(logged_requests(lake, selection, (), ()))
        if not marks:
            raise NotFound(_nowhere(lake, question))
        newest = max(marks, key=lambda request: request.ts_us)
        then = environment_at(data_dir / "log", newest.ts_us)
        now = present_environment(then.threads if then is not None else 1, question.now_us)
        unknown: tuple[str, ...] = ()
        try:
            files = await asyncio.to_thread(
                lambda: source.find(question.model, newest.version, digest=newest.digest, threads=now.threads)
            )
            if isinstance(files, EnsembleFiles):
                ran = _ran(lake, files, newest)
                unknown = files.chosen(ran)
                files = await asyncio.to_thread(
                    lambda: source.find(
                        question.model, newest.version, digest=newest.digest, threads=now.threads, ran=ran
                    )
                )
        except LoaderError as refused:
            content = f"version {newest.version!r} as it was then (content {newest.digest[:12]})"
            raise FailedPrecondition(f"{content} is not here any more: {refused}") from refused
        async with runner_of(files, prober=Prober(data_dir / "state" / "probes")) as runner:
            contract = runner.contract
            specs = [as_logged(tensors, batches=contract.batches) for tensors in (contract.inputs, contract.outputs)]
            whole = [one for one in logged_requests(lake, selection, *specs) if one.ts_us == newest.ts_us]
            outputs, error = await _held_against_log(whole[0], runner, specs[0], specs[1])
            equal = bool(outputs) and all(one.equal for one in outputs if not one.missing)
            merged = None
            if outputs and not equal and contract.batches:
                merged = await _merged(whole[0], runner, specs[0], specs[1])
    known = [one for one in outputs if not one.missing]
    differences = then.differences(now) if then is not None else ()
    return RerunReport(
        model=question.model,
        version=newest.version,
        digest=newest.digest,
        request_id=question.request_id,
        ts_us=newest.ts_us,
        rows=newest.batch_size,
        records=len(marks),
        outcome="differs" if error or not equal else "bit-equal" if known else "unknown",
        outputs=outputs,
        equal_in_run_of=merged,
        error=error,
        runtime=now.runtime,
        environment_known=then is not None,
        environment=(*differences, *(f"{one}, the newest: the log does not tell which one ran" for one in unknown)),
    )


def _ran(lake: Lake, files: EnsembleFiles, whole: LoggedRequest) -> Ran:
    """Returns which versions ran as steps, where the log has these and tells it of the model."""
    ran = {}
    for model in files.models:
        span = Span(whole.ts_us, whole.ts_us + max(0, whole.infer_us) + _STEP_US)
        selection = Selection(model, span, where=f"request_id = {text(whole.request_id)}", as_sent=True)
        known = {(one.version, one.digest) for one in logged_requests(lake, selection, (), ())}
        if len(known) == 1:
            ran[model] = known.pop()
    return ran


async def _held_against_log(
    request: LoggedRequest, runner: AnyRunner, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[tuple[OutputDifference, ...], str]:
    """Returns each output beside the logged one, or why the version does not answer.

    Raises: FailedPrecondition (the log does not hold all inputs).
    """
    feeds = _feeds(request, inputs)
    made, error = await _run(runner, inputs, feeds)
    return tuple(_difference(request, spec, made) for spec in outputs) if not error else (), error


async def _merged(
    request: LoggedRequest, runner: AnyRunner, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> int | None:
    """Returns the rows of a larger run whose first rows are to the bit as logged: kernels sum in another order for
    another number of rows. None where there is none."""
    feeds, rows = _feeds(request, inputs), request.rows
    most = min(_MOST_MERGED, runner.contract.max_rows or _MOST_MERGED)
    size = 1
    while (size := size * 2) <= most:
        if size <= rows:
            continue
        repeated = {name: np.concatenate([tensor] * -(-size // rows))[:size] for name, tensor in feeds.items()}
        made, error = await _run(runner, inputs, repeated)
        if error:
            return None
        part = {name: tensor[:rows] for name, tensor in made.items() if tensor.shape[:1] == (size,)}
        told = [_difference(request, spec, part) for spec in outputs if spec.name in part]
        if told and all(one.equal for one in told if not one.missing):
            return size
    return None


def _feeds(request: LoggedRequest, inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    tensors = request.tensors(inputs, "in")
    if isinstance(tensors, str):
        raise FailedPrecondition(f"request {request.request_id!r} cannot be run again: {MISSING[tensors]}")
    return tensors


async def _run(
    runner: AnyRunner, inputs: Sequence[TensorSpec], feeds: Mapping[str, Array]
) -> tuple[dict[str, Array], str]:
    try:
        answer = await runner.run(
            [sent(one.name, one.datatype, feeds[one.name]) for one in inputs if one.name in feeds]
        )
    except RunnerGone as error:
        return {}, str(error)
    return dict(arrays(answer.outputs)), answer.error


def _difference(request: LoggedRequest, spec: TensorSpec, made: Mapping[str, Array]) -> OutputDifference:
    logged = tensor_of(spec, "out", request.columns, request.redacted, whole=request.whole)
    if isinstance(logged, str):
        return OutputDifference(spec.name, equal=False, missing=logged)
    answer = made[spec.name]
    if same_bits(answer, logged):
        return OutputDifference(spec.name, equal=True, elements=logged.size)
    if answer.shape != logged.shape:
        return OutputDifference(spec.name, equal=False, differing=logged.size, elements=logged.size)
    apart = answer != logged
    largest = None
    if spec.datatype.is_float:
        ours, theirs = (np.asarray(as_floats(spec, np.ascontiguousarray(one)), np.float64) for one in (answer, logged))
        apart = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs)) | (np.signbit(ours) != np.signbit(theirs))
        finite = np.abs(ours - theirs)[np.isfinite(ours) & np.isfinite(theirs)]
        largest = float(finite.max()) if finite.size else None
    return OutputDifference(
        spec.name, equal=False, differing=int(np.count_nonzero(apart)), elements=logged.size, largest=largest
    )


def _nowhere(lake: Lake, question: RerunQuestion) -> str:
    """Returns why there is no answered request with that id."""
    name = f"request {question.request_id!r} of model {question.model!r}"
    sql = f"SELECT status, is_shadow FROM predictions WHERE request_id = {text(question.request_id)} LIMIT 1"
    told = next(lake.query(sql, model=question.model).rows, None)
    if told is None:
        return f"{name} is not in the log of this host; the newest minute is not in Parquet yet"
    return f"{name} was not answered then: {Code(told[0]).name}" if told[0] else f"{name} is a mirror's copy only"
