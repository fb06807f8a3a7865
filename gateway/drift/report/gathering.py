"""From the log to a report: reads the window, counts, samples and joins labels, and hands all of it to pure code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gateway.drift.report.feature_columns import naming_of
from gateway.drift.report.feature_table import feature_table
from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import CHOSEN, Census, Selection
from gateway.drift.report.outcome import answer_sql, read_labelled
from gateway.drift.report.pairing import compare_versions
from gateway.drift.report.quality import judge_performance
from gateway.drift.report.reference import Reference, fetch_vectors
from gateway.drift.report.report import ComparisonReport, FeatureReport, PerformanceReport, Report, VectorReport
from gateway.drift.report.survey import Survey, cut, survey
from gateway.drift.report.vectors import compare_embedding, compare_rows, encode
from gateway.drift.statistics.answers import Answers, Labelled, Outputs, find_outputs, sampled_answers
from gateway.drift.statistics.calibration import doubt
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.time_blocks import BlockedRows
from gateway.drift.statistics.verdict import DriftRule, DriftState
from gateway.errors import FailedPrecondition, InvalidArgument

Tell = Callable[[str, int, int], None]  # what is being done, how much of it, of how much
_MOST_BUCKETS: Final = 400
_VECTOR_ROWS: Final = 4000
_MOST_VERSIONS: Final = 6


@dataclass(frozen=True, slots=True)
class Question:
    """Tells what a report is asked. Of two `selection.versions` the second is compared with the first; `split` are the
    shares that the route meant them to get. `classes` name classes in order where labels are texts. Units: `every_us`
    is the length of the time blocks of the trend, None for one that suits."""

    selection: Selection
    seed: int
    generated_us: int
    every_us: int | None = None
    split: Mapping[str, float] | None = None
    classes: tuple[str, ...] = ()


def gather(
    question: Question, lake: Lake, reference: Reference, *, tell: Tell = lambda what, done, total: None
) -> Report:
    """The report on a window.

    Raises: FailedPrecondition (no rows), InvalidArgument, Unavailable.
    """
    rng = np.random.default_rng(question.seed)
    # Files of other releases and other versions may call the features of the profile otherwise.
    question = replace(question, selection=replace(question.selection, naming=naming_of(reference.profile)))
    notes: list[str] = []
    selection, census = _found(question, lake, notes)
    buckets = cut(selection.span, question.every_us)
    if len(buckets) > _MOST_BUCKETS:
        raise InvalidArgument(
            f"the trend has {len(buckets)} time blocks, allowed are {_MOST_BUCKETS}: make them longer"
        )
    profile, outputs = reference.profile, find_outputs(lake.columns(selection))
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        tell("counting rows", done, census.total)

    window = survey(
        lake, selection, profile.all_features, rng=rng, census=census, buckets=buckets, extra=answer_sql(outputs),
        progress=count,
    )  # fmt: skip
    tell("comparing features", 0, 1)
    features = feature_table(profile, window, DriftRule(), reference=reference.sample)
    vectors = _vectors(lake, selection, reference, window, census, rng, tell)
    tell("joining labels", 0, 1)
    performance = _performance(lake, question, selection, outputs, reference, window, census, rng)
    if performance is None:
        notes.append("neither the window nor the reference has labels: performance is not known")
    comparison = None
    if len(selection.versions) == 2:
        tell("comparing versions", 0, 1)
        comparison = compare_versions(
            lake, question.selection, (selection.versions[0], selection.versions[1]), profile, outputs, rng=rng,
            classes=question.classes, shares=question.split,
        )  # fmt: skip
    notes += lake.left_out
    return _report(question, selection, census, window, reference, features, vectors, performance, comparison, notes)


def _found(question: Question, lake: Lake, notes: list[str]) -> tuple[Selection, Census]:
    selection = question.selection
    census = lake.census(selection)
    if census.total:
        return selection, census
    copies = replace(selection, shadow=True)
    census = lake.census(copies)
    if not census.total:
        known = lake.models()
        names = f"; the log has {', '.join(known)}" if known and selection.model not in known else ""
        chosen = lake.census(replace(selection, chosen=True)).total
        left = f", but for {chosen} {CHOSEN}" if chosen else names
        raise FailedPrecondition(f"model {selection.model!r} has no logged rows in {selection.span}{left}")
    notes.append("the rows are copies that a mirror ran: nobody was answered with them")
    return copies, census


def _vectors(
    lake: Lake, selection: Selection, reference: Reference, window: Survey, census: Census, rng: np.random.Generator,
    tell: Tell,
) -> tuple[VectorReport, ...]:  # fmt: skip
    reports = []
    tell("comparing whole rows", 0, 1)
    before, now, named = encode(reference.profile.features, reference.sample, window.sample)
    if len(named) > 1:
        share = census.total / max(reference.profile.rows, 1)
        rows = BlockedRows.in_order(before, reference.sample_us), BlockedRows.in_order(now, window.sample_us)
        reports.append(compare_rows("all features", *rows, named, share=share, rng=rng))
    kinds = lake.columns(selection)
    for embedding in reference.profile.embeddings:
        if embedding.column not in kinds:
            continue
        vectors, moments = fetch_vectors(lake, selection, embedding.column, _VECTOR_ROWS, census.total)
        if vectors.shape[1] == len(embedding.centre):
            reports.append(compare_embedding(embedding, vectors, moments, rows=census.total, rng=rng))
        else:
            note = f"its vectors have {vectors.shape[1]} numbers, those of the reference {len(embedding.centre)}"
            reports.append(VectorReport(embedding.name, vectors.shape[1], DriftState.INSUFFICIENT, None, None, note))
    return tuple(reports)


def _performance(
    lake: Lake, question: Question, selection: Selection, outputs: Outputs, reference: Reference, window: Survey,
    census: Census, rng: np.random.Generator,
) -> PerformanceReport | None:  # fmt: skip
    labelled = read_labelled(lake, selection, outputs, classes=question.classes)
    like = reference.labelled or labelled
    answers: tuple[Answers, Floats] | None = None
    if like is not None and len(window.sample_us):
        named = {name: _numbers(window.sample[name]) for name in outputs.columns}
        given, known = sampled_answers(named, like)
        answers = given, window.sample_us[known].astype(np.float64)
    by_version: dict[str, Labelled] = {}
    versions = _versions(census)
    if labelled is not None and len(versions) > 1:
        for version in list(versions)[:_MOST_VERSIONS]:
            part = read_labelled(lake, replace(selection, versions=(version,)), outputs, classes=question.classes)
            if part is not None:
                by_version[version] = part
    return judge_performance(
        labelled, reference.labelled, answers, rows=census.total, buckets=window.buckets, by_version=by_version, rng=rng
    )


def _report(
    question: Question, selection: Selection, census: Census, window: Survey, reference: Reference,
    features: tuple[FeatureReport, ...], vectors: tuple[VectorReport, ...], performance: PerformanceReport | None,
    comparison: ComparisonReport | None, notes: list[str],
) -> Report:  # fmt: skip
    states = [feature.state for feature in features] + [vector.state for vector in vectors]
    states += [performance.state] if performance is not None else []
    if census.sampled:
        notes.append(
            f"rows were sampled: each counts for those that it stands for, all as {window.worth:.0f} of equal weight"
        )
    versions = _versions(census)
    if len(versions) > 1:
        notes.append(f"rows of versions {', '.join(versions)} are taken together; --versions names one")
    doubts = [why for feature in reference.profile.watched if (why := doubt(feature))]
    notes += [f"the reference's rows may be sorted: {why}" for why in doubts[:3]]
    if not reference.sample:
        notes.append("a profile keeps no rows: whole rows are not compared, and Kolmogorov-Smirnov comes from bins")
    return Report(
        model=selection.model,
        versions=selection.versions,
        arms=selection.arms,
        where=selection.where,
        window=selection.span,
        every_us=window.buckets[0].length_us,
        reference=reference.description,
        reference_rows=reference.profile.rows,
        rows=census.total,
        worth=window.worth,
        rows_by_version=versions,
        generated_us=question.generated_us,
        seed=question.seed,
        state=max(states, default=DriftState.INSUFFICIENT),
        features=features,
        vectors=vectors,
        performance=performance,
        comparison=comparison,
        notes=tuple(notes),
    )


def _versions(census: Census) -> dict[str, int]:
    """Rows by version, the most first."""
    rows = {str(version): int(census.rows[census.versions == version].sum()) for version in np.unique(census.versions)}
    return dict(sorted(rows.items(), key=lambda item: -item[1]))


def _numbers(column: Column) -> Floats:
    values = column.values.astype(np.float64)
    return values if column.missing is None else np.where(column.missing, np.nan, values)
