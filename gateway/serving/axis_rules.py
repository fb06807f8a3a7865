"""The axis of the rows behind operators that move axes, or pick, join and cut along them."""

from gateway.serving.row_operand import Dependence, NotRowWise, Operation

_ENDLESS = (1 << 31) - 1


def positive(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def transposed(operation: Operation) -> int:
    source = operation.rows()
    order = list(operation.attributes.get("perm", range(source.rank - 1, -1, -1)))
    return order.index(source.axis)


def squeezed(operation: Operation) -> int:
    source = operation.rows()
    axes = operation.axes()
    if axes is None:
        raise NotRowWise("it drops every axis of size 1, that of a single row too")
    dropped = {positive(axis, source.rank) for axis in axes}
    if source.axis in dropped:
        raise NotRowWise("it drops the axis of the rows")
    return source.axis - sum(axis < source.axis for axis in dropped)


def unsqueezed(operation: Operation) -> int:
    source = operation.rows()
    axes = operation.axes() or []
    rank = source.rank + len(axes)
    added = {positive(axis, rank) for axis in axes}
    return [axis for axis in range(rank) if axis not in added][source.axis]


def flattened(operation: Operation) -> int:
    source = operation.rows()
    axis = positive(operation.attributes.get("axis", 1), source.rank)
    if source.axis != 0 or axis != 1:
        raise NotRowWise("it joins the rows with another axis")
    return 0


def gathered(operation: Operation) -> int:
    source, indices = operation.at(0), operation.at(1)
    if source is None or indices is None:
        raise NotRowWise("an input is missing")
    along = positive(operation.attributes.get("axis", 0), source.rank)
    if source.is_rows:
        operation.fixed(1)
        if along == source.axis:
            raise NotRowWise("it picks rows")
        return source.axis if source.axis < along else source.axis + indices.rank - 1
    operation.fixed(0)
    return along + operation.rows(1).axis


def gathered_elements(operation: Operation) -> int:
    source, indices = operation.rows(0), operation.rows(1)
    along = positive(operation.attributes.get("axis", 0), source.rank)
    if source.axis != indices.axis or along == source.axis:
        raise NotRowWise("it picks rows")
    return source.axis


def concatenated(operation: Operation) -> int:
    first = operation.rows()
    along = positive(operation.attributes.get("axis", 1), first.rank)
    for position in range(len(operation.inputs)):
        if operation.rows(position).axis != first.axis:
            raise NotRowWise("its inputs have their rows on different axes")
    if along == first.axis:
        raise NotRowWise("it puts rows behind each other")
    return first.axis


def sliced(operation: Operation) -> int:
    source = operation.rows()
    starts, ends = (operation.axes(name, position) for name, position in (("starts", 1), ("ends", 2)))
    axes, steps = operation.axes("axes", 3), operation.axes("steps", 4)
    for index, (start, end) in enumerate(zip(starts or [], ends or [], strict=True)):
        axis = positive(axes[index], source.rank) if axes is not None else index
        whole = start == 0 and end >= _ENDLESS and (steps is None or steps[index] == 1)
        if axis == source.axis and not whole:
            raise NotRowWise("it cuts rows off")
    return source.axis


def padded(operation: Operation) -> int:
    source = operation.rows()
    operation.fixed(*range(1, len(operation.inputs)))
    pads = operation.axes("paddings" if "paddings" in operation.attributes else "pads", 1) or []
    axes = operation.axes("axes", 3) if len(operation.inputs) > 3 else None
    padded = list(range(source.rank)) if axes is None else [positive(axis, source.rank) for axis in axes]
    for index, axis in enumerate(padded):
        if axis == source.axis and (pads[index] or pads[index + len(padded)]):
            raise NotRowWise("it adds rows")
    return source.axis


def tiled(operation: Operation) -> int:
    source = operation.rows()
    repeats = operation.at(1)
    if repeats is None or repeats.numbers()[source.axis] != 1:
        raise NotRowWise("it repeats rows")
    return source.axis


def triangle(operation: Operation) -> int:
    source = operation.rows()
    operation.fixed(1)
    if source.axis >= source.rank - 2:
        raise NotRowWise("it works along the rows")
    return source.axis


def einsum(operation: Operation) -> int:
    equation: str = operation.attributes["equation"].decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not arrow or len(terms) != len(operation.inputs):
        raise NotRowWise("its equation is implicit or has an ellipsis")
    labels = set()
    for term, operand in zip(terms, operation.inputs, strict=True):
        if operand is not None and operand.is_rows:
            labels.add(term[operand.axis])
            if term.count(term[operand.axis]) > 1:
                raise NotRowWise("it takes a diagonal through the rows")
    if len(labels) != 1 or not labels <= set(right):
        raise NotRowWise("it adds up over the rows")
    (label,) = labels
    for term, operand in zip(terms, operation.inputs, strict=True):
        if operand is not None and not operand.is_rows and (label in term or operand.origin is Dependence.COUNT):
            raise NotRowWise("a weight has a size of its own along the rows")
    return right.index(label)
