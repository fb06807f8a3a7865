"""One arm of one version, as the engine serves it."""

from gateway.records.worker.record_stream import RecordStream
from gateway.serving.version import Version
from gateway.telemetry.counters import Series


class ServedArm:
    """Holds what the calls of one arm of one version are counted and logged with.

    `fixed`: the shapes of a call's inputs follow from its rows, so a record need not keep them.
    """

    __slots__ = ("fixed", "series", "stream")

    def __init__(self, version: Version, series: Series, stream: RecordStream) -> None:
        self.fixed = version.batches and not any(-1 in spec.shape[1:] or spec.optional for spec in version.inputs)
        self.series = series
        self.stream = stream
