"""A reference profile from columns of values: training data, a window of the log, or a model's answers to them."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.bins import Bins, build_categories, build_numeric
from gateway.drift.statistics.calibration import RowOrder, calibrate, explained
from gateway.drift.statistics.column import Array, Column, as_column
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.reference_profile import EmbeddingProfile, FeatureKind, FeatureProfile, Profile, rounded
from gateway.errors import InvalidArgument

FEW_DISTINCT: Final = 5  # numbers with no more different values than this are categories
_COMPONENTS: Final = 16
_SAMPLE: Final = 500
_OVERFIT: Final = 1.5  # times the variance of a component on other rows, above which it fits chance
_SEED: Final = 0x656D62  # of directions that know no rows
_WATCHED: Final = 8  # components that are features of their own
Columns = Mapping[str, npt.ArrayLike | Column]


def build_profile(
    model: str,
    version: str,
    inputs: Columns,
    outputs: Columns,
    *,
    created_at: float,
    source: str,
    revision: int = 1,
    categories: Collection[str] = (),
    embeddings: Mapping[str, Array] | None = None,
    names: Mapping[str, str] | None = None,
    order: RowOrder = RowOrder.UNSAID,
) -> Profile:
    """The profile of these rows.

    `inputs` and `outputs` are by lake column, in the order of time where there is one; `names` says what features are
    called where that is not the column; the features in `categories` are taken as such whatever their values are.
    `embeddings` may be of some of the rows alone. `order` is what is known of the order of the rows.
    Shapes: as many values in each column; an embedding is [some of the rows, d].
    Raises: InvalidArgument (no rows, columns of different lengths, a name twice, a category that is no column).
    """
    called = names or {}
    columns = {name: as_column(name, values) for name, values in {**inputs, **outputs}.items()}
    rows = _rows(columns, embeddings or {})
    chosen = Counter(called.get(name, feature_name(name)) for name in columns)
    if double := [name for name, count in chosen.items() if count > 1]:
        raise InvalidArgument(f"feature name {double[0]!r} is given twice, each feature and output needs its own")
    for name in categories:
        if name not in chosen:
            raise InvalidArgument(f"category {name!r} is no column, the columns are {', '.join(sorted(chosen))}")

    def build(column: str) -> FeatureProfile:
        name = called.get(column, feature_name(column))
        return build_feature(name, column, columns[column], as_category=name in categories, order=order)

    return Profile(
        model=model,
        version=version,
        revision=revision,
        created_at=created_at,
        source=source,
        rows=rows,
        features=tuple(build(column) for column in inputs),
        outputs=tuple(build(column) for column in outputs),
        embeddings=tuple(build_embedding(name, vectors, order=order) for name, vectors in (embeddings or {}).items()),
    )


@np.errstate(over="ignore", invalid="ignore")  # squares of huge numbers have no deviation; NaN says so
def build_feature(
    name: str,
    column: str,
    values: npt.ArrayLike | Column,
    *,
    as_category: bool = False,
    order: RowOrder = RowOrder.UNSAID,
) -> FeatureProfile:
    """The profile of one feature, with bins on its own values.

    Raises: InvalidArgument (no column of numbers or texts).
    """
    held = as_column(name, values)
    kind = _kind(held, as_category)
    bins: Bins = build_numeric(held) if kind in (FeatureKind.NUMBER, FeatureKind.INTEGER) else build_categories(held)
    counts = bins.count(held)
    ordered = held
    if order is RowOrder.NONE:
        ordered = held.rows(np.random.default_rng(0).permutation(len(held)))
    numbers = held.numbers()
    finite = numbers[np.isfinite(numbers)]
    nothing = float("nan")
    return FeatureProfile(
        name=name,
        column=column,
        kind=kind,
        bins=bins,
        counts=tuple(int(count) for count in counts),
        n=len(held),
        missing=int(bins.special(counts)["missing"]),
        mean=float(finite.mean()) if len(finite) else nothing,
        sd=float(finite.std()) if len(finite) else nothing,
        min=float(finite.min()) if len(finite) else nothing,
        max=float(finite.max()) if len(finite) else nothing,
        singletons=_singletons(held) if kind in (FeatureKind.CATEGORY, FeatureKind.TEXT) else 0,
        calibration=calibrate(bins, ordered),
        explained=explained(bins, ordered),
        bounded=order is not RowOrder.TIME,
    )


def build_embedding(column: str, vectors: Array, *, order: RowOrder = RowOrder.UNSAID) -> EmbeddingProfile:
    """Centre, principal components and some rows of an embedding, evenly spaced over all; and the first components as
    features.

    The components are those of every other row, features and sample those of the rows between: on the rows that they
    were made from, components are wider than on any others.
    Shapes: `vectors` [rows, d].
    Raises: InvalidArgument (another shape, or no row that is finite).
    """
    if vectors.ndim != 2:
        raise InvalidArgument(f"embedding {column!r} has shape {list(vectors.shape)}, expected [rows, d]")
    finite = vectors.astype(np.float64)
    finite = finite[np.isfinite(finite).all(axis=1)]
    if not len(finite):
        raise InvalidArgument(f"embedding {column!r} has no row of finite numbers")
    fitted = finite[::2]
    centre = fitted.mean(axis=0)
    _, axes = np.linalg.eigh((fitted - centre).T @ (fitted - centre))
    beside = finite[1::2] if len(finite) > 1 else finite
    components = _without_noise(axes[:, ::-1][:, :_COMPONENTS].T, fitted - centre, beside - centre)
    chosen = np.linspace(0, len(beside) - 1, min(_SAMPLE, len(beside))).astype(np.int64)
    sample = (beside[chosen] - centre) @ components.T
    made = EmbeddingProfile(
        name=feature_name(column),
        column=column,
        rows=len(finite),
        # In few digits, as they are stored: what is projected now and what is read back must fall into the same bins.
        centre=tuple(rounded(value) for value in centre.tolist()),
        components=tuple(tuple(rounded(value) for value in row) for row in components.tolist()),
        sample=tuple(tuple(rounded(value) for value in row) for row in sample.tolist()),
    )
    placed = made.project(beside)
    numbers = [*range(min(_WATCHED, len(components))), len(components)]
    features = [
        build_feature(embedded_name(made.name, n, len(components)), column, placed[:, n], order=order) for n in numbers
    ]
    return replace(made, features=tuple(replace(one, kind=FeatureKind.EMBEDDING) for one in features))


def _without_noise(components: Floats, fitted: Floats, beside: Floats) -> Floats:
    """The components, those that only fit the chance of their rows replaced by directions that know no rows.

    Such a component is wide on the rows that it was fitted on and narrow on all others, so that any window that holds
    some of them would differ from one that does not. Shapes: `components` [k, d], as the result; rows [any, d].
    """
    wide, narrow = (rows @ components.T for rows in (fitted, beside))
    noise = wide.var(axis=0) > _OVERFIT * narrow.var(axis=0)
    noise &= wide.var(axis=0) > 1e-9 * max(float(fitted.var(axis=0).sum()), 1e-300)
    if not noise.any():
        return components
    drawn = np.random.default_rng(_SEED).normal(size=(int(noise.sum()), components.shape[1]))
    basis, _ = np.linalg.qr(np.concatenate([components[~noise], drawn]).T)
    return np.asarray(np.concatenate([components[~noise], basis.T[int((~noise).sum()) :]]), np.float64)


def embedded_name(name: str, place: int, components: int) -> str:
    """Returns what a component of an embedding is called, counted from 1; the length beside them is called the rest."""
    return f"{name}~{place + 1}" if place < components else f"{name}~rest"


def feature_name(column: str) -> str:
    """Returns what a feature is called by default: its column in the lake, without the "f." of inputs."""
    return column.removeprefix("f.")


def _rows(columns: Mapping[str, Column], embeddings: Mapping[str, Array]) -> int:
    """The number of rows of a profile."""
    lengths = {name: len(values) for name, values in columns.items()}
    lengths = lengths or {name: len(vectors) for name, vectors in embeddings.items()}
    if not lengths or not max(lengths.values()):
        raise InvalidArgument("the reference has no rows, a profile needs some")
    rows = next(iter(lengths.values()))
    for name, length in lengths.items():
        if length != rows:
            raise InvalidArgument(f"column {name!r} has {length} rows, the others {rows}")
    for name, vectors in embeddings.items():
        if len(vectors) > rows:
            raise InvalidArgument(f"embedding {name!r} has {len(vectors)} rows, the columns have {rows}")
    return rows


def _kind(column: Column, as_category: bool) -> FeatureKind:
    if column.texts is not None:
        return FeatureKind.TEXT
    if as_category:
        return FeatureKind.CATEGORY
    numbers = column.numbers()
    finite = numbers[np.isfinite(numbers)]
    if len(finite) and len(np.unique(finite)) <= FEW_DISTINCT:
        return FeatureKind.CATEGORY
    return FeatureKind.INTEGER if column.values.dtype.kind in "iu" else FeatureKind.NUMBER


def _singletons(column: Column) -> int:
    present = column.values if column.missing is None else column.values[~column.missing]
    _, counts = np.unique(present, return_counts=True)
    return int((counts == 1).sum())
