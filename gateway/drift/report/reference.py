"""Tells what a window is compared with: a stored profile, another window of the log, or rows of a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.lake_sql import quoted
from gateway.drift.report.span import Span
from gateway.drift.report.survey import SAMPLE_ROWS, Progress, cut, survey
from gateway.drift.statistics.answers import Labelled, find_outputs, labelled_columns
from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.calibration import RowOrder
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.distance import Counts, Floats
from gateway.drift.statistics.reference_profile import FeatureProfile, Profile
from gateway.drift.training import read_file
from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.records.worker.feature_names import FEATURE

BUILD_ROWS: Final = 200_000
_LIST: Final = ("FLOAT[]", "DOUBLE[]")
_EMBEDDING_ROWS: Final = 4000
_EMBEDDING_WIDTH: Final = 4096


@dataclass(frozen=True, slots=True)
class Reference:
    """`sample` has rows of the reference by feature name, in the order of time, none where only a profile is there, and
    `sample_us` their times, None where only the order is known; `labelled` its labelled rows, None where there are
    none; `description` says what it is, in words."""

    profile: Profile
    description: str
    sample: Mapping[str, Column] = field(default_factory=dict)
    sample_us: npt.NDArray[np.int64] | None = None
    labelled: Labelled | None = None


def reference_selection(lake: Lake, selection: Selection, span: Span) -> Selection:
    """The rows of that span that a selection is compared with: those of its versions and arms, or, where these had none
    (they are new), those of all."""
    same = replace(selection, span=span)
    if not (selection.versions or selection.arms) or lake.census(same).total:
        return same
    return replace(same, versions=(), arms=(), shadow=False)


def reference_window(
    lake: Lake,
    selection: Selection,
    *,
    rng: np.random.Generator,
    created_at: float,
    names: Mapping[str, str] | None = None,
    progress: Progress = lambda rows: None,
) -> Reference:
    """A window of the log as the reference: bins and calibration from at most 200 000 of its rows, counts from all.

    `names` says what features are called where the log does not.
    Raises: FailedPrecondition (no rows).
    """
    census = lake.census(selection)
    if not census.total:
        raise FailedPrecondition(
            f"model {selection.model!r} has no logged rows in the reference window {selection.span}"
        )
    kinds = lake.columns(selection)
    inputs, outputs = flat_columns(kinds)
    share = min(BUILD_ROWS / census.total, 1.0)
    columns = lake.fetch(
        selection, {"~ts": "epoch_us(ts)", **{name: quoted(name) for name in (*inputs, *outputs)}}, share=share
    )
    order = np.argsort(np.ma.getdata(columns.pop("~ts")), kind="stable")
    whose = "" if selection.versions or selection.arms else " of all versions and arms"
    description = f"logged rows of {selection.span}{whose}"
    profile = build_profile(
        selection.model,
        ", ".join(selection.versions),
        {name: columns[name][order] for name in inputs},
        {name: columns[name][order] for name in outputs},
        created_at=created_at,
        source=description,
        names={**(names or {}), **lake.feature_names(selection)},
        embeddings=_embeddings(lake, selection, kinds, census.total),
        order=RowOrder.TIME,
    )
    counted = survey(
        lake, selection, profile.all_features, rng=rng, census=census, buckets=cut(selection.span), progress=progress
    )
    recount = recounted(profile, counted.counts, census.total)
    # Columns without any value are of other versions, or of answers that this model never gives: a regressor's class.
    answered = replace(recount, outputs=tuple(output for output in recount.outputs if output.n))
    return Reference(answered, description, counted.sample, counted.sample_us)


def reference_file(
    path: Path,
    kinds: Mapping[str, str],
    *,
    model: str,
    created_at: float,
    names: Mapping[str, str],
    label: str = "label",
    classes: Sequence[str] = (),
) -> Reference:
    """Rows of a .csv, .parquet or .npz file as the reference.

    A column of the file is one of the log where it has its name (`kinds` are the columns of the log), with or without
    the "f." of inputs, or the name that `names` gives it, with or without that. `label` is the column of labels, if the
    file has it.
    Raises: InvalidArgument (the file cannot be read, or has no column of the log's).
    """
    columns = read_file(path)
    inputs, outputs = flat_columns(kinds)
    places = {column: _place(column, columns, names) for column in (*inputs, *outputs)}
    known = {column: columns[place] for column, place in places.items() if place}
    if not any(column in known for column in inputs):
        wanted = ", ".join(names.get(column, column.removeprefix("f.")) for column in inputs[:8])
        raise InvalidArgument(f"{str(path)!r} has the columns {', '.join(list(columns)[:8])}, but none of {wanted}")
    profile = build_profile(
        model,
        "",
        {column: known[column] for column in inputs if column in known},
        {column: known[column] for column in outputs if column in known},
        created_at=created_at,
        source=path.name,
        names=names,
    )
    chosen = np.linspace(0, profile.rows - 1, min(SAMPLE_ROWS, profile.rows)).astype(np.int64)
    sample = {feature.name: known[feature.column].rows(chosen) for feature in profile.all_features}
    labelled = None
    if label in columns:
        labelled = labelled_columns(
            columns[label], known, find_outputs({column: kinds[column] for column in known}), classes
        )
    return Reference(profile, f"the rows of {path.name}", sample, None, labelled)


def _place(column: str, columns: Mapping[str, Column], names: Mapping[str, str]) -> str:
    """The file's column that is that one of the log, "" where it has none."""
    called = names.get(column, "")
    candidates = (column, column.removeprefix(FEATURE), called, FEATURE + called)
    return next((name for name in candidates if name in columns), "")


def flat_columns(kinds: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The features and the outputs among the columns of the lake, those that are one value a row."""
    single = [name for name, kind in kinds.items() if not kind.endswith(("]", ")"))]
    inputs = [name for name in single if name.startswith("f.")]
    outputs = [name for name in single if name.startswith("out.") and ".shape" not in name]
    return inputs, [*outputs, *(name for name in ("pred_class", "pred_score") if name in kinds)]


def fetch_vectors(
    lake: Lake, selection: Selection, column: str, rows: int, total: int
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """About so many rows of a column of lists that have the usual length and are finite, in the order of time, and
    their times. Shapes: [rows, d], [rows]."""
    share = min(rows / max(total, 1), 1.0)
    fetched = lake.fetch(selection, {"x": quoted(column), "ts": "epoch_us(ts)"}, share=share)
    order = np.argsort(np.ma.getdata(fetched["ts"]), kind="stable")
    moments, lists = np.ma.getdata(fetched["ts"])[order].astype(np.int64), np.ma.getdata(fetched["x"])[order]
    gone = np.ma.getmaskarray(fetched["x"])[order]
    lengths = np.array([0 if absent else len(value) for value, absent in zip(lists, gone, strict=True)], np.int64)
    if not lengths.any() or not 2 <= (usual := int(np.bincount(lengths[lengths > 0]).argmax())) <= _EMBEDDING_WIDTH:
        return np.zeros((0, 0)), moments[:0]
    chosen = np.flatnonzero(lengths == usual)
    vectors = np.array([np.asarray(lists[place], np.float64) for place in chosen.tolist()])
    finite = np.isfinite(vectors).all(axis=1)
    return np.asarray(vectors[finite], np.float64), moments[chosen[finite]]


def recounted(profile: Profile, counts: Mapping[str, Counts], rows: int) -> Profile:
    """The profile with the counts of all rows in place of those of the rows that its bins were made from."""
    return replace(
        profile,
        rows=rows,
        features=tuple(_recounted(feature, counts) for feature in profile.features),
        outputs=tuple(_recounted(feature, counts) for feature in profile.outputs),
        embeddings=tuple(replace(embedding, rows=rows) for embedding in profile.embeddings),
    )


def _recounted(feature: FeatureProfile, counts: Mapping[str, Counts]) -> FeatureProfile:
    if feature.name not in counts:
        return feature
    total = np.round(counts[feature.name].sum(axis=0)).astype(np.int64)
    n = int(total.sum())
    missing = int(feature.bins.special(total)["missing"])
    # Those that the bins have not seen, because they were made from a part, are rare ones of the reference.
    rare = max(feature.singletons, int(feature.bins.special(total).get("unseen", 0.0)))
    return replace(feature, counts=tuple(total.tolist()), n=n, missing=missing, singletons=min(rare, n))


def _embeddings(lake: Lake, selection: Selection, kinds: Mapping[str, str], total: int) -> dict[str, npt.NDArray[Any]]:
    embeddings = {
        name: fetch_vectors(lake, selection, name, _EMBEDDING_ROWS, total)[0]
        for name, kind in kinds.items()
        if kind in _LIST and name.startswith(("in.", "out."))
    }
    return {name: vectors for name, vectors in embeddings.items() if len(vectors)}


def feature_names(profiles: Sequence[Profile]) -> dict[str, str]:
    """Returns what stored profiles call the columns; a later one overrides an earlier one."""
    return {feature.column: feature.name for profile in profiles for feature in profile.all_features}
