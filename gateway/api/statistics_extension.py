"""The statistics extension: what the counts of all workers say of each version.

Source: Triton's statistics extension.
"""

from collections.abc import Mapping
from typing import Protocol

from gateway.api.naming import check_model_name, check_version
from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.serving.catalog import Catalog
from gateway.serving.version import VersionState
from gateway.telemetry.sums import Tree, add_all, branch, whole, wholes

_OK = str(Code.OK.value)


class Counts(Protocol):
    """Provides the counts."""

    async def sums(self) -> Tree:
        """Returns the `sums` part of the snapshots of all workers, added (gateway.telemetry.sums)."""


async def model_statistics(
    catalog: Catalog, counts: Counts, request: pb.ModelStatisticsRequest
) -> pb.ModelStatisticsResponse:
    """Returns the counts of the named version, of all versions of the named model, or of all there are.

    A version that has not served yet has zeros.

    Raises: InvalidArgument, NotFound, Unavailable, VersionNotReady (named, but not to be had).
    """
    if request.name:
        check_model_name(request.name)
        check_version(request.version)
        if request.version:
            names = [(request.name, catalog.version(request.name, request.version).name)]
        else:
            catalog.newest(request.name)
            names = _ready(catalog, request.name)
    else:
        names = _ready(catalog, None)
    series = branch(await counts.sums(), "series")
    return pb.ModelStatisticsResponse(
        model_stats=[statistics_of(model, version, branch(series, model, version)) for model, version in names]
    )


def statistics_of(model: str, version: str, arms: Tree) -> pb.ModelStatistics:
    """Returns the statistics of one version from its counts by arm."""
    counts = add_all(arm for arm in arms.values() if isinstance(arm, Mapping))
    codes = {code: whole(counts, "codes", code) for code in branch(counts, "codes")}
    succeeded = codes.pop(_OK, 0)
    hits = whole(counts, "cache", "hit")
    ran = succeeded - hits
    # Of a run: how many there were, and the nanoseconds of its input, inference and output.
    batches = {int(rows): wholes(counts, "batches", rows) for rows in branch(counts, "batches")}
    return pb.ModelStatistics(
        name=model,
        version=version,
        last_inference=whole(counts, "last_inference_ms"),
        inference_count=sum(rows * totals[0] for rows, totals in batches.items()),
        execution_count=sum(totals[0] for totals in batches.values()),
        inference_stats=pb.InferStatistics(
            success=_duration(succeeded, whole(counts, "ok_ns")),
            fail=_duration(sum(codes.values()), whole(counts, "other_ns")),
            queue=_duration(ran, whole(counts, "queue", "sum_ns")),
            compute_input=_duration(ran, sum(totals[1] for totals in batches.values())),
            compute_infer=_duration(ran, whole(counts, "infer", "sum_ns")),
            compute_output=_duration(ran, sum(totals[3] for totals in batches.values())),
            # The price of a look-up is not measured: it is less than that of two looks at the clock.
            cache_hit=_duration(hits, 0),
            cache_miss=_duration(whole(counts, "cache", "miss"), 0),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(runs, input_ns),
                compute_infer=_duration(runs, infer_ns),
                compute_output=_duration(runs, output_ns),
            )
            for rows, (runs, input_ns, infer_ns, output_ns) in sorted(batches.items())
        ],
    )


def _ready(catalog: Catalog, model: str | None) -> list[tuple[str, str]]:
    return [
        (status.model, status.version) for status in catalog.states(model) if status.state is VersionState.AVAILABLE
    ]


def _duration(count: int, ns: int) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=ns)
