"""What a row costs on its way to a stream, and how many a second go there: Redis and Kafka.

    python -m loadtests.bench_sinks [--rows 100000] [--features 20] [--redis redis://127.0.0.1:6379]

Writes and compacts a prediction log, then delivers its rows by the real sinks: to the Redis that is named, if one is,
and to the brokers that librdkafka brings for tests, which run in this process (so what they cost is counted too).
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import Producer

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.outbox import Outbox
from gateway.records.lake.stored_rows import stored_rows
from gateway.records.sinks.kafka import KafkaSink
from gateway.records.sinks.redis_stream import RedisSink
from gateway.records.sinks.sink import Sink
from gateway.records.sinks.target import parse_targets
from loadtests.bench_drift import Load, write

ROUNDS = 3
NAME = "bench"


def read(outbox: Outbox) -> int:
    """How many rows wait, each made JSON."""
    return sum(len(rows) for item in outbox.items() for rows in stored_rows(outbox.rows_of(item)))


def deliver(outbox: Outbox, sink: Sink) -> int:
    """How many rows the sink took."""
    return sum(list(sink.deliver(item, outbox.rows_of(item), 0))[-1] for item in outbox.items())


def measure(name: str, run: Callable[[], int]) -> None:
    """Prints the best of three rounds."""
    best_cpu = best_wall = float("inf")
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        rows = run()
        best_cpu = min(best_cpu, (time.process_time() - cpu) / rows)
        best_wall = min(best_wall, (time.perf_counter() - wall) / rows)
    print(f"{name:6} {best_cpu * 1e6:6.2f} µs of CPU a row, {1 / best_wall:8.0f} rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--redis", default="", help="URL of a Redis that may be written to (stream gateway-bench)")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        asyncio.run(write(directory, Load(given.rows, given.features, 1)))
        Compactor(CompactorConfig(str(directory / "wal"), str(directory / "lake"), sinks=(NAME,))).step()
        outbox = Outbox(directory / "lake", NAME)
        measure("JSON", lambda: read(outbox))
        if given.redis:
            [target] = parse_targets(f"{given.redis}?stream=gateway-bench")
            redis = RedisSink(target, forbidden="-")
            measure("Redis", lambda: deliver(outbox, redis))
            redis.close()
        cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = cluster.list_topics(timeout=10).brokers.values()
        [target] = parse_targets(f"kafka://{','.join(f'{one.host}:{one.port}' for one in brokers)}/rows")
        kafka = KafkaSink(target)
        measure("Kafka", lambda: deliver(outbox, kafka))
        kafka.close()


if __name__ == "__main__":
    main()
