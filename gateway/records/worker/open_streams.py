"""The streams of a log: one for each arm of each content that serves, and what those have counted that are gone.

A stream is let go when its content no longer serves and all of it is written: who loads new content each minute keeps
none of the old. A record that comes even later (of a call whose copies are still being compared with it) brings its
stream back.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import count

from gateway.records.worker.record_stream import Buffering, RecordStream
from gateway.records.worker.redaction import StreamRedaction
from gateway.records.worker.score_filter import StreamRecords

# Model, version, arm, digest, and what else tells one stream from another.
StreamKey = tuple[object, ...]


class OpenStreams:
    """Holds the streams by key. Belongs to the loop; `redactions`, by number, are read by the log's thread."""

    def __init__(self, buffer: Buffering, redactions: dict[int, StreamRedaction]) -> None:
        self._buffer = buffer
        self._redactions = redactions
        self._by_key: dict[StreamKey, RecordStream] = {}
        self._numbers = count()
        self._ended: set[StreamKey] = set()  # those of content that no longer serves
        self._seen = self._sampled_out = 0  # by those that are gone
        self._dropped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[RecordStream]:
        return iter(self._by_key.values())

    def get(self, key: StreamKey) -> RecordStream | None:
        """Returns the stream, which serves (again)."""
        self._ended.discard(key)
        return self._by_key.get(key)

    def new_number(self) -> int:
        """Returns a number that no stream of this log has had."""
        return next(self._numbers)

    def add(self, key: StreamKey, stream: RecordStream, redaction: StreamRedaction) -> RecordStream:
        """Returns the stream, which is held from now on."""
        self._redactions[stream.number] = redaction
        self._by_key[key] = stream
        return stream

    def end(self, model: str, version: str, digest: str) -> None:
        """Notes that this content no longer serves."""
        self._ended.update(key for key in self._by_key if (key[0], key[1], key[3]) == (model, version, digest))

    def take(self) -> list[StreamRecords]:
        """Returns all that waits, to be written. Order: nothing that was taken before is still being written."""
        for key in [key for key in self._ended if not self._by_key[key].waiting]:
            self._let_go(key)
        return [stream.take() for stream in self if stream.waiting]

    @property
    def seen(self) -> int:
        """Returns how many records have been appended."""
        return self._seen + sum(stream.seen for stream in self)

    @property
    def sampled_out(self) -> int:
        """Returns how many of them were left out by the rates."""
        return self._sampled_out + sum(stream.sampled_out for stream in self)

    @property
    def dropped(self) -> Counter[str]:
        """Returns how many of them were dropped, by reason."""
        dropped = self._dropped.copy()
        for stream in self:
            if stream.dropped:
                dropped.update(stream.dropped)
        return dropped

    def _let_go(self, key: StreamKey) -> None:
        """Holds nothing of the stream but its counts."""
        stream, buffer = self._by_key.pop(key), self._buffer
        redaction = self._redactions.pop(stream.number)
        self._ended.discard(key)
        self._seen += stream.seen
        self._sampled_out += stream.sampled_out
        self._dropped.update(stream.dropped)
        stream.seen = stream.sampled_out = 0
        stream.dropped.clear()

        def come_back() -> None:
            again = (*key, stream.number)  # by now there may be a new stream of that content
            self.add(again, stream, redaction)
            self._ended.add(again)
            stream.count_in(buffer)
            stream.rescale()
            if buffer.closed:
                stream.dropped["closed"] += len(stream.take())
                return
            buffer.records += late.records
            buffer.size_bytes += late.size_bytes

        late = Buffering(
            max_bytes=buffer.max_bytes,
            max_records=buffer.max_records,
            max_record_bytes=buffer.max_record_bytes,
            wake_at=0,  # the first record
            wake=come_back,
        )
        late.scale = buffer.scale
        stream.count_in(late)
