"""The client of Amazon's object store, and of those that speak its protocol, by botocore.

Keys come from where AWS clients look for them: the environment, ~/.aws, the instance's or the pod's role.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from loaders.errors import MALFORMED, SourceChanged, SourceNotFound, SourceUnreadable, UnsupportedUri
from loaders.object_client import Options, not_made
from loaders.remote_copy import SMALL_BYTES, RemoteFile

_CHUNK: Final = 8 << 20
_PAGE_CHUNK: Final = 64 << 10
_PAGE_S: Final = 60.0  # of one answer that is no object
_PAGES_S: Final = 300.0
# What a store answers where something is not there, or is another than when it was listed.
_ABSENT: Final = frozenset({"404", "NoSuchBucket", "NoSuchKey"})
_CHANGED: Final = frozenset({"412", "PreconditionFailed"})


class S3Client:
    """A client of one bucket.

    Raises: UnsupportedUri (no region, no such profile), SourceUnreadable (no keys from who gives them out).
    """

    def __init__(self, bucket: str, options: Options, clock: Callable[[], float] = monotonic) -> None:
        self._bucket = bucket
        self._clock = clock
        self._client = _client(options.get("endpoint", ""), options.get("region", ""))
        self._client.meta.events.register("before-send.s3.ListObjectsV2", self._send_for_page)
        self._client.meta.events.register("before-send.s3.GetObject", self._send_for_object)

    @property
    def place(self) -> str:
        """Returns the address and the bucket."""
        return f"{self._client.meta.endpoint_url} {self._bucket}"

    def listed(self, prefix: str) -> Iterator[tuple[str, RemoteFile]]:
        """Yields key and object. Raises: as `ObjectClient`."""
        with _explained("the model repository"):
            pages = self._client.get_paginator("list_objects_v2")
            until_s = self._clock() + _PAGES_S
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for one in page.get("Contents", ()):
                    yield one["Key"], RemoteFile(one["Key"], one["Size"], one["ETag"])
                if page.get("IsTruncated") and self._clock() > until_s:  # pages that lead on for ever
                    raise SourceUnreadable(f"the model repository cannot be listed within {_PAGES_S:g} s")

    def _send_for_page(self, request: Any, **_: object) -> Any:
        """Sends the request as the client would; whoever drips its answer would hold up every other repository.

        Its headers count, though a wait for them is ended by the timeouts of the connection alone.
        """
        session = self._http_session()
        if session is None:
            return None
        until_s = self._clock() + _PAGE_S
        request.stream_output = True
        response = session.send(request)
        response.raw = _TimedBody(response.raw, self._clock, until_s)
        _ = response.content  # here, where a connection that breaks is tried again
        return response

    def _send_for_object(self, request: Any, **_: object) -> Any:
        """Sends the request as the client would; small objects are yielded as they come, for who looks at the time."""
        session = self._http_session()
        if session is None:
            return None
        until_s = self._clock() + _PAGE_S
        response = session.send(request)
        if response.status_code >= 300:
            response.raw = _TimedBody(response.raw, self._clock, until_s)
        elif int(response.headers.get("content-length") or 0) <= SMALL_BYTES:
            response.raw = _ArrivingBody(response.raw)
        return response

    def _http_session(self) -> Any:
        """Returns what the client sends by, which is no part of its interface; None has it send as it does."""
        return getattr(getattr(self._client, "_endpoint", None), "http_session", None)

    def content(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        """Yields the object's bytes. Raises: as `ObjectClient`."""
        rest = {"Range": f"bytes={offset}-"} if offset else {}
        with _explained(ascii(name[:80])):
            body = self._client.get_object(Bucket=self._bucket, Key=one.place, IfMatch=one.mark, **rest)["Body"]
            try:
                yield from body.iter_chunks(_CHUNK)
            finally:
                body.close()


class _TimedBody:
    """The body of an answer that is to be whole by `until_s`; each read of its socket has a timeout of its own."""

    def __init__(self, raw: Any, clock: Callable[[], float], until_s: float) -> None:
        self._raw = raw
        self._clock = clock
        self._until_s = until_s

    def stream(self) -> Iterator[bytes]:
        """Yields the bytes as they come. Raises: as `read`, and as the client where the connection breaks."""
        from botocore.response import StreamingBody

        try:
            yield from StreamingBody(self, None).iter_chunks(_PAGE_CHUNK)
        finally:
            self._raw.close()

    def read(self, size: int) -> bytes:
        """Returns what has come of the next bytes, none at the end. Raises: SourceUnreadable."""
        if self._clock() > self._until_s:
            raise SourceUnreadable(f"the object store cannot be read: an answer takes more than {_PAGE_S:g} s")
        return bytes(self._raw.read1(size, decode_content=True))


class _ArrivingBody:
    """The body of an object, of which each read returns what has come; all else is as the client's."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self, size: int) -> bytes:
        """Returns bytes that have come, none at the end. Raises: as the client where the connection breaks."""
        return bytes(self._raw.read1(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _client(endpoint: str, region: str) -> Any:
    from botocore.config import Config  # an extra, and 20 MiB: only for whom it serves
    from botocore.exceptions import BotoCoreError, NoRegionError, ProfileNotFound
    from botocore.session import get_session

    # Below INFO it tells session tokens and what it signs.
    logging.getLogger("botocore").setLevel(max(logging.INFO, logging.getLogger().level))
    # Stores beside Amazon's know no bucket.host names and not every one of them the newest checksums.
    compatible = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"total_max_attempts": 3, "mode": "standard"},
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    try:
        return get_session().create_client(
            "s3",
            region_name=region or ("us-east-1" if endpoint else None),
            endpoint_url=endpoint or None,
            config=compatible,
        )
    except (NoRegionError, ProfileNotFound, ValueError) as error:
        raise UnsupportedUri(not_made(error)) from error
    except BotoCoreError as error:  # such as of who gives out the keys: it may come up yet
        raise SourceUnreadable(not_made(error)) from error


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turns the client's errors into ours, without addresses and keys."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            raise SourceNotFound(f"{shown} is not there") from None
        if code in _CHANGED:
            raise SourceChanged(f"{shown} was changed while it was copied") from None
        raise SourceUnreadable(f"{shown} cannot be read: the object store answers {code[:80]!a}") from error
    except HTTPClientError as error:
        raise SourceUnreadable(f"{shown} cannot be read: {type(error).__name__}") from error
    except (BotoCoreError, OSError) as error:
        raise SourceUnreadable(f"{shown} cannot be read: {type(error).__name__}") from error
    except MALFORMED as error:
        raise SourceUnreadable(
            f"{shown} cannot be read: the object store answers what is not of its protocol"
        ) from error
