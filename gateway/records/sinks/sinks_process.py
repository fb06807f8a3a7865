"""The process that feeds the sinks: a thread for each, so that none waits for another, and none for it.

It shares nothing with the compactor but the outboxes: whatever a sink does, Parquet is not delayed.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from time import monotonic, time

import msgspec

from gateway.records.sinks.courier import Courier
from gateway.records.sinks.sink import Sink
from gateway.records.sinks.target import Target, parse_targets
from gateway.records.step_process import StepProcess, first_line, has_listener
from gateway.telemetry import names
from gateway.telemetry.logs import start_logging
from gateway.telemetry.published import publish
from gateway.telemetry.sample import Sample

_LAST_S = 3.0  # for what waits when the gateway stops; the rest waits for its next start
_PART = "sinks"
_log = logging.getLogger(__name__)


class SinksConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tells what the process is told, as one JSON object on one line. `sinks` are URLs, as for `parse_targets`.

    `routing_key` is a key that only the Redis with the routing rules has; `published_directory` "" means: nowhere.
    """

    lake_directory: str
    sinks: str
    routing_key: str
    published_directory: str = ""
    interval_s: float = 1.0
    log_level: str = "info"
    log_format: str = "text"

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "SinksConfig":
        """Returns the settings that `to_json` wrote. Raises: ValueError (naming the field)."""
        return msgspec.json.decode(text, type=cls)


class Sinks:
    """All couriers at work. Raises: ValueError (the URLs make no sense)."""

    def __init__(self, config: SinksConfig, *, clock: Callable[[], float] = time) -> None:
        self._config = config
        self._clock = clock
        self._stop = Event()
        self._end_at = float("inf")
        lake = Path(config.lake_directory)
        self.couriers = [
            Courier(lake, target.name, target.keeping, self._maker(target), clock=clock)
            for target in parse_targets(config.sinks)
        ]
        self._threads = [
            Thread(target=self._work, args=(courier,), name=courier.name, daemon=True) for courier in self.couriers
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def step(self, _: Callable[[], None] = lambda: None) -> None:
        """Publishes how the sinks stand.

        Raises: RuntimeError (a thread has ended that should not have: better to start all afresh than to go without).
        """
        if not self._stop.is_set() and not all(thread.is_alive() for thread in self._threads):
            raise RuntimeError("a sink's thread has ended")
        if self._config.published_directory:
            try:
                publish(Path(self._config.published_directory), _PART, samples(self.couriers), now_s=self._clock())
            except OSError as error:
                _log.warning("the metrics of the sinks were not written: %s", error)

    def finish(self, within_s: float = _LAST_S) -> bool:
        """Delivers what still waits, as far as time allows; whether every thread has ended."""
        self._end_at = monotonic() + within_s
        self._stop.set()
        for thread in self._threads:
            thread.join(max(0.0, self._end_at - monotonic()) + 0.2)
        self.step()
        return not any(thread.is_alive() for thread in self._threads)

    def describe(self) -> dict[str, object]:
        return {"sinks": {courier.name: asdict(courier.report()) for courier in self.couriers}}

    def _work(self, courier: Courier) -> None:
        while not self._stop.wait(courier.step(self._stop.is_set)):
            pass
        courier.step(lambda: monotonic() >= self._end_at)
        courier.close()

    def _maker(self, target: Target) -> Callable[[], Sink]:
        def make() -> Sink:
            # Each client is loaded only where it is used; one that is not installed raises SinkError, in words.
            if target.kind == "s3":
                from gateway.records.sinks.s3 import S3Sink

                return S3Sink(target)
            if target.kind == "redis":
                from gateway.records.sinks.redis_stream import RedisSink

                return RedisSink(target, forbidden=self._config.routing_key)
            from gateway.records.sinks.kafka import KafkaSink

            return KafkaSink(target)

        return make


def samples(couriers: Sequence[Courier]) -> Iterator[Sample]:
    """Yields how the sinks stand, as metrics."""
    for courier in couriers:
        report = courier.report()
        yield Sample(names.SINK_LAG, {"sink": courier.name}, report.lag_rows)
        yield Sample(names.SINK_ERRORS, {"sink": courier.name}, report.errors)
        for outcome, rows in report.rows.items():
            yield Sample(names.SINK_ROWS, {"sink": courier.name, "outcome": outcome}, rows)


def main() -> int:
    """Exit codes: 0 told to stop, 2 a configuration that does not make sense."""
    reports = has_listener()
    try:
        config = SinksConfig.from_json(first_line())
        start_logging("sinks-0", config.log_level, config.log_format)
        sinks = Sinks(config)
    except ValueError as error:
        sys.stderr.write(f"sinks: configuration: {error}\n")
        return 2
    os.nice(10)
    sinks.start()
    StepProcess(sinks.step, sinks.describe, config.interval_s, reports=reports).run()
    if not sinks.finish():
        sys.stderr.flush()
        os._exit(0)  # a client that hangs must not hold up the stop; what it was at waits in the outbox
    return 0


if __name__ == "__main__":
    sys.exit(main())
