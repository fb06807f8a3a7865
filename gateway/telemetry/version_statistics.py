"""A version's numbers as Triton counts them, from the summed counts of all workers.

Source: Triton, protocol extension "statistics" (ModelStatistics).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import Code
from gateway.telemetry.keys import Sum
from gateway.telemetry.sums import Tree, branch, whole, wholes


@dataclass(frozen=True, slots=True)
class Duration:
    """Counts how often something was done, and how long it took altogether. Units: nanoseconds."""

    count: int = 0
    ns: int = 0

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(self.count + other.count, self.ns + other.ns)


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """The numbers of one version, all its arms together; the fields bear the names of the protocol's message.

    `compute_*` of a request is its share in no other sense than Triton's: the time of the run it was part of.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    codes: dict[Code, int]
    batches: tuple[BatchStatistics, ...]


def statistics(sums: Tree, model: str = "", version: str = "") -> list[VersionStatistics]:
    """Returns the statistics of each version that has counts, in order; of one model or version where named."""
    return [
        of_version(name, number, arms)
        for name, number, arms in _versions(sums)
        if model in ("", name) and version in ("", number)
    ]


def of_version(model: str, version: str, arms: Tree) -> VersionStatistics:
    """Returns the statistics of a version from the counts of its arms."""
    success = fail = queue = infer = Duration()
    codes: dict[Code, int] = {}
    last_ms = 0
    for arm in arms:
        series = branch(arms, arm)
        for code, count in branch(series, "codes").items():
            if isinstance(count, int):
                codes[Code(int(code))] = codes.get(Code(int(code)), 0) + count
        success += Duration(whole(series, "codes", "0"), whole(series, "ok_ns"))
        failed = sum(wholes(series, "total", "counts")) - whole(series, "codes", "0")
        fail += Duration(failed, whole(series, "other_ns"))
        queue += Duration(sum(wholes(series, "queue", "counts")), whole(series, "queue", "sum_ns"))
        infer += Duration(sum(wholes(series, "infer", "counts")), whole(series, "infer", "sum_ns"))
        last_ms = max(last_ms, whole(series, "last_inference_ms"))
    batches = _batches(arms)
    return VersionStatistics(
        name=model,
        version=version,
        last_inference=last_ms,
        inference_count=sum(batch.batch_size * batch.compute_infer.count for batch in batches),
        execution_count=sum(batch.compute_infer.count for batch in batches),
        success=success,
        fail=fail,
        queue=queue,
        compute_input=Duration(success.count, sum(batch.compute_input.ns for batch in batches)),
        compute_infer=infer,
        compute_output=Duration(success.count, sum(batch.compute_output.ns for batch in batches)),
        codes=codes,
        batches=batches,
    )


def _versions(sums: Tree) -> Iterator[tuple[str, str, Tree]]:
    models = branch(sums, Sum.SERIES)
    for model in sorted(models):
        versions = branch(models, model)
        for version in sorted(versions):
            yield model, version, branch(versions, version)


def _batches(arms: Tree) -> tuple[BatchStatistics, ...]:
    """Runs by batch size, of all arms: a run belongs to the arm of its first call, so arms mean nothing here."""
    totals: dict[int, list[int]] = {}
    for arm in arms:
        batches = branch(arms, arm, "batches")
        for size in batches:
            counted = totals.setdefault(int(size), [0, 0, 0, 0])
            for index, value in enumerate(wholes(batches, size)):
                counted[index] += value
    return tuple(
        BatchStatistics(size, Duration(runs, input_ns), Duration(runs, infer_ns), Duration(runs, output_ns))
        for size, (runs, input_ns, infer_ns, output_ns) in sorted(totals.items())
    )
