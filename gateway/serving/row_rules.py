"""The table of operators and the axes on which they are row-wise.

A value is row-wise on an axis if its slice at i of that axis depends on row i of the request alone. Each rule
receives a node whose inputs are row-wise, or the same for every request, and returns the axis on which its outputs are
row-wise. An operator in no table counts as not row-wise: that is the safe answer for operators of a later release.

Operators that are left out on purpose: DynamicQuantizeLinear (its scale comes from all rows), everything random,
NonZero, Unique, Compress and StringSplit (their sizes come from all rows), and what holds a graph of its own.

Source: the operators' specifications, https://onnx.ai/onnx/operators/ (all versions of each operator).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.serving.axis_rules import (
    concatenated,
    einsum,
    flattened,
    gathered,
    gathered_elements,
    padded,
    positive,
    sliced,
    squeezed,
    tiled,
    transposed,
    triangle,
    unsqueezed,
)
from gateway.serving.row_operand import MIXED, ROWS, Dependence, NotRowWise, Operand, Operation

_ML = "ai.onnx.ml"

Axes = int | Sequence[int]
Rule = Callable[[Operation], Axes]


def _elementwise(operation: Operation) -> int:
    """Broadcasts: axes align from the right; an operand that does not depend on rows must not have several of them."""
    if "broadcast" in operation.attributes or "axis" in operation.attributes:
        raise NotRowWise("its version aligns axes by an attribute")
    operands = [operand for operand in operation.inputs if operand is not None]
    rank = max(operand.rank for operand in operands)
    axes = {rank - operand.rank + operand.axis for operand in operands if operand.is_rows}
    if len(axes) != 1:
        raise NotRowWise("its inputs have their rows on different axes")
    (axis,) = axes
    for operand in operands:
        if not operand.is_rows:
            _check_spread(operand, axis - rank)
    return axis


def _check_spread(operand: Operand, axis_from_right: int) -> None:
    """Checks that the operand is the same for all rows."""
    dims = operand.dims or ()
    if operand.origin is Dependence.COUNT:
        raise NotRowWise("it computes with the number of rows")
    if operand.rank >= -axis_from_right and dims[axis_from_right] != 1:
        raise NotRowWise("a weight has a size of its own along the rows")


def _unary(operation: Operation) -> int:
    """Works on the first input element by element; the others are settings."""
    operation.fixed(*range(1, len(operation.inputs)))
    return operation.rows().axis


def _quantized(operation: Operation) -> int:
    axis = _unary(operation)
    scale = operation.at(1)
    along = positive(operation.attributes.get("axis", 1), operation.rows().rank)
    if scale is not None and (scale.rank > 1 or (scale.rank == 1 and along == axis)):
        raise NotRowWise("it has a scale for each row, or for each block")
    return axis


def _batch_first(operation: Operation) -> int:
    """Convolutions, pools and normalisations: axis 0 is the batch, by their specification."""
    if operation.rows().axis != 0:
        raise NotRowWise("its batch axis is not the one of the rows")
    operation.fixed(*range(1, len(operation.inputs)))
    return 0


def _pool(operation: Operation) -> int:
    if operation.outputs > 1:
        raise NotRowWise("its indices count through all rows")
    return _batch_first(operation)


def _batch_norm(operation: Operation) -> int:
    if operation.attributes.get("training_mode", 0) or operation.outputs > 1:
        raise NotRowWise("it is in training mode: it takes the mean over all rows")
    return _batch_first(operation)


def _dropout(operation: Operation) -> int:
    training = operation.at(2)
    if (operation.opset < 7 and not operation.attributes.get("is_test", 0)) or (
        training is not None and training.numbers() != [0]
    ):
        raise NotRowWise("it is in training mode")
    return _unary(operation)


def _resize(operation: Operation) -> int:
    source = operation.rows()
    axis = source.axis
    if operation.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        raise NotRowWise("it may crop rows")
    axes = operation.attributes.get("axes")
    if axes is not None:
        operation.fixed(*range(1, len(operation.inputs)))
        if axis in [positive(each, source.rank) for each in axes]:
            raise NotRowWise("it resizes along the rows")
        return axis
    old = operation.kind == "Upsample" or operation.opset < 11
    scales, sizes = operation.at(1 if old else 2), None if old else operation.at(3)
    if sizes is not None:
        kept = [] if sizes.known is None else sizes.known.reshape(-1).tolist()
        stretches = operation.attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
        if (
            stretches
            and len(kept) == source.rank
            and kept[axis] == ROWS
            and kept.count(ROWS) == 1
            and MIXED not in kept
        ):
            return axis
        raise NotRowWise("it resizes along the rows, or to sizes that are not known")
    factors = operation.attributes.get("scales")
    if factors is None:
        factors = [] if scales is None or scales.known is None else scales.known.reshape(-1).tolist()
    if len(factors) != source.rank or factors[axis] != 1:
        raise NotRowWise("it resizes along the rows, or by factors that are not known")
    return axis


def _contraction(operation: Operation) -> int:
    left, right = operation.at(0), operation.at(1)
    operation.fixed(*range(2, len(operation.inputs)))
    if left is None or right is None:
        raise NotRowWise("an input is missing")
    rank = max(left.rank, right.rank)
    axes = set()
    for operand, contracted in ((left, -1), (right, -2)):
        if operand.is_rows:
            if operand.rank < 2 or operand.axis == positive(contracted, operand.rank):
                raise NotRowWise("it adds up over the rows")
            axes.add(rank - operand.rank + operand.axis)
    if len(axes) != 1:
        raise NotRowWise("its inputs have their rows on different axes")
    (axis,) = axes
    if left.is_rows and right.is_rows and axis >= rank - 2:
        raise NotRowWise("it multiplies each row with every other")
    for operand in (left, right):
        if operand.origin is Dependence.COUNT:
            raise NotRowWise("it computes with the number of rows")
        if not operand.is_rows and axis < rank - 2:
            _check_spread(operand, axis - rank)
    if 1 in (left.rank, right.rank):
        if right.rank != 1:
            raise NotRowWise("its first input is a vector")
        return left.axis
    return axis


def _gemm(operation: Operation) -> int:
    source = operation.rows()
    if source.axis != (1 if operation.attributes.get("transA", 0) else 0):
        raise NotRowWise("it adds up over the rows")
    operation.fixed(1)
    added = operation.at(2)
    if added is not None and added.is_rows:
        if added.rank != 2 or added.axis != 0:
            raise NotRowWise("what it adds has its rows on another axis")
    elif added is not None:
        _check_spread(added, -2)
    return 0


def _apart(default: int, attribute: str = "axis", position: int = -1) -> Rule:
    """Returns the rule of operators that work along one axis, which must not be the row axis."""

    def rule(operation: Operation) -> int:
        source = operation.rows()
        operation.fixed(*range(1, len(operation.inputs)))
        axes = operation.axes(attribute, position) if position > 0 else None
        along = operation.attributes.get(attribute, default) if axes is None else axes[0]
        if positive(along, source.rank) == source.axis:
            raise NotRowWise("it works along the rows")
        return source.axis

    return rule


def _softmax(operation: Operation) -> int:
    source = operation.rows()
    axis = positive(operation.attributes.get("axis", -1 if operation.opset >= 13 else 1), source.rank)
    # Before operator set 13 it joins all axes from `axis` on.
    if source.axis == axis or (operation.opset < 13 and source.axis > axis):
        raise NotRowWise("it works along the rows")
    return source.axis


def _normalized_tail(operation: Operation) -> int:
    source = operation.rows()
    operation.fixed(*range(1, len(operation.inputs)))
    if source.axis >= positive(operation.attributes.get("axis", -1), source.rank):
        raise NotRowWise("it works along the rows")
    return source.axis


def _mean_variance(operation: Operation) -> int:
    source = operation.rows()
    if source.axis in [positive(axis, source.rank) for axis in operation.attributes.get("axes", (0, 2, 3))]:
        raise NotRowWise("it takes the mean over the rows")
    return source.axis


def _reduced(operation: Operation) -> int:
    source = operation.rows()
    axes = operation.axes()
    if not axes:
        if operation.attributes.get("noop_with_empty_axes", 0):
            return source.axis
        raise NotRowWise("it reduces all axes, the rows among them")
    return _without(source, axes, operation)


def _arg_extreme(operation: Operation) -> int:
    return _without(operation.rows(), [operation.attributes.get("axis", 0)], operation)


def _without(source: Operand, axes: Sequence[int], operation: Operation) -> int:
    reduced = {positive(axis, source.rank) for axis in axes}
    if source.axis in reduced:
        raise NotRowWise("it reduces over the rows")
    if operation.attributes.get("keepdims", 1):
        return source.axis
    return source.axis - sum(axis < source.axis for axis in reduced)


def _one_hot(operation: Operation) -> int:
    source = operation.rows()
    operation.fixed(1, 2)
    axis = positive(operation.attributes.get("axis", -1), source.rank + 1)
    return source.axis if source.axis < axis else source.axis + 1


def _one_hot_encoded(operation: Operation) -> int:
    return operation.rows().axis


def _ranked(operation: Operation) -> Axes:
    if operation.opset < 10:
        raise NotRowWise("its version is too old")
    return _apart(-1)(operation)


def _recurrent(operation: Operation) -> Sequence[int]:
    """LSTM, GRU, RNN: input [steps, rows, features], lengths [rows], states [directions, rows, hidden]."""
    if operation.attributes.get("layout", 0) or operation.rows().axis != 1:
        raise NotRowWise("its batch axis is not the one of the rows")
    operation.fixed(1, 2, 3, 7)
    for position, axis in ((4, 0), (5, 1), (6, 1)):
        operand = operation.at(position)
        if operand is not None and (not operand.is_rows or operand.axis != axis):
            raise NotRowWise(f"its input {position + 1} is not given row by row")
    return 2, 1, 1


def _table_of_features(operation: Operation) -> int:
    """Operators of classic machine learning: input [rows, features]."""
    operation.fixed(*range(1, len(operation.inputs)))
    source = operation.rows()
    if source.axis != 0 or source.rank < 2:
        raise NotRowWise("its input is not a table with a row per row")
    return 0


def _features_joined(operation: Operation) -> int:
    for position in range(len(operation.inputs)):
        if operation.rows(position).axis != 0 or operation.rows(position).rank < 2:
            raise NotRowWise("its input is not a table with a row per row")
    return 0


def _features_picked(operation: Operation) -> int:
    source = operation.at(0)
    if source is not None and not source.is_rows:
        picked = operation.rows(1)
        if source.origin is not Dependence.FIXED or any(size not in (1, ROWS) for size in picked.dims or (None,)):
            raise NotRowWise("it picks several elements for a row")
        return max(source.rank, 2) - 1  # a vector is a table with one row
    operation.fixed(1)
    source = operation.rows()
    if source.axis == source.rank - 1:
        raise NotRowWise("it picks rows")
    return source.axis


def _each(rule: Rule, domain: str, names: str) -> dict[tuple[str, str], Rule]:
    return dict.fromkeys(((domain, name) for name in names.split()), rule)


RULES: Final[Mapping[tuple[str, str], Rule]] = {
    **_each(
        _elementwise,
        "",
        "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil "
        "Celu Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf "
        "IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round "
        "Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt StringConcat Sub Sum Swish Tan Tanh ThresholdedRelu "
        "Where Xor",
    ),
    **_each(_unary, "", "Clip CastLike RegexFullMatch"),
    **_each(_quantized, "", "QuantizeLinear DequantizeLinear"),
    **_each(
        _batch_first,
        "",
        "AveragePool Conv ConvInteger ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool "
        "GroupNormalization InstanceNormalization LRN LpPool QLinearConv SpaceToDepth",
    ),
    ("", "MaxPool"): _pool,
    ("", "BatchNormalization"): _batch_norm,
    ("", "Dropout"): _dropout,
    **_each(_resize, "", "Resize Upsample"),
    **_each(_contraction, "", "MatMul MatMulInteger"),
    ("", "Gemm"): _gemm,
    **_each(_softmax, "", "Softmax LogSoftmax Hardmax"),
    **_each(_normalized_tail, "", "LayerNormalization RMSNormalization"),
    ("", "MeanVarianceNormalization"): _mean_variance,
    ("", "LpNormalization"): _apart(-1),
    ("", "CumSum"): _apart(0, "axis", 1),
    ("", "Split"): _apart(0),
    ("", "TopK"): _ranked,
    **_each(
        _reduced,
        "",
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare",
    ),
    **_each(_arg_extreme, "", "ArgMax ArgMin"),
    ("", "Transpose"): transposed,
    ("", "Squeeze"): squeezed,
    ("", "Unsqueeze"): unsqueezed,
    ("", "Flatten"): flattened,
    ("", "Gather"): gathered,
    ("", "GatherElements"): gathered_elements,
    ("", "OneHot"): _one_hot,
    ("", "Concat"): concatenated,
    ("", "Slice"): sliced,
    ("", "Pad"): padded,
    ("", "Tile"): tiled,
    ("", "Trilu"): triangle,
    ("", "Einsum"): einsum,
    **_each(_recurrent, "", "LSTM GRU RNN"),
    **_each(_elementwise, _ML, "Binarizer CategoryMapper LabelEncoder"),
    **_each(
        _table_of_features,
        _ML,
        "Imputer LinearClassifier LinearRegressor Normalizer SVMClassifier SVMRegressor Scaler TreeEnsemble "
        "TreeEnsembleClassifier TreeEnsembleRegressor ZipMap",
    ),
    ("", "TfIdfVectorizer"): _table_of_features,
    (_ML, "OneHotEncoder"): _one_hot_encoded,
    (_ML, "FeatureVectorizer"): _features_joined,
    (_ML, "ArrayFeatureExtractor"): _features_picked,
}
# Ranks of the outputs of operators that ONNX infers no shapes for; 0: as the input.
RANKS: Final[Mapping[tuple[str, str], Sequence[int]]] = {
    **dict.fromkeys(((_ML, name) for name in ("Binarizer", "Imputer", "LabelEncoder", "Normalizer", "Scaler")), (0,)),
    **dict.fromkeys(((_ML, f"{kind}Classifier") for kind in ("Linear", "SVM", "TreeEnsemble")), (1, 2)),
    **dict.fromkeys(((_ML, f"{kind}Regressor") for kind in ("Linear", "SVM", "TreeEnsemble")), (2,)),
    (_ML, "TreeEnsemble"): (2,),
    (_ML, "FeatureVectorizer"): (2,),
}
# Deterministic, and harmless if no input depends on the rows. If one does, they are not row-wise, or the walk itself
# handles them (those that make or take shapes).
FIXED_ONLY: Final = frozenset(
    _each(
        _unary,
        "",
        "Constant ConstantOfShape EyeLike Expand GatherND NonZero Range Reshape ScatterElements ScatterND Shape Size",
    )
)
