"""One run of a version's session: the rows of several calls put together, and what came out taken apart again."""

from collections.abc import Sequence
from time import monotonic_ns, thread_time_ns

import numpy as np

from gateway.serving.call import Call
from gateway.serving.session import Session, Termination, reshaped
from gateway.serving.version import Version
from gateway.tensor import Array, Buffer, TensorSpec


class Run:
    """One run of a version over the rows of several calls, and its times. Made on the loop, executed on any thread."""

    __slots__ = ("_calls", "_config", "_names", "_session", "cpu_ns", "infer_ns", "input_ns", "outputs", "rows")

    def __init__(self, version: Version, session: Session, calls: Sequence[Call], names: Sequence[str]) -> None:
        self._config = version.config
        self._session = session
        self._calls = calls
        self._names = names
        self.rows = sum(call.rows for call in calls)
        self.outputs: Sequence[Array] = ()
        self.input_ns = 0
        self.infer_ns = 0
        self.cpu_ns = 0

    def execute(self, termination: Termination | None) -> None:
        """Runs the session and sets `outputs` and the times.

        Raises: GatewayError (RunFailed, or InvalidArgument for text that the model cannot take).
        """
        config = self._config
        began = monotonic_ns()
        feeds = assemble(config.inputs, self._calls)
        for name, target in config.input_reshapes.items():
            if name in feeds:
                feeds[name] = self._reshaped(feeds[name], target)
        fed = monotonic_ns()
        # What the run itself takes, without the wait for other threads and processes: the choice of where the next one
        # happens must not depend on who else was busy.
        cpu = thread_time_ns()
        outputs = self._session.run(self._names, feeds, termination)
        self.cpu_ns = thread_time_ns() - cpu
        self.input_ns = fed - began
        self.infer_ns = monotonic_ns() - fed
        if config.output_reshapes:
            outputs = [
                self._reshaped(array, config.output_reshapes[name]) if name in config.output_reshapes else array
                for name, array in zip(self._names, outputs, strict=True)
            ]
        self.outputs = outputs

    def _reshaped(self, array: Array, target: tuple[int, ...]) -> Array:
        return reshaped(array, target, batches=self._config.max_batch_size > 0)


class RowBytes:
    """Slices the outputs of a version whose specs fix everything but the number of rows: an answer is bytes."""

    __slots__ = ("_dtypes", "_sizes", "_tails")

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._tails = [spec.shape[1:] for spec in specs]
        self._dtypes = [np.dtype(spec.datatype.dtype) for spec in specs]
        self._sizes = [spec.row_bytes() for spec in specs]

    @classmethod
    def of(cls, version: Version) -> "RowBytes | None":
        """Returns None where the version's outputs have other free sizes."""
        specs = version.outputs
        fixed = all(spec.shape[:1] == (-1,) and spec.row_bytes() > 0 for spec in specs)
        return cls(specs) if version.batches and specs and fixed else None

    def split(self, calls: Sequence[Call], outputs: Sequence[Array], rows: int) -> list[list[bytes]] | None:
        """Returns the raw outputs of each call; None if they do not match the specs, or if a call wants only some."""
        if len(outputs) != len(self._sizes) or any(call.wanted is not None for call in calls):
            return None
        for array, tail, dtype in zip(outputs, self._tails, self._dtypes, strict=True):
            if array.shape != (rows, *tail) or array.dtype != dtype:
                return None
        whole = [array.tobytes() for array in outputs]
        if len(calls) == 1:
            return [whole]
        answers = []
        if len(whole) == 1:
            raw, size = whole[0], self._sizes[0]
            start = 0
            for call in calls:
                stop = start + call.rows * size
                answers.append([raw[start:stop]])
                start = stop
            return answers
        first = 0
        for call in calls:
            last = first + call.rows
            answers.append([raw[first * size : last * size] for raw, size in zip(whole, self._sizes, strict=True)])
            first = last
        return answers


def split(calls: Sequence[Call], outputs: Sequence[Array]) -> Sequence[Sequence[Buffer]]:
    """Returns the outputs of each call: its rows of the outputs that it asked for."""
    everything = common_wanted(calls) is None
    answers: list[Sequence[Array]] = []
    start = 0
    for call in calls:
        stop = start + call.rows
        own: Sequence[Array] = outputs if len(calls) == 1 else [array[start:stop] for array in outputs]
        start = stop
        if call.wanted is not None and everything:
            own = [own[index] for index in call.wanted]
        answers.append(own)
    return answers


def common_wanted(calls: Sequence[Call]) -> tuple[int, ...] | None:
    """Returns the outputs that all calls ask for in the same order; None where the run has to give every output."""
    wanted = calls[0].wanted
    return wanted if all(call.wanted == wanted for call in calls) else None


def is_empty(call: Call) -> bool:
    """Returns whether one of the call's inputs has no elements."""
    return any(shape is not None and 0 in shape for shape in call.shapes)


def alike(first: Call, other: Call) -> bool:
    """Returns whether two calls fit into one run: the same inputs given, equal in every dimension but the first."""
    return all(
        (mine is None) == (theirs is None) and (mine is None or theirs is None or mine[1:] == theirs[1:])
        for mine, theirs in zip(first.shapes, other.shapes, strict=True)
    )


def assemble(specs: Sequence[TensorSpec], calls: Sequence[Call]) -> dict[str, Array]:
    """Returns the input arrays of one run: the rows of `calls` one after the other.

    Raw bytes are joined once and viewed as an array; nothing else is copied.
    """
    feeds: dict[str, Array] = {}
    rows = sum(call.rows for call in calls)
    for index, spec in enumerate(specs):
        shape = calls[0].shapes[index]
        if shape is None:
            continue
        if len(calls) > 1:
            shape = (rows, *shape[1:])
        parts = [call.inputs[index] for call in calls]
        if all(isinstance(part, bytes | memoryview) for part in parts):
            raw = parts[0] if len(parts) == 1 else b"".join(parts)  # type: ignore[arg-type]
            feeds[spec.name] = np.frombuffer(raw, spec.datatype.dtype).reshape(shape)  # type: ignore[arg-type]
        elif len(parts) == 1:
            feeds[spec.name] = np.asarray(parts[0]).reshape(shape)
        else:
            feeds[spec.name] = np.concatenate([_array(call, index, spec) for call in calls])
    return feeds


def _array(call: Call, index: int, spec: TensorSpec) -> Array:
    part = call.inputs[index]
    shape = call.shapes[index]
    if part is None or shape is None:
        raise ValueError(f"input {spec.name} is missing in one call of a batch")
    if isinstance(part, bytes | memoryview):
        return np.frombuffer(part, spec.datatype.dtype).reshape(shape)
    return part.reshape(shape)
