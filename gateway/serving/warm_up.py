"""The first runs of a session: they show whether it answers as declared, how fast, and whether rows may share a run.

1. If the configuration has warm-up requests, only these are run: their author knows what the model takes.
   Without them inputs are made up from the declared shapes.
2. Made-up data come in three kinds, tried in order: random, ones, zeros. A model may rightly refuse one of them (an
   index out of range, a logarithm of a negative number).
3. A tensor that is declared without a shape is tried with no dimension, then with one to four, all of them free.
4. A free size other than the batch is tried as 1, then 16, then 224: convolutions refuse images of one pixel.
5. Made-up data never decide whether a version may serve: one that refuses them all, or answers NaN, is served with a
   warning. What decides is that it loads, that it has enough memory, and that warm-up requests of its author succeed.
6. Outputs are served in the shape that was seen; one that is declared otherwise is a warning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from statistics import median
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from gateway.errors import GatewayError
from gateway.serving.model_config import Warmup, WarmupInput
from gateway.serving.model_policy import InvalidModel, shown
from gateway.serving.row_trial import RowTrial, as_float, close, rows_of
from gateway.serving.session import RunFailed, Session
from gateway.tensor import Array, Datatype, TensorSpec

Feed = Mapping[str, Array]

_KINDS = ("random", "ones", "zeros")
_FREE_SIZES = (1, 16, 224)
_RANKS = range(5)  # up to a batch of images
_MAX_FEED_BYTES = 1 << 30
_ROWS = 8
_REPEATS = 20
_CURE = "a model_warmup in config.pbtxt names inputs that it does take"
_REPEATS_NS = 100_000_000
_NO_MEMORY = ("allocate memory", "bad_alloc", "bad allocation", "out of memory")


class WarmUpFailed(InvalidModel):
    """Raised when the model loads but does not answer as it should."""


class OutOfMemory(WarmUpFailed):
    """Raised when a run asked for more memory than the limit."""


@dataclass(slots=True)
class Findings:
    """Holds what the first runs showed; the fields are those of `gateway.serving.probe_request.ProbeResult`."""

    answers: tuple[TensorSpec, ...] = ()
    run_us: dict[int, float] = field(default_factory=dict)
    batches: bool = False
    rows_independent: bool | None = None
    bit_equal: bool | None = None
    repeatable: bool | None = None
    warnings: list[str] = field(default_factory=list)
    feed: Feed | None = None  # inputs that the model answered, of one row if it batches


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The first runs of one session."""

    session: Session
    max_batch_size: int | None
    warmups: Sequence[Warmup]
    allow_nan: bool
    seed: int

    def run(self) -> Findings:
        """Returns what the first runs showed.

        Raises: WarmUpFailed, whose text is the reason.
        """
        findings = Findings()
        rows = self._rows()
        feed = self._feed(rows, findings)
        if feed is None:
            return findings
        single = findings.feed = rows_of(feed, 0, 1) if rows else feed
        findings.answers = self._answers(self._outputs(single, "the warm-up run"), findings)
        findings.run_us[1 if rows else 0] = self._timed(single)
        findings.repeatable = self._repeats(single)
        if rows:
            self._try_batches(feed, rows, findings)
        return findings

    def feeds(self) -> list[Feed]:
        """Returns inputs that the model answers: of one row, and where it may batch of two and of several.

        Empty where nothing is known that it takes. The warm-up requests of the configuration have been run.

        Raises: WarmUpFailed.
        """
        rows = self._rows()
        feed = self._feed(rows, Findings())
        if feed is None:
            return []
        return [rows_of(feed, 0, size) for size in sorted({1, min(2, rows), rows})] if rows else [feed]

    def once(self) -> None:
        """Runs the requests of the configuration, or else one row of made-up inputs: the weights are in memory then.

        Raises: WarmUpFailed.
        """
        self._feed(self._rows(), Findings())

    def _rows(self) -> int:
        """Returns how many rows are tried at most, 0 where the model cannot batch by its shapes or may not."""
        inputs, outputs = self.session.inputs, self.session.outputs
        free_first = bool(inputs) and all(spec.shape[:1] == (-1,) for spec in inputs)
        free_first = free_first and all(spec.shape[:1] in ((-1,), ()) for spec in outputs)  # (): may be undeclared
        free_first = free_first and self.session.may_batch
        may_batch = free_first if self.max_batch_size is None else self.max_batch_size > 0
        return min(_ROWS, self.max_batch_size or _ROWS) if may_batch else 0

    def _feed(self, rows: int, findings: Findings) -> Feed | None:
        """Returns inputs of `rows` rows (0: not a batch): those of the configuration, or made-up ones that are taken.

        The former have all been run, the latter on one row.
        """
        given = [self._requested(warmup) for warmup in self.warmups]
        return _joined(given, rows) if given else self._accepted(rows, findings)

    def _requested(self, warmup: Warmup) -> Feed:
        """Runs a warm-up request of the configuration; returns its inputs."""
        random = np.random.default_rng(self.seed)
        feed = {name: given_data(value, warmup.batch_size, random) for name, value in warmup.inputs.items()}
        for _ in range(max(1, min(warmup.count, 1000))):
            self._outputs(feed, f"warm-up request {shown(warmup.name)}")
        return feed

    def _accepted(self, rows: int, findings: Findings) -> Feed | None:
        """Returns made-up inputs of `rows` rows (0: not a batch) that the model answers, or None if it refuses all.

        Inputs that are answered without NaN are preferred.
        """
        refused, nan = "", None
        for feed in self._candidates(rows):
            try:
                outputs = self._outputs(rows_of(feed, 0, 1) if rows else feed, "the warm-up run")
            except OutOfMemory:
                raise
            except WarmUpFailed as error:
                refused = refused or str(error)
                continue
            if not self._has_nan(outputs):
                return feed
            nan = nan or feed
        if nan:
            findings.warnings.append(f"it answers NaN for made-up inputs, whether random, ones or zeros; {_CURE}")
        else:
            findings.warnings.append(f"not warmed up: it takes none of the made-up inputs ({refused}); {_CURE}")
        return nan

    def _candidates(self, rows: int) -> Iterator[Feed]:
        for inputs in of_each_rank(self.session.inputs):
            yield from self._sized(inputs, rows)

    def _sized(self, inputs: Sequence[TensorSpec], rows: int) -> Iterator[Feed]:
        free = any(-1 in (spec.shape[1:] if rows else spec.shape) for spec in inputs)
        for size in _FREE_SIZES if free else (1,):
            shapes = {spec.name: _shape(spec, rows, size) for spec in inputs}
            if sum(prod(shapes[spec.name]) * (spec.datatype.size or 8) for spec in inputs) > _MAX_FEED_BYTES:
                break
            for kind in _KINDS:
                random = np.random.default_rng(self.seed)
                made = {spec.name: made_up(spec.datatype, shapes[spec.name], kind, random) for spec in inputs}
                yield self.session.fitted(made)

    def _try_batches(self, feed: Feed, rows: int, findings: Findings) -> None:
        """Fills in `batches`, `rows_independent` and the times of more than one row."""
        required = bool(self.max_batch_size)
        try:
            for size in sorted({min(2, rows), rows} - {1}):
                together = self._outputs(rows_of(feed, 0, size), f"a run of {size} rows")
                self._check_rows(together, size)
                findings.run_us[size] = self._timed(rows_of(feed, 0, size))
        except OutOfMemory:
            raise
        except WarmUpFailed as error:
            if required:
                raise
            findings.warnings.append(f"does not batch: {error}")
            return
        findings.batches = True
        if rows > 1:
            self._compare_rows(feed, findings)

    def _compare_rows(self, feed: Feed, findings: Findings) -> None:
        trial = RowTrial(self.session.outputs, lambda rows: self._outputs(rows, "a run of other rows")).run(feed)
        findings.rows_independent, findings.bit_equal = trial.independent, trial.bit_equal
        if trial.independent is False:
            findings.warnings.append(
                f"output {shown(trial.output)} of a row depends on the other rows of its run, or on chance: {trial.why}"
            )

    def _outputs(self, feed: Feed, what: str) -> list[Array]:
        try:
            return self.session.run(None, feed)
        except RunFailed as error:
            raise _failure(what, error.reason) from None
        except MemoryError:
            raise OutOfMemory(f"{what} needs more memory than the limit") from None
        except GatewayError as error:
            raise _failure(what, str(error)) from None

    def _repeats(self, feed: Feed) -> bool:
        """Returns whether the same inputs get the same answer twice, within rounding."""
        first, second = (self._outputs(feed, "a repeated run") for _ in range(2))
        return all(
            close(left, right, spec.datatype)
            for spec, left, right in zip(self.session.outputs, first, second, strict=True)
        )

    def _answers(self, outputs: Sequence[Array], findings: Findings) -> tuple[TensorSpec, ...]:
        """Returns the outputs of the run. Raises: WarmUpFailed, if a datatype is not the declared one."""
        answers = []
        for spec, output in zip(self.session.outputs, outputs, strict=True):
            if output.dtype != spec.datatype.dtype:
                raise WarmUpFailed(
                    f"output {shown(spec.name)} is declared as {spec.datatype.wire_name}, "
                    f"the model answered {output.dtype}"
                )
            if spec.shape and not _fits(spec.shape, output.shape):
                findings.warnings.append(
                    f"output {shown(spec.name)} is declared with shape {list(spec.shape)}, the model answered "
                    f"{list(output.shape)}: that is what is served"
                )
            answers.append(TensorSpec(spec.name, spec.datatype, tuple(output.shape)))
        return tuple(answers)

    def _check_rows(self, outputs: Sequence[Array], rows: int) -> None:
        for spec, output in zip(self.session.outputs, outputs, strict=True):
            if output.shape[:1] != (rows,):
                raise WarmUpFailed(
                    f"output {shown(spec.name)} has shape {list(output.shape)} for a run of {rows} rows: "
                    f"its first dimension must be {rows}"
                )

    def _has_nan(self, outputs: Sequence[Array]) -> bool:
        if self.allow_nan:
            return False
        return any(
            bool(np.isnan(as_float(output, spec.datatype)).any())
            for spec, output in zip(self.session.outputs, outputs, strict=True)
            if spec.datatype.is_float
        )

    def _timed(self, feed: Feed) -> float:
        """Returns the median time of a run in microseconds, over at most 20 runs or a tenth of a second."""
        times: list[int] = []
        while len(times) < _REPEATS and sum(times) < _REPEATS_NS:
            begin = perf_counter_ns()
            self._outputs(feed, "a repeated run")
            times.append(perf_counter_ns() - begin)
        return median(times) / 1000


def served_outputs(
    declared: Sequence[TensorSpec], answers: Sequence[TensorSpec], inputs: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """Returns the outputs as they are served: as declared where the answers fit, else as seen.

    Shapes: a size that the declaration gets wrong is free if the inputs have free sizes, as it may depend on them. An
            output without a declared shape keeps any if an input has any, as its dimensions may depend on that.
    """
    if len(answers) != len(declared):  # not warmed up
        return tuple(declared)
    any_shape = any(spec.any_shape for spec in inputs)
    free = any_shape or any(-1 in spec.shape for spec in inputs)
    return tuple(
        spec
        if (spec.any_shape and any_shape) or (not spec.any_shape and _fits(spec.shape, answer.shape))
        else replace(spec, shape=_seen(spec.shape, answer.shape, free=free), any_shape=False)
        for spec, answer in zip(declared, answers, strict=True)
    )


def of_each_rank(inputs: Sequence[TensorSpec]) -> Iterator[Sequence[TensorSpec]]:
    """Yields the inputs as they are; where some have any shape, with each number of dimensions in turn."""
    if not any(spec.any_shape for spec in inputs):
        yield inputs
        return
    for rank in _RANKS:
        yield [replace(spec, shape=(-1,) * rank, any_shape=False) if spec.any_shape else spec for spec in inputs]


def _seen(declared: tuple[int, ...], actual: tuple[int, ...], *, free: bool) -> tuple[int, ...]:
    known = declared if len(declared) == len(actual) else (None,) * len(actual)
    return tuple(
        promised if promised in (-1, size) else -1 if free else size
        for promised, size in zip(known, actual, strict=True)
    )


def _fits(declared: tuple[int, ...], actual: tuple[int, ...]) -> bool:
    return len(declared) == len(actual) and all(
        promised in (-1, size) for promised, size in zip(declared, actual, strict=True)
    )


def _joined(given: Sequence[Feed], rows: int) -> Feed:
    """Returns one request of `rows` rows (0: the first as it is), joined from the requests of the first's shapes."""
    first = given[0]
    if not rows:
        return first
    alike = [feed for feed in given if _tails(feed) == _tails(first)]
    together = {name: np.concatenate([feed[name] for feed in alike]) for name in first}
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in together.items()}


def _tails(feed: Feed) -> Mapping[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in feed.items()}


def made_up(datatype: Datatype, shape: tuple[int, ...], kind: str, random: np.random.Generator) -> Array:
    """Returns made-up data. Random integers are 1 or 2: such an index exists, and no division is by zero."""
    if datatype is Datatype.BYTES:
        digits = random.integers(1, 3, shape) if kind == "random" else np.full(shape, int(kind == "ones"))
        texts = np.empty(shape, dtype=object)
        texts.reshape(-1)[:] = [b"%d" % digit for digit in digits.reshape(-1).tolist()]
        return texts
    if kind != "random":
        one = 0x3F80 if datatype is Datatype.BF16 else 1
        return np.full(shape, one if kind == "ones" else 0, datatype.dtype)
    if datatype is Datatype.BF16:
        return _bf16(random.standard_normal(shape, np.float32))
    if datatype.is_float:
        return random.standard_normal(shape).astype(datatype.dtype)
    low, high = (0, 2) if datatype is Datatype.BOOL else (1, 3)
    return random.integers(low, high, shape).astype(datatype.dtype)


def given_data(value: WarmupInput, batch_size: int, random: np.random.Generator) -> Array:
    """Returns what a request of the configuration has as this input."""
    shape = (batch_size, *value.dims) if batch_size else value.dims
    if value.source in ("zero", "random"):
        return made_up(value.datatype, shape, "zeros" if value.source == "zero" else "random", random)
    if value.datatype is Datatype.BYTES:
        texts = np.empty(shape, dtype=object)
        flat = texts.reshape(-1)
        for index, text in enumerate(_texts(value.data, len(flat))):
            flat[index] = text
        return texts
    return np.resize(np.frombuffer(value.data, value.datatype.dtype), shape)


def _texts(data: bytes, count: int) -> Iterator[bytes]:
    """Returns `count` elements of a BYTES tensor in wire format: each after its length in four bytes."""
    position = 0
    for _ in range(count):
        length = int.from_bytes(data[position : position + 4], "little")
        if position + 4 + length > len(data):
            raise WarmUpFailed(f"the file of a BYTES warm-up input holds fewer than {count} elements")
        yield data[position + 4 : position + 4 + length]
        position += 4 + length


def _shape(spec: TensorSpec, rows: int, free: int) -> tuple[int, ...]:
    if not rows:
        return tuple(free if size < 0 else size for size in spec.shape)
    return (rows, *(free if size < 0 else size for size in spec.shape[1:]))


def _failure(what: str, reason: str) -> WarmUpFailed:
    if any(mark in reason.lower() for mark in _NO_MEMORY):
        return OutOfMemory(f"{what} needs more memory than the limit: {reason}")
    return WarmUpFailed(f"{what} failed: {reason}")


def _bf16(values: npt.NDArray[np.float32]) -> Array:
    return (values.view(np.uint32) >> 16).astype(np.uint16)
