"""A replay: logged requests run through a version, and through another one or against what was answered then."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Census, Selection
from gateway.drift.report.span import Span
from gateway.errors import FailedPrecondition
from gateway.replay.ensemble_runner import AnyRunner, runner_of
from gateway.replay.logged_request import LoggedRequest, check_segments, logged_requests
from gateway.replay.replay_question import ReplayQuestion
from gateway.replay.replay_report import LOGGED, MISSING, FailedRuns, ReplayReport, ReplaySide
from gateway.replay.row_answer import RowAnswers, RowClass, answers_of, quantiles, same_bits
from gateway.replay.row_comparison import ComparedRow, RowComparison
from gateway.replay.run_files import EnsembleFiles
from gateway.replay.run_message import SentTensor, arrays, as_logged, sent
from gateway.replay.version_runner import RunLimits, RunnerGone
from gateway.replay.version_source import VersionSource
from gateway.serving.probe import Prober
from gateway.tensor import Array, Datatype, TensorSpec
from loaders.errors import LoaderError

_REASONS: Final = 20
_CELLS: Final = 12  # features that are shown of a row
_TELL_EVERY: Final = 50
Tell = Callable[[int, int], None]
Feeds = Sequence[tuple[TensorSpec, Array]]


@dataclass(slots=True)
class _Run:
    """One side that runs: what it took, what it could not answer."""

    runner: AnyRunner
    run_us: list[float] = field(default_factory=list)
    failures: dict[str, list[int | str]] = field(default_factory=dict)  # rows, and the first request, by the reason
    failed_rows: int = 0
    gone: str = ""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        contract = self.runner.contract
        return as_logged(contract.inputs, batches=contract.batches)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        contract = self.runner.contract
        return as_logged(contract.outputs, batches=contract.batches)

    def fail(self, reason: str, request: LoggedRequest) -> None:
        self.failed_rows += request.rows
        if reason in self.failures or len(self.failures) < _REASONS:
            known = self.failures.setdefault(reason, [0, request.request_id])
            known[0] = int(known[0]) + request.rows

    async def answer(self, feeds: Feeds, request: LoggedRequest) -> dict[str, Array] | None:
        """Returns the outputs, None where the version fails. Raises: RunnerGone."""
        most = self.runner.contract.max_rows
        if most and request.rows > most:
            self.fail(f"the request has more rows than the {most} that the version takes", request)
            return None
        tensors: list[SentTensor] = [sent(spec.name, spec.datatype, array) for spec, array in feeds]
        answer = await self.runner.run(tensors)
        if answer.error:
            self.fail(answer.error, request)
            return None
        self.run_us.append(answer.run_ns / 1000)
        return dict(arrays(answer.outputs))

    def side(self) -> ReplaySide:
        runner = self.runner
        return ReplaySide(
            runner.version,
            runner.digest,
            quantiles(self.run_us),
            max(0, runner.peak_bytes),
            round(runner.probed.load_ms, 1),
            self.failed_rows,
        )

    def failed(self) -> list[FailedRuns]:
        return [
            FailedRuns(self.runner.version, reason, int(rows), str(first))
            for reason, (rows, first) in self.failures.items()
        ]


async def replay(question: ReplayQuestion, tell: Tell) -> ReplayReport:
    """Returns the report; `tell` is told how many rows are done, and of how many.

    Raises: GatewayError (InvalidArgument where the question is wrong; a version cannot be run at all).
    """
    data_dir = Path(question.data_dir)
    source = VersionSource(data_dir, question.repository, [Path(path) for path in question.links_to])
    try:
        files = [await asyncio.to_thread(source.find, question.model, question.version)]
        if question.against != LOGGED:
            files.append(await asyncio.to_thread(source.find, question.model, question.against))
    except LoaderError as error:
        raise FailedPrecondition(str(error)) from error
    lake_dir = data_dir / "log" / "lake"
    if not lake_dir.is_dir():
        raise FailedPrecondition(f"no prediction log at {lake_dir}: name the gateway's own data directory")
    limits = RunLimits(cpu_s=question.limit_s)
    prober = Prober(data_dir / "state" / "probes")
    end_s = asyncio.get_running_loop().time() + question.limit_s
    async with AsyncExitStack() as stack:
        lake = stack.enter_context(Lake(lake_dir, threads=1))
        span = Span(question.start_us, question.end_us)
        selection = Selection(question.model, span, where=question.where, as_sent=True)
        check_segments(lake, selection, question.by)
        census = lake.census(selection)  # a wrong question is refused before anything is started
        runs = [
            _Run(await stack.enter_async_context(runner_of(one.limited(question.memory_bytes), limits, prober)))
            for one in files
        ]
        notes = [
            f"version {one.candidate.version} ran with these versions, the newest ones: {', '.join(chosen)}"
            for one in files
            if isinstance(one, EnsembleFiles) and (chosen := one.chosen())
        ]
        return await _Replay(question, runs, lake, end_s, tell, notes).run(selection, census)


class _Replay:
    """One replay under way; `runs` has the candidate and, where it runs, the version that it is compared with."""

    def __init__(
        self,
        question: ReplayQuestion,
        runs: Sequence[_Run],
        lake: Lake,
        end_s: float,
        tell: Tell,
        notes: Sequence[str],
    ) -> None:
        self._question = question
        self._candidate, self._baseline = runs[0], runs[1] if len(runs) > 1 else None
        self._runs = runs
        self._lake = lake
        self._end_s = end_s
        self._tell = tell
        self._comparison = RowComparison(question.shown)
        self._missing: Counter[str] = Counter(dict.fromkeys(MISSING, 0))
        self._logged_us: list[float] = []
        self._requests = self._comparable = self._bit_equal = self._cut = 0
        self._notes = list(notes)
        self._names: dict[str, str] = {}

    async def run(self, selection: Selection, census: Census) -> ReplayReport:
        question = self._question
        self._names = self._lake.feature_names(selection)
        self._missing["sampled"] = max(0, round(float(census.weights.sum()) - census.total))
        wanted = min(question.rows, census.total)
        share = min(1.0, (1.1 * wanted + 100) / max(1, census.total))
        inputs = {spec.name: spec for run in reversed(self._runs) for spec in run.inputs}
        outputs = (self._baseline or self._candidate).outputs
        taken = 0
        for request in logged_requests(
            self._lake, selection, tuple(inputs.values()), outputs, by=question.by, share=share
        ):
            if taken >= wanted:
                break
            if asyncio.get_running_loop().time() > self._end_s:
                self._missing["left"] = wanted - taken
                self._notes.append(f"stopped after {question.limit_s:g} s")
                break
            taken += request.rows
            try:
                await self._one(request)
            except RunnerGone as error:
                self._missing["left"] = max(0, wanted - taken)
                self._notes.append(str(error))
                break
            if self._requests % _TELL_EVERY == 0:
                self._tell(taken, wanted)
        self._notes += self._lake.left_out
        if self._cut:
            self._notes.append(
                f"of {self._cut} requests the condition chose some rows only: they ran without the others"
            )
        return self._report()

    async def _one(self, request: LoggedRequest) -> None:
        feeds: list[list[tuple[TensorSpec, Array]]] = []
        for run in self._runs:
            tensors = request.tensors(run.inputs, "in")
            if isinstance(tensors, str):
                self._missing[tensors] += request.rows
                return
            feeds.append([(spec, tensors[spec.name]) for spec in run.inputs if spec.name in tensors])
        self._requests += 1
        self._cut += not request.whole
        try:
            outputs = await self._candidate.answer(feeds[0], request)
        except RunnerGone:
            self._candidate.fail("it ended its process", request)
            raise
        after = answers_of(outputs, self._candidate.outputs, request.rows) if outputs is not None else None
        before: RowAnswers | None
        if self._baseline is not None:
            theirs = await self._baseline.answer(feeds[1], request)
            before = answers_of(theirs, self._baseline.outputs, request.rows) if theirs is not None else None
            self._hold_against_log(request, theirs)
        else:
            before, after = self._logged(request), _as_logged_scores(after)
            if request.infer_us >= 0:  # else the answer came from the cache
                self._logged_us.append(float(request.infer_us))
        self._comparison.add([self._row(request, place) for place in range(request.rows)], before, after)

    def _hold_against_log(self, request: LoggedRequest, outputs: dict[str, Array] | None) -> None:
        """Counts whether the baseline answers to the bit as it did then, where it was this version that answered."""
        run = self._baseline
        if run is None or outputs is None or request.digest != run.runner.digest:
            return
        logged = request.tensors(run.outputs, "out")
        if isinstance(logged, str):
            return
        self._comparable += request.rows
        self._bit_equal += request.rows if all(same_bits(outputs[name], one) for name, one in logged.items()) else 0

    def _logged(self, request: LoggedRequest) -> RowAnswers:
        """Returns what was answered then."""
        texts: Sequence[object] = ()
        for spec in self._candidate.outputs:
            if spec.datatype is Datatype.BYTES and f"out.{spec.name}" in request.columns:
                texts = request.columns[f"out.{spec.name}"]
        classes: list[RowClass] = list(request.columns["pred_class"])
        for place, named in enumerate(texts):
            if classes[place] is None and isinstance(named, str):
                classes[place] = named
        scores = [math.nan if value is None else float(value) for value in request.columns["pred_score"]]
        numbers = {}
        logged = request.tensors(self._candidate.outputs, "out")
        if not isinstance(logged, str):
            numbers = dict(answers_of(logged, self._candidate.outputs, request.rows).numbers)
        return RowAnswers(tuple(classes), np.array(scores), numbers)

    def _row(self, request: LoggedRequest, place: int) -> ComparedRow:
        segment = request.columns["segment"][place] if self._question.by else None
        return ComparedRow(
            request.request_id,
            int(request.columns["row_index"][place]),
            request.ts_us,
            request.version,
            request.arm,
            request.weight,
            segment,
            request.feature_cells(place, _CELLS, self._names),
        )

    def _report(self) -> ReplayReport:
        question, comparison = self._question, self._comparison
        chosen, kinds, moved_by = comparison.changed(question.tolerance)
        before, after, differences = comparison.spreads()
        sides = [run.side() for run in self._runs]
        if self._baseline is None:
            sides.append(ReplaySide(LOGGED, "", quantiles(self._logged_us), 0, 0.0, 0))
        return ReplayReport(
            model=question.model,
            version=question.version,
            against=question.against,
            start_us=question.start_us,
            end_us=question.end_us,
            where=question.where,
            by=question.by,
            generated_us=question.now_us,
            rows=comparison.rows,
            requests=self._requests,
            missing=dict(self._missing),
            changed=comparison.share(chosen),
            kinds=kinds,
            transitions=tuple((was, is_, rows) for (was, is_), rows in comparison.transitions.most_common(20)),
            before=before,
            after=after,
            differences=differences,
            moved_by=moved_by,
            largest=comparison.largest(),
            segments=comparison.segments(chosen) if question.by else (),
            sides=tuple(sides),
            failures=tuple(one for run in self._runs for one in run.failed()),
            comparable=self._comparable,
            bit_equal=self._bit_equal,
            notes=tuple(self._notes),
        )


def _as_logged_scores(answers: RowAnswers | None) -> RowAnswers | None:
    """Returns the answers with scores as precise as those of the log, which are of 32 bits."""
    if answers is None:
        return None
    with np.errstate(over="ignore"):
        return replace(answers, scores=answers.scores.astype(np.float32).astype(np.float64))
