"""The arms that a worker serves, and the streams of the prediction log that they fill."""

from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.record_stream import RecordStream
from gateway.serving.served_arm import ServedArm
from gateway.serving.version import Version
from gateway.telemetry.counters import Counters


class ServedArms:
    """Holds one entry for each arm of each version that a call has come for."""

    def __init__(self, counters: Counters, log: PredictionLog) -> None:
        self._counters = counters
        self._log = log
        self._arms: dict[tuple[Version, str], ServedArm] = {}

    def of(self, version: Version, arm: str) -> ServedArm:
        return self._arms.get((version, arm)) or self._make(version, arm)

    def mirror_stream(self, version: Version, arm: str, primary: str) -> RecordStream:
        """Returns the log of calls that the arm mirrored and `primary` answered."""
        return self._stream(version, arm, primary)

    def forget(self, version: Version) -> None:
        """Keeps no arm of a version that has ended."""
        for key in [key for key in self._arms if key[0] is version]:
            del self._arms[key]

    def _make(self, version: Version, arm: str) -> ServedArm:
        series = self._counters.series(version.model, version.name, arm)
        made = self._arms[version, arm] = ServedArm(version, series, self._stream(version, arm, ""))
        return made

    def _stream(self, version: Version, arm: str, primary: str) -> RecordStream:
        return self._log.stream(
            version.model,
            version.name,
            arm,
            version.inputs,
            version.outputs,
            version.digest,
            shadow_of=primary,
            batches=version.batches,
        )
