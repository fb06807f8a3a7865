"""Published Parquet files in an S3-compatible object store, under their names in the lake.

An object appears whole or not at all, and the same file again is the same object again. Keys come from where the AWS
clients look for them: the environment, ~/.aws, the instance's role.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow.fs import AwsDefaultS3RetryStrategy, S3FileSystem

from gateway.records.outbox import Item
from gateway.records.sinks.sink import SinkError
from gateway.records.sinks.target import Target

_PART_BYTES = 8 << 20


class S3Sink:
    """Uploads to `bucket/prefix`. Raises: SinkError (options that the client does not take)."""

    def __init__(self, target: Target) -> None:
        self.counts: Counter[str] = Counter()
        self._place = target.place
        endpoint = urlsplit(target.address)
        try:
            self._store = S3FileSystem(
                region=target.options.get("region") or ("us-east-1" if target.address else None),
                endpoint_override=endpoint.netloc or None,
                scheme=endpoint.scheme or "https",
                connect_timeout=5,
                request_timeout=30,
                retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=2),
                background_writes=False,  # of a slow store's data no more than one part is in memory
            )
        except (OSError, ValueError) as error:
            raise SinkError(str(error)) from error

    def deliver(self, item: Item, path: Path, start: int) -> Iterator[int]:
        if start == item.rows:  # it was uploaded, and the process killed before it could say so
            return
        with pa.OSFile(str(path)) as file:
            try:
                self._upload(file, f"{self._place}/{item.path}")
            except OSError as error:
                raise SinkError(str(error)) from error
        yield item.rows

    def close(self) -> None:
        """The client has nothing open between two files."""

    def _upload(self, file: pa.NativeFile, key: str) -> None:
        stream = self._store.open_output_stream(key, metadata={"Content-Type": "application/vnd.apache.parquet"})
        while part := file.read(_PART_BYTES):
            stream.write(part)
        stream.close()  # only here does the object appear; an upload that failed before is left unfinished
