"""ONNX Runtime sessions. The only module that imports onnxruntime."""

import ctypes
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from gateway.errors import FailedPrecondition, GatewayError, Internal, InvalidArgument
from gateway.tensor import Array, Datatype, TensorSpec

_DATATYPES = {kind.runtime_name: kind for kind in Datatype}
_ONNX_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
# The prefix of the runtime's errors: its own codes, and the place in its source, with the function's signature.
_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_PLACE = re.compile(r"\S*\.(?:cc|h|cpp):\d+(?: [^()]{0,200}\([^()]{0,200}\)(?: const)?)? ?")
_NODE = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'[^']*' Status Message: ")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b")
# Failures that the runtime reports as its own, although the request's sizes do not fit together.
_SIZES = re.compile(
    r"cannot broadcast|attempting to broadcast|dimension mismatch|dimensions must match|mismatched dimensions|"
    r"cannot be reshaped|"
    r"Input channels C is not equal|Got invalid dimensions",
    re.IGNORECASE,
)
_MAX_PUBLIC = 300
_LOCALE = re.compile(r"Failed to construct locale with name:(([\w-]{1,40})[\w.@-]{0,40})")
_SOURCE_PATH = re.compile(r"/onnxruntime_src/(?:[\w.-]+/)*")
_QUIET = 4  # fatal only: every error reaches us as an exception
# Entries of the runtime's own configuration that a model's configuration may set: none that names a file.
_ENTRIES = frozenset(
    {
        "session.use_device_allocator_for_initializers",
        "session.disable_prepacking",
        "session.set_denormal_as_zero",
    }
)
_LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# The runtime's errors: its own exceptions (they share no base but Exception), and those of its Python binding.
_ERRORS: tuple[type[Exception], ...] = (
    *(
        error
        for error in vars(native).values()
        if isinstance(error, type) and issubclass(error, Exception) and error.__module__ == native.__name__
    ),
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
)


class RunFailed(Internal):
    """A run failed inside the runtime; `reason` is for the log, the text stays generic."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    @property
    def public_reason(self) -> str:
        """Returns the reason, fit for a client that caused the failure itself."""
        return _public(self.reason)


class Termination:
    """A handle that stops the runs it was given to, from any thread."""

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = _QUIET

    def stop(self) -> None:
        """Ends every run with this handle at its next node, with RunFailed."""
        self.options.terminate = True

    @property
    def stopped(self) -> bool:
        return bool(self.options.terminate)


class Session:
    """A loaded model; `run` may be called from several threads at once.

    `options` are Triton's parameter names (execution_mode, enable_mem_arena, enable_mem_pattern), `graph_level` (all,
    extended, basic, off), and a few `session.` entries of the runtime itself; others are passed over. `without_shape`
    names the tensors that the graph declares no shape for: the runtime says [] of them, as it does of scalars.

    Raises: FailedPrecondition, if the runtime does not accept the file as a model, or if the protocol cannot carry its
            tensors.
    """

    def __init__(
        self,
        model: Path | str | bytes,
        *,
        intra_threads: int,
        inter_threads: int = 1,
        options: Mapping[str, str] | None = None,
        without_shape: Collection[str] = (),
    ) -> None:
        settings = _settings(intra_threads, inter_threads, options or {})
        source = model if isinstance(model, bytes) else str(model)
        try:
            session = onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            reason = _reason(error, "" if isinstance(model, bytes) else str(Path(model).parent))
            raise FailedPrecondition(f"ONNX Runtime refuses the model: {reason}") from error
        self.inputs = tuple(_spec(node, "input", without_shape=without_shape) for node in session.get_inputs())
        self.outputs = tuple(_spec(node, "output", without_shape=without_shape) for node in session.get_outputs())
        self.overridable = tuple(
            _spec(node, "input", optional=True)
            for node in session.get_overridable_initializers()
            if node.type in _DATATYPES
        )
        self._session = session
        # The wrapper around the native call validates the inputs a second time: 7.5 us a run instead of 4.2.
        self._native_run: Callable[..., list[Any]] = session._sess.run
        every_input = self.inputs + self.overridable
        self._wrapped_inputs = frozenset(spec.name for spec in every_input if spec.datatype is Datatype.BF16)
        self._text_inputs = frozenset(spec.name for spec in every_input if spec.datatype is Datatype.BYTES)
        self._text_outputs = frozenset(spec.name for spec in self.outputs if spec.datatype is Datatype.BYTES)
        self._wrapped_outputs = any(spec.datatype is Datatype.BF16 for spec in self.outputs)
        self._all_outputs = [spec.name for spec in self.outputs]
        self._needed = frozenset(spec.name for spec in self.inputs)
        self._input_tails: Mapping[str, tuple[int, ...]] = {}
        self._output_tails: Mapping[str, tuple[int, ...]] = {}
        self._batches = False
        # The sizes that a request may choose beside its number of rows.
        self._has_free_sizes = any(-1 in spec.shape[1:] for spec in self.inputs) or not all(
            spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs)
        )
        self._plain = not (self._wrapped_inputs or self._text_inputs or self._text_outputs or self._wrapped_outputs)
        if self._wrapped_outputs and self._text_inputs:
            raise FailedPrecondition("the model has BF16 outputs beside BYTES inputs, which ONNX Runtime cannot bind")

    def reshape(
        self, inputs: Mapping[str, tuple[int, ...]], outputs: Mapping[str, tuple[int, ...]], *, batches: bool
    ) -> None:
        """Makes `run` give the named inputs to the model in these shapes, and answer the outputs in these.

        Shapes: without the batch dimension where `batches`.
        """
        self._input_tails, self._output_tails, self._batches = inputs, outputs, batches
        self._plain = self._plain and not inputs and not outputs

    def run(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Array],
        terminate: Termination | None = None,
    ) -> list[Array]:
        """Returns the named outputs in the order asked for, or all of them in the model's order.

        Shapes: BF16 arrays are uint16 bit patterns, BYTES arrays are object arrays of bytes, in both directions.
        Raises: InvalidArgument (what the runtime says that the model cannot take: a value out of range, sizes that do
                not fit together, BYTES that are not UTF-8); RunFailed.
        """
        names = self._all_outputs if output_names is None else output_names
        if not self._needed <= feeds.keys():  # the runtime would read a tensor that is not there
            raise RunFailed(f"inputs missing: {sorted(self._needed - feeds.keys())}")
        options = None if terminate is None else terminate.options
        if self._plain:
            try:
                return self._native_run(names, feeds, options)
            except _ERRORS as error:
                raise self._failure(error) from error
        try:
            prepared = {name: self._prepare(name, array) for name, array in feeds.items()}
            if self._wrapped_outputs:
                answers = self._run_wrapped(names, prepared, options)
            else:
                answers = self._session.run(names, prepared, options)
            return [self._offer(name, answer) for name, answer in zip(names, answers, strict=True)]
        except _ERRORS as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> GatewayError:
        """Returns the error that blames the request's data or the model."""
        reason = _reason(error)
        refused = isinstance(error, native.InvalidArgument) and _NODE.search(reason) is not None
        chosen = isinstance(error, native.Fail) and self._has_free_sizes and _SIZES.search(reason) is not None
        if refused or chosen:
            return InvalidArgument(f"the model cannot take these inputs: {_public(reason)}")
        return RunFailed(reason)

    def _offer(self, name: str, array: Array) -> Array:
        if name in self._text_outputs:
            array = _to_bytes(array)
        tail = self._output_tails.get(name)
        return array if tail is None else self._reshaped(array, tail)

    def _reshaped(self, array: Array, tail: tuple[int, ...]) -> Array:
        return reshaped(array, tail, batches=self._batches)

    def _prepare(self, name: str, array: Array) -> object:
        tail = self._input_tails.get(name)
        if tail is not None:
            array = self._reshaped(array, tail)
        if name in self._text_inputs:
            return _to_text(name, array)
        if name in self._wrapped_inputs:
            return _wrap_bf16(array)
        return array

    def _run_wrapped(self, names: Sequence[str], feeds: Mapping[str, object], options: object) -> list[Array]:
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feed))
            if isinstance(feed, np.ndarray)
            else feed
            for name, feed in feeds.items()
        }
        answers = self._session.run_with_ort_values(names, values, options)
        return [
            _unwrap_bf16(answer) if answer.data_type() == "tensor(bfloat16)" else answer.numpy() for answer in answers
        ]


def reshaped(array: Array, tail: tuple[int, ...], *, batches: bool) -> Array:
    """Returns the array in another shape, without the first dimension where it `batches`.

    One size may be free; where there are no rows numpy could not tell it, but each row would have as many elements.
    """
    if not array.size and -1 in tail:
        fixed = prod(size for size in tail if size >= 0)
        elements = prod(array.shape[1:] if batches else array.shape)
        tail = tuple(size if size >= 0 else elements // fixed if fixed else 0 for size in tail)
    return array.reshape((array.shape[0], *tail) if batches else tail)


def ort_version() -> str:
    """Returns the version of ONNX Runtime."""
    return str(onnxruntime.__version__)


def _settings(intra_threads: int, inter_threads: int, options: Mapping[str, str]) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _QUIET
    settings.intra_op_num_threads = intra_threads
    settings.inter_op_num_threads = inter_threads
    # Threads that spin between runs burn the CPU that the other workers need.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    settings.graph_optimization_level = _LEVELS[options.get("graph_level", "all")]
    if options.get("execution_mode") == "1":
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    if options.get("enable_mem_arena") == "0":
        settings.enable_cpu_mem_arena = False
    if options.get("enable_mem_pattern") == "0":
        settings.enable_mem_pattern = False
    for key, value in options.items():
        if key in _ENTRIES:
            settings.add_session_config_entry(key, value)
    return settings


def _spec(node: Any, side: str, *, optional: bool = False, without_shape: Collection[str] = ()) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise FailedPrecondition(
            f"{side} {node.name!r} has ONNX type {node.type}, which the protocol cannot carry; "
            "export the model with plain tensors"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape or ())
    # A shape that the runtime worked out itself is better than none; [] may be a scalar or nothing at all.
    any_shape = not shape and node.name in without_shape
    return TensorSpec(node.name, datatype, shape, optional=optional, any_shape=any_shape)


def _reason(error: Exception, directory: str = "") -> str:
    """Returns the runtime's message without paths of this machine and of the machine that built the runtime."""
    text = _SOURCE_PATH.sub("", " ".join(str(error).split()))
    if directory:
        text = text.replace(f"{directory}/", "")
    locale = _LOCALE.search(text)
    if locale is not None:
        return (
            f"a string normalizer of the model needs the locale {locale[1]!r}, which this machine lacks: generate it "
            f"(Debian: package locales, then `localedef -i {locale[2]} -f UTF-8 {locale[1]}`), or export the model "
            "with a locale that is there (`locale -a`)"
        )
    return text[:2000] or type(error).__name__


def without_places(text: str) -> str:
    """Returns the runtime's message without its own codes and the places in its source."""
    return _PLACE.sub("", _CODE.sub("", text))


def _public(reason: str) -> str:
    """Returns the reason fit for a client: the operator and what it says, no places in source, no addresses."""
    text = _ADDRESS.sub("...", without_places(_NODE.sub(r"\1: ", reason)))
    text = "".join(character if character.isprintable() else " " for character in text).strip()
    return text if len(text) <= _MAX_PUBLIC else f"{text[:_MAX_PUBLIC]}..."


def _to_text(name: str, array: Array) -> Array:
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    for index, item in enumerate(array.reshape(-1).tolist()):
        try:
            flat[index] = item if isinstance(item, str) else str(item, "utf-8")
        except UnicodeDecodeError:
            raise InvalidArgument(
                f"input {name!r} element {index} is not valid UTF-8, which this model's string input requires"
            ) from None
    return cast(Array, texts)


def _to_bytes(array: Array) -> Array:
    encoded = np.empty(array.shape, dtype=object)
    flat = encoded.reshape(-1)
    for index, item in enumerate(array.reshape(-1).tolist()):
        flat[index] = item.encode("utf-8") if isinstance(item, str) else item
    return cast(Array, encoded)


def _wrap_bf16(array: Array) -> object:
    patterns = np.ascontiguousarray(array, dtype=np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(patterns, _ONNX_BFLOAT16)


def _unwrap_bf16(value: Any) -> Array:
    """Returns a copy of the value's bit patterns: numpy has no such type, and the memory is freed with the value."""
    patterns = np.empty(tuple(value.shape()), dtype=np.uint16)
    if patterns.nbytes:
        ctypes.memmove(patterns.ctypes.data, value.data_ptr(), patterns.nbytes)
    return cast(Array, patterns)
