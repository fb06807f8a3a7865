"""The proof that each output row of a graph depends on the same row of its inputs alone.

The walk visits the nodes in order and records, for each value, the axis on which it is row-wise
(`gateway.serving.row_rules`). Sizes come from ONNX's own shape inference, node by node, with the number of rows as a
symbol; what the graph computes from sizes (a Shape that ends in a Reshape) is followed through small integer tensors.

A proof holds for every input. What is not proven may still be true: the answer then names the first node that
prevented the proof, and only an operator who knows the model can decide.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateway.serving.model_policy import shown
from gateway.serving.row_operand import (
    MIXED,
    ROWS,
    Dependence,
    NotRowWise,
    Objects,
    Operand,
    Operation,
    Size,
    reshaped_axis,
)
from gateway.serving.row_rules import FIXED_ONLY, RANKS, RULES

_SYMBOL: Final = "the rows of a run"
_MAX_KNOWN = 64  # elements of a tensor whose values are followed
_SHAPE_ARGUMENTS: Final = ("Reshape", "Expand", "ConstantOfShape", "Resize")
# Beside our own refusals, the errors that a graph beyond the rules may cause; ONNX Runtime may still accept it.
_NOT_INFERRED = (onnx.shape_inference.InferenceError, onnx.checker.ValidationError)
_UNPROVEN = (NotRowWise, *_NOT_INFERRED, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)


def row_dependence(model: onnx.ModelProto) -> str:
    """Returns "" where every output row depends on its input row alone; else why that is not proven."""
    walk = _Walk(model)
    where = "its inputs"
    try:
        walk.take_inputs()
        for node in model.graph.node:
            where = f"{node.op_type} ({shown(node.name or (node.output[0] if node.output else ''))[1:-1]})"
            walk.pass_node(node)
        where = "its outputs"
        walk.check_outputs()
    except _UNPROVEN as error:
        why = str(error) if isinstance(error, NotRowWise) else "its sizes could not be worked out"
        return f"{where}: {' '.join(why.split())[:200]}"
    return ""


class _Walk:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._imports = list(model.opset_import)
        self._opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in self._imports}
        self._functions = {(function.domain, function.name) for function in model.functions}
        self._values: dict[str, Operand] = {}
        self._types: dict[str, onnx.TypeProto] = {}
        self._data: dict[str, TensorProto] = {}

    def take_inputs(self) -> None:
        for tensor in self._graph.initializer:
            self._fix(tensor.name, tensor)
        for value in self._graph.input:
            if value.name in self._values:
                continue
            dims = _dims(value.type)
            if not dims or dims[0] is not None:
                raise NotRowWise(f"{shown(value.name)} has no free first axis")
            self._set(value.name, Operand(Dependence.ROWS, (ROWS, *dims[1:]), 0), value.type.tensor_type.elem_type)

    def check_outputs(self) -> None:
        for value in self._graph.output:
            operand = self._values.get(value.name)
            if operand is None or not operand.is_rows or operand.axis != 0:
                raise NotRowWise(f"{shown(value.name)} does not have its rows on the first axis")

    def pass_node(self, node: onnx.NodeProto) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        key = (domain, node.op_type)
        inputs = [self._values[name] if name else None for name in node.input]
        if key in self._functions or (key not in RULES and key not in FIXED_ONLY):
            raise NotRowWise("this operator is not known to work row by row")
        operation = Operation(
            node.op_type, _attributes(node), inputs, sum(map(bool, node.output)), self._opsets.get(domain, 0)
        )
        if node.op_type == "Constant" and "value" in operation.attributes:
            self._fix(node.output[0], operation.attributes["value"])
            return
        types = self._inferred(node, domain)
        for name, operand in zip(node.output, self._results(key, operation, types, node), strict=False):
            if name:
                element = types[name].tensor_type.elem_type if name in types else 0
                self._set(name, operand, element)

    def _results(
        self, key: tuple[str, str], operation: Operation, types: Mapping[str, onnx.TypeProto], node: onnx.NodeProto
    ) -> Iterable[Operand]:
        dims = [_dims(types[name]) if name in types else None for name in node.output]
        known = _evaluated(operation, dims[0])
        given = [operand for operand in operation.inputs if operand is not None]
        if key[1] == "Shape":
            return [_numbered(known, dims[0], counted=given[0].origin is not Dependence.FIXED)]
        if operation.kind in ("Reshape", "Expand", "ConstantOfShape"):
            shaped = _shaped(operation, dims[0])
            if shaped is not None:
                return [shaped]
        if any(operand.is_rows for operand in given):
            return self._row_wise(key, operation, dims)
        counted = any(operand.origin is Dependence.COUNT for operand in given)
        return [_numbered(known if index == 0 else None, sizes, counted=counted) for index, sizes in enumerate(dims)]

    def _row_wise(
        self, key: tuple[str, str], operation: Operation, dims: Sequence[tuple[Size, ...] | None]
    ) -> Iterable[Operand]:
        rule = RULES.get(key)
        if rule is None:
            raise NotRowWise("this operator is not known to work row by row")
        counts = [operand for operand in operation.inputs if operand is not None and operand.origin is Dependence.COUNT]
        if counts and operation.kind not in _SHAPE_ARGUMENTS:
            raise NotRowWise("it computes with the number of rows")
        axes = rule(operation)
        for index, sizes in enumerate(dims):
            axis = axes if isinstance(axes, int) else axes[index]
            yield _row_operand(axis, sizes if sizes is not None else _assumed(key, index, operation))

    def _fix(self, name: str, tensor: TensorProto) -> None:
        known = None
        if _is_small(tensor):
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind in "iubf":
                known = cast(
                    Objects, array.astype(object) if array.dtype.kind != "b" else array.astype(int).astype(object)
                )
                self._data[name] = tensor
        self._set(name, Operand(Dependence.FIXED, tuple(tensor.dims), known=known), tensor.data_type)

    def _set(self, name: str, operand: Operand, element: int) -> None:
        self._values[name] = operand
        if element:
            sizes = None if operand.dims is None else [_SYMBOL if size == ROWS else size for size in operand.dims]
            self._types[name] = helper.make_tensor_type_proto(element, sizes)
        known = operand.known
        if name in self._data or known is None or element != TensorProto.INT64:
            return
        if all(isinstance(size, int) for size in known.reshape(-1).tolist()):
            self._data[name] = numpy_helper.from_array(known.astype(np.int64), name)

    def _inferred(self, node: onnx.NodeProto, domain: str) -> Mapping[str, onnx.TypeProto]:
        names = [name for name in node.input if name]
        if not all(name in self._types for name in names):
            return {}
        schema = onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
        types = {name: self._types[name] for name in names}
        data = {name: self._data[name] for name in names if name in self._data}
        try:
            return onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=self._imports)
        except _NOT_INFERRED:
            return {}


def _assumed(key: tuple[str, str], index: int, operation: Operation) -> tuple[Size, ...] | None:
    """Returns the dims of an output that ONNX does not infer, as far as the operator's specification fixes them."""
    ranks = RANKS.get(key)
    first = operation.at(0)
    if first is not None and first.dims and operation.kind == "ArrayFeatureExtractor":
        return (*(first.dims[:-1] or (1,)), None)
    if ranks is None or first is None or first.dims is None:
        return None
    return first.dims if ranks[index] == 0 else (None,) * ranks[index]


def _row_operand(axis: int, dims: tuple[Size, ...] | None) -> Operand:
    if dims is None:
        return Operand(Dependence.ROWS, None, axis)
    others = (*dims[:axis], *dims[axis + 1 :])
    if axis >= len(dims) or ROWS in others or dims[axis] not in (ROWS, None):
        raise NotRowWise("its output has the number of rows on another axis")
    return Operand(Dependence.ROWS, (*dims[:axis], ROWS, *dims[axis + 1 :]), axis)


def _numbered(known: Objects | None, dims: tuple[Size, ...] | None, *, counted: bool) -> Operand:
    """Returns a value that depends on no row; `counted` if it may depend on the number of rows."""
    if known is not None and known.size <= _MAX_KNOWN:
        elements = known.reshape(-1).tolist()
        origin = Dependence.COUNT if ROWS in elements or MIXED in elements else Dependence.FIXED
        return Operand(origin, tuple(known.shape), known=known)
    return Operand(Dependence.COUNT if counted else Dependence.FIXED, dims)


def _shaped(operation: Operation, inferred: tuple[Size, ...] | None) -> Operand | None:
    """Returns the result of an operator that takes a shape; None if it depends neither on rows nor on their number."""
    fills = operation.kind == "ConstantOfShape"
    source, shape = (None, operation.at(0)) if fills else (operation.at(0), operation.at(1))
    if shape is None:  # Reshape of an old operator set
        sizes = operation.attributes.get("shape")
        shape = None if sizes is None else Operand(Dependence.FIXED, (len(sizes),), known=np.array(sizes, object))
    has_rows = source is not None and source.is_rows
    if shape is None or (not has_rows and shape.origin is Dependence.FIXED):
        return None
    if shape.known is None or shape.is_rows or MIXED in (target := shape.known.reshape(-1).tolist()):
        raise NotRowWise("a shape is computed from data, or from the number of rows")
    if operation.kind == "Reshape":
        if source is None or not has_rows:
            raise NotRowWise("it spreads a weight over the rows")
        if source.origin is Dependence.COUNT or source.dims is None:
            raise NotRowWise("the rank of an input is not known")
        copies = not operation.attributes.get("allowzero", 0)
        axis, dims = reshaped_axis(source, target, copies_zero=copies)
        if inferred is not None and len(inferred) == len(dims):
            dims = tuple(theirs if mine is None else mine for mine, theirs in zip(dims, inferred, strict=True))
        return _row_operand(axis, dims)
    if target.count(ROWS) > 1:
        raise NotRowWise("it has the number of rows on two axes")
    return _expanded(source, target)


def _expanded(source: Operand | None, target: list[Size]) -> Operand:
    """Returns the source broadcast to a shape; without a source, one number in every element."""
    rank = len(target) if source is None else max(source.rank, len(target))
    ones: list[Size] = [1] * rank
    sizes = [*ones[len(target) :], *target]
    own = ones if source is None else [*ones[source.rank :], *(source.dims or ())]
    if source is not None and source.origin is Dependence.COUNT:
        raise NotRowWise("it computes with the number of rows")
    if source is not None and source.is_rows:
        axis = rank - source.rank + source.axis
        if sizes[axis] not in (1, ROWS) or ROWS in (*sizes[:axis], *sizes[axis + 1 :]):
            raise NotRowWise("it spreads rows")
    else:
        axis = sizes.index(ROWS)
        if own[axis] != 1:
            raise NotRowWise("a weight has a size of its own along the rows")
    dims = [mine if asked == 1 else asked for mine, asked in zip(own, sizes, strict=True)]
    dims[axis] = ROWS
    return _row_operand(axis, tuple(dims))


# ---- what a graph computes from sizes ----


def _evaluated(operation: Operation, dims: tuple[Size, ...] | None) -> Objects | None:
    """Returns the elements of the output if they follow from sizes and small numbers, else None."""
    kind = operation.kind
    first = operation.at(0)
    if kind == "Shape":
        sizes = None if first is None else first.dims
        start, end = operation.attributes.get("start", 0), operation.attributes.get("end")
        return None if sizes is None else _objects(list(sizes)[start:end])
    if kind == "Constant":
        for name in ("value_int", "value_ints", "value_float", "value_floats"):
            if name in operation.attributes:
                return _objects(operation.attributes[name])
        return None
    values = [operand.known for operand in operation.inputs if operand is not None]
    if not values or any(value is None or value.size > _MAX_KNOWN for value in values):
        return None
    arrays = cast(list[Objects], values)
    if kind in ("Identity", "Cast"):
        return _objects([_whole(element) for element in arrays[0].reshape(-1).tolist()]).reshape(arrays[0].shape)
    if kind in ("Unsqueeze", "Squeeze") and dims is not None and all(isinstance(size, int) for size in dims):
        return arrays[0].reshape(cast(tuple[int, ...], dims))
    if kind == "Concat":
        return (
            cast(Objects, np.concatenate([np.atleast_1d(array) for array in arrays], 0)) if arrays[0].ndim < 2 else None
        )
    if kind == "Gather" and arrays[0].ndim == 1:
        return _objects_like(np.take(arrays[0], arrays[1].astype(np.int64)), arrays[1].shape)
    if kind == "Slice" and arrays[0].ndim == 1 and len(arrays) >= 3:
        start, end = int(arrays[1].reshape(-1)[0]), int(arrays[2].reshape(-1)[0])
        step = int(arrays[4].reshape(-1)[0]) if len(arrays) > 4 else 1
        return arrays[0][start : end if end < 1 << 31 else None : step]
    if kind == "ConstantOfShape":
        numbers = operation.inputs[0].numbers() if operation.inputs[0] is not None else []
        value = operation.attributes.get("value")
        fill = 0 if value is None else numpy_helper.to_array(value).reshape(-1)[0].item()
        return _objects_like(np.full(numbers, fill, object), tuple(numbers)) if np.prod(numbers) <= _MAX_KNOWN else None
    if kind in _ARITHMETIC:
        function = np.frompyfunc(_ARITHMETIC[kind], len(arrays), 1)
        result = function(*arrays)
        return _objects_like(result, np.broadcast_shapes(*(array.shape for array in arrays)))
    return None


def _objects(elements: Any) -> Objects:
    if not isinstance(elements, list | tuple):
        return _objects_like(elements, ())
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def _objects_like(values: Any, shape: Sequence[int]) -> Objects:
    array = np.empty(tuple(shape), object)
    array[...] = values
    return array


def _whole(element: Size | float) -> Size:
    if isinstance(element, float):
        return int(element) if element.is_integer() else None
    return element


def _arithmetic(function: Any, neutral: int | None) -> Any:
    def apply(first: Size, second: Size) -> Size:
        if isinstance(first, int) and isinstance(second, int):
            return int(function(first, second))
        if second == neutral and neutral is not None:
            return first
        return MIXED if ROWS in (first, second) or MIXED in (first, second) else None

    return apply


def _equal(first: Size, second: Size) -> Size:
    if isinstance(first, int) and isinstance(second, int):
        return int(first == second)
    if any(isinstance(size, int) and size < 0 for size in (first, second)) and MIXED not in (first, second):
        return 0  # a size is never negative
    return MIXED if ROWS in (first, second) or MIXED in (first, second) else None


def _chosen(condition: Size, first: Size, second: Size) -> Size:
    if isinstance(condition, int):
        return first if condition else second
    return MIXED if {ROWS, MIXED} & {condition, first, second} else None


_ARITHMETIC: Final[Mapping[str, Any]] = {
    "Add": _arithmetic(lambda a, b: a + b, 0),
    "Sub": _arithmetic(lambda a, b: a - b, 0),
    "Mul": _arithmetic(lambda a, b: a * b, 1),
    "Div": _arithmetic(lambda a, b: a // b, 1),
    "Equal": _equal,
    "Where": _chosen,
}


def _dims(kind: onnx.TypeProto) -> tuple[Size, ...] | None:
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        ROWS
        if size.dim_param == _SYMBOL
        else size.dim_value
        if size.HasField("dim_value") and size.dim_value >= 0
        else None
        for size in kind.tensor_type.shape.dim
    )


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise NotRowWise("it holds a graph of its own")
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is_small(tensor: TensorProto) -> bool:
    return int(np.prod(tensor.dims)) <= _MAX_KNOWN and tensor.data_location != TensorProto.EXTERNAL
