"""ONNX Runtime sessions. The only module that imports onnxruntime."""

import ctypes
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from gateway.errors import FailedPrecondition, GatewayError, Internal, InvalidArgument
from gateway.serving.carried_value import Form, check_names
from gateway.serving.element_type import ElementType
from gateway.serving.execution_provider import PROVIDERS_OPTION, chosen, on_cpu_alone
from gateway.serving.runtime_message import NODE, public_text, reason_of
from gateway.serving.runtime_node import carried_node, check_bindable, overridable
from gateway.serving.text_array import to_bytes, to_text
from gateway.tensor import Array, Datatype

# Failures that the runtime reports as its own, although the request's sizes do not fit together.
_SIZES = re.compile(
    r"cannot broadcast|attempting to broadcast|dimension mismatch|dimensions must match|mismatched dimensions|"
    r"cannot be reshaped|"
    r"Input channels C is not equal|Got invalid dimensions",
    re.IGNORECASE,
)
# The file that the weights of a prepared model lie in, beside it.
WEIGHTS_FILENAME = "weights.bin"
_QUIET = 4  # fatal only: every error reaches us as an exception
_NO_PREPACKING = "session.disable_prepacking"
# Entries of the runtime's own configuration that a model's configuration may set: none that names a file.
_ENTRIES = frozenset(
    {
        "session.use_device_allocator_for_initializers",
        _NO_PREPACKING,
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
        return public_text(self.reason)


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
    extended, basic, off), the execution providers, and a few `session.` entries of the runtime itself; others are
    passed over. `without_shape`
    names the tensors that the graph declares no shape for: the runtime says [] of them, as it does of scalars;
    `map_keys` are the keys of the maps that are outputs. `inputs` and `outputs` are the tensors that carry the model's
    values (`gateway.serving.carried_value`); where `may_batch` is False some have no rows.

    With `saves_to` the session writes itself into that file, as it is when it runs, and its weights beside it, as
    kernels read them. Such a file is `prepared`: a session of it has the same answers to the bit, and its weights are
    those of the file, mapped, so that the processes of a host have them once.

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
        map_keys: Mapping[str, tuple[str | int, ...]] | None = None,
        prepared: bool = False,
        saves_to: Path | None = None,
    ) -> None:
        settings = _settings(intra_threads, inter_threads, options or {})
        if prepared:  # what the optimiser does was done
            settings.graph_optimization_level = _LEVELS["off"]
        if saves_to is not None:
            _save(settings, saves_to, packed=(options or {}).get(_NO_PREPACKING) != "1")
        wanted = (options or {}).get(PROVIDERS_OPTION, "")
        providers = chosen(wanted, onnxruntime.get_available_providers(), ort_version())
        source = model if isinstance(model, bytes) else str(model)
        try:
            session = onnxruntime.InferenceSession(source, settings, providers=providers)
        except _ERRORS as error:
            reason = reason_of(error, "" if isinstance(model, bytes) else str(Path(model).parent))
            raise FailedPrecondition(f"ONNX Runtime refuses the model: {reason}") from error
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        lost = [name for name, _ in providers if name not in self.providers]
        if lost:
            raise FailedPrecondition(
                f"ONNX Runtime could not start {', '.join(lost)}, it offers {', '.join(self.providers)}: its driver or "
                "libraries are missing (the log has its own lines)"
            )
        keys = map_keys or {}
        given = [carried_node(node, "input", without_shape, keys) for node in session.get_inputs()]
        answered = [carried_node(node, "output", without_shape, keys) for node in session.get_outputs()]
        defaults = overridable(session.get_overridable_initializers())
        check_names([*given, *defaults], "input")
        check_names(answered, "output")
        self.inputs = tuple(spec for value in given for spec in value.specs)
        self.outputs = tuple(spec for value in answered for spec in value.specs)
        self.overridable = tuple(spec for value in defaults for spec in value.specs)
        self.may_batch = all(value.form in (Form.TENSOR, Form.MAPS) for value in (*given, *answered))
        self._session = session
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)  # its metadata_props
        # The wrapper around the native call validates the inputs a second time: 7.5 us a run instead of 4.2.
        self._native_run: Callable[..., list[Any]] = session._sess.run
        self._odd_inputs = [value for value in (*given, *defaults) if not value.is_plain]
        self._odd_outputs = {spec.name: value for value in answered if not value.is_plain for spec in value.specs}
        every_input = self.inputs + self.overridable
        self._text_inputs = frozenset(spec.name for spec in every_input if spec.datatype is Datatype.BYTES)
        self._text_outputs = frozenset(spec.name for spec in self.outputs if spec.datatype is Datatype.BYTES)
        self._binds_outputs = any(value.element is not None for value in answered)
        self._all_outputs = [spec.name for spec in self.outputs]
        self._needed = frozenset(spec.name for spec in self.inputs if not spec.optional)
        self._may_miss = [value.name for value in given if value.specs[0].optional]
        self._input_tails: Mapping[str, tuple[int, ...]] = {}
        self._output_tails: Mapping[str, tuple[int, ...]] = {}
        self._batches = False
        # The sizes that a request may choose beside its number of rows.
        self._has_free_sizes = any(-1 in spec.shape[1:] for spec in self.inputs) or not all(
            spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs)
        )
        self._plain = not (
            self._text_inputs or self._text_outputs or self._odd_inputs or self._odd_outputs or self._may_miss
        )
        if self._binds_outputs:
            check_bindable(given, answered)

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
            prepared = self._native(feeds)
            if not self._odd_outputs:
                answers = self._session.run(names, prepared, options)
            else:
                answers = self._run_odd(names, prepared, options)
            return [self._offer(name, answer) for name, answer in zip(names, answers, strict=True)]
        except _ERRORS as error:
            raise self._failure(error) from error

    def fitted(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Returns made-up inputs, of which those that carry one value together fit together."""
        made = dict(feeds)
        for value in self._odd_inputs:
            made.update(value.fitted(made))
        return made

    def _failure(self, error: Exception) -> GatewayError:
        """Returns the error that blames the request's data or the model."""
        reason = reason_of(error)
        refused = isinstance(error, native.InvalidArgument) and NODE.search(reason) is not None
        chosen = isinstance(error, native.Fail) and self._has_free_sizes and _SIZES.search(reason) is not None
        if refused or chosen:
            return InvalidArgument(f"the model cannot take these inputs: {public_text(reason)}")
        return RunFailed(reason)

    def _offer(self, name: str, array: Array) -> Array:
        if name in self._text_outputs:
            array = to_bytes(array)
        tail = self._output_tails.get(name)
        return array if tail is None else self._reshaped(array, tail)

    def _reshaped(self, array: Array, tail: tuple[int, ...]) -> Array:
        return reshaped(array, tail, batches=self._batches)

    def _native(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Returns the inputs as the runtime takes them."""
        ready: dict[str, Any] = {name: self._prepare(name, array) for name, array in feeds.items()}
        for value in self._odd_inputs:
            whole = value.assembled(ready)
            for spec in value.specs:
                ready.pop(spec.name, None)
            if whole is not None:
                ready[value.name] = whole if value.element is None else _wrap(value.name, whole, value.element)
        for name in self._may_miss:
            ready.setdefault(name, None)
        return ready

    def _prepare(self, name: str, array: Array) -> Array:
        tail = self._input_tails.get(name)
        if tail is not None:
            array = self._reshaped(array, tail)
        return to_text(name, array) if name in self._text_inputs else array

    def _run_odd(self, names: Sequence[str], feeds: Mapping[str, Any], options: object) -> list[Array]:
        """Runs a model with outputs that are no plain tensors."""
        values = {name: self._odd_outputs.get(name) for name in names}
        wanted = list(dict.fromkeys(name if value is None else value.name for name, value in values.items()))
        if self._binds_outputs:
            bound = {
                name: feed
                if not isinstance(feed, np.ndarray)
                else onnxruntime.OrtValue.ortvalue_from_numpy(_whole(feed))
                for name, feed in feeds.items()
            }
            answers = self._session.run_with_ort_values(wanted, bound, options)
        else:
            answers = self._session.run(wanted, feeds, options)
        offered: dict[str, Array] = {}
        for name, answer in zip(wanted, answers, strict=True):
            value = values.get(name) or self._odd_outputs.get(name)
            if value is None:
                offered[name] = answer.numpy() if self._binds_outputs else answer
            elif value.element is not None:
                offered[name] = _unwrap(answer, value.element)
            else:
                parts = value.taken_apart(answer)
                offered.update(zip((spec.name for spec in value.specs), parts, strict=True))
        return [offered[name] for name in names]


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


def runtime_key() -> str:
    """Returns what a result of a trial depends on beside the model: the runtime's version and its providers."""
    return f"{ort_version()} {','.join(sorted(onnxruntime.get_available_providers()))}"


def providers_with(options: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the execution providers that a session with these options has. Raises: FailedPrecondition."""
    wanted = options.get(PROVIDERS_OPTION, "")
    return tuple(name for name, _ in chosen(wanted, onnxruntime.get_available_providers(), ort_version()))


def runs_on_cpu(options: Mapping[str, str]) -> bool:
    """Returns whether a session with these options runs on the CPU alone, if it can be made at all."""
    return on_cpu_alone(options.get(PROVIDERS_OPTION, ""), onnxruntime.get_available_providers())


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


def _save(settings: Any, path: Path, *, packed: bool) -> None:
    """Has the session save itself; where `packed`, with the forms of weights that kernels make when they load."""
    settings.optimized_model_filepath = str(path)
    settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS_FILENAME)
    if packed:
        settings.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")


def _whole(array: Array) -> Array:
    """Returns the array in one piece, with as many dimensions as it has: ascontiguousarray gives a scalar one."""
    return array if array.flags.c_contiguous else array.copy()


def _wrap(name: str, array: Array, element: ElementType) -> Any:
    """Returns a value of the runtime with elements that numpy does not have. Raises: InvalidArgument (out of range)."""
    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), element.number)
    memory = element.packed(name, array)
    if memory:
        ctypes.memmove(value.data_ptr(), memory, len(memory))
    return value


def _unwrap(value: Any, element: ElementType) -> Array:
    """Returns a copy of the value's elements: the memory is freed with the value."""
    size = value.tensor_size_in_bytes()
    memory = ctypes.string_at(value.data_ptr(), size) if size else b""
    return element.unpacked(memory, tuple(value.shape()))
