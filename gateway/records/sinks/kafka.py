"""Rows as messages of a Kafka topic: the key is the request id, the value JSON, the headers `id`, `kind` and `model`.

Rows of one request go to one partition in order. A row counts as delivered when the brokers have acknowledged it, by
default all in-sync replicas, each message once.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from gateway.records.lake.outbox import Item
from gateway.records.lake.stored_rows import StoredRow, stored_rows
from gateway.records.sinks.sink import SinkError
from gateway.records.sinks.target import KAFKA_INSTALL, Target

try:
    import confluent_kafka
except ImportError as error:
    raise SinkError(f"a sink at Kafka needs its client: {KAFKA_INSTALL}") from error

_DELIVERY_TIMEOUT_S = 30.0
_POLL_ROWS = 100
_DEFAULTS = {
    "enable.idempotence": "true",
    "linger.ms": "5",
    "compression.type": "zstd",
    "message.timeout.ms": "20000",
    "queue.buffering.max.kbytes": "65536",
    "log_level": "0",
}


class KafkaSink:
    """Produces to the topic `target.place`. Raises: SinkError (the client refuses an option)."""

    def __init__(self, target: Target) -> None:
        self.counts: Counter[str] = Counter(refused=0)
        self._topic = target.place
        self._acknowledged = 0
        self._failure = ""
        self._producer: Any = None
        options = {**_DEFAULTS, **target.options, "bootstrap.servers": target.address}
        try:
            self._producer = confluent_kafka.Producer({**options, "on_delivery": self._delivered})
        except confluent_kafka.KafkaException as error:
            raise SinkError(str(error)) from error

    def deliver(self, item: Item, path: Path, start: int) -> Iterator[int]:
        done = start
        for rows in stored_rows(path, start=start):
            self._acknowledged, self._failure = 0, ""
            deadline = monotonic() + _DELIVERY_TIMEOUT_S
            for number, row in enumerate(rows):
                self._produce(row, deadline)
                if number % _POLL_ROWS == 0:
                    self._producer.poll(0)
            self._await(len(rows), deadline)
            done += len(rows)
            yield done

    def close(self) -> None:
        self._drop_waiting()

    def _produce(self, row: StoredRow, deadline: float) -> None:
        headers = [("id", row.id), ("kind", row.kind), ("model", row.model)]
        while True:
            try:
                self._producer.produce(self._topic, key=row.request_id or row.id, value=row.value, headers=headers)
                return
            except BufferError:  # the client's own queue is full: the brokers are slow
                self._producer.poll(0.1)
            except confluent_kafka.KafkaException as error:
                self._delivered(error.args[0], None)
                return
            if self._failure or monotonic() >= deadline:
                self._give_up()

    def _await(self, count: int, deadline: float) -> None:
        while self._acknowledged < count:
            if self._failure or monotonic() >= deadline:
                self._give_up()
            self._producer.poll(0.05)

    def _delivered(self, error: Any, _: object) -> None:
        """Returns what became of one message. One that no broker will ever take must not hold up those behind it."""
        if error is not None and error.code() == confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE:
            self.counts["refused"] += 1
        elif error is not None:
            self._failure = error.str()
            return
        self._acknowledged += 1

    def _give_up(self) -> None:
        """Raises: SinkError. What is still on its way is dropped: it will be sent again."""
        why = self._failure or f"{self._acknowledged} messages were acknowledged in {_DELIVERY_TIMEOUT_S:g} s"
        self._drop_waiting()
        raise SinkError(why)

    def _drop_waiting(self) -> None:
        self._producer.purge()
        self._producer.flush(5.0)
