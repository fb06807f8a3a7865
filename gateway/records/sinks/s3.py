"""Published Parquet files in an S3-compatible object store, under their names in the lake.

One request puts one file: an object appears whole or not at all, and the same file again is the same object again. Keys
come from where AWS clients look for them: the environment, ~/.aws, the instance's or the pod's role.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gateway.records.lake.outbox import Item
from gateway.records.sinks.sink import SinkError
from gateway.records.sinks.target import S3_INSTALL, Target

try:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import get_session
except ImportError as error:
    raise SinkError(f"a sink at S3 needs its client: {S3_INSTALL}") from error

_TYPE = "application/vnd.apache.parquet"


class S3Sink:
    """Uploads to `bucket/prefix`. Raises: SinkError (an option that the client does not take)."""

    def __init__(self, target: Target) -> None:
        self.counts: Counter[str] = Counter()
        self._bucket, _, self._prefix = target.place.partition("/")
        # Stores beside Amazon's know no bucket.host names and not every one of them the newest checksums.
        compatible = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"total_max_attempts": 2, "mode": "standard"},
            request_checksum_calculation="when_required",
            s3={"addressing_style": "path" if target.address else "auto"},
        )
        region = target.options.get("region") or ("us-east-1" if target.address else None)
        try:
            self._client = get_session().create_client(
                "s3", region_name=region, endpoint_url=target.address or None, config=compatible
            )
        except (BotoCoreError, ValueError) as error:
            raise SinkError(str(error)) from error

    def deliver(self, item: Item, path: Path, start: int) -> Iterator[int]:
        if start == item.rows:  # it was uploaded, and the process killed before it could say so
            return
        key = "/".join(part for part in (self._prefix, item.path) if part)
        with path.open("rb") as file:
            try:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=file, ContentType=_TYPE)
            except (BotoCoreError, ClientError) as error:
                raise SinkError(str(error)) from error
        yield item.rows

    def close(self) -> None:
        self._client.close()
