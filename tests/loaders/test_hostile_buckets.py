"""Object stores that lie, drip or never end."""

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from obstore.store import AzureStore

from loaders.errors import SourceUnreadable
from loaders.object_client import ObjectClient, Options
from loaders.obstore_client import ObstoreClient, google_client
from loaders.remote_copy import RemoteFile, read_whole
from loaders.s3_client import S3Client
from tests.loaders.raw_server import HEAD, Raw
from tests.loaders.registry_server import (
    Answer,
    RegistryServer,
    ended,
    opened,
)

LISTED = "<ListBucketResult>{}<Contents><Key>m/1/model.onnx</Key>{}</Contents></ListBucketResult>"


class Bucket(RegistryServer):
    """An object store that answers each request with the next of these texts, the last one again and again."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self._texts = itertools.chain(texts, itertools.repeat(texts[-1]))

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        return 200, next(self._texts).encode(), {"Content-Type": "application/xml"}


def empty_pages(count: int) -> list[str]:
    """Pages of a listing, each of which says that another follows."""
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>"
    return [f"<ListBucketResult>{more.format(number)}</ListBucketResult>" for number in range(count)]


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "s3cret")


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize(
    "fields",
    [
        "<Size>3</Size>",
        "<ETag>x</ETag>",
        "<Size>many</Size><ETag>x</ETag>",
        "<Size>3</Size><ETag>x</ETag><LastModified>at noon</LastModified>",
    ],
)
def test_a_listing_that_lacks_what_every_listing_has_is_an_error_of_the_source(
    fields: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was taken for a defect of the worker, which ended with it."""
    server = Bucket(LISTED.format("", fields))
    try:
        loader = opened(f"s3://bucket?endpoint=http://{server.address}", tmp_path)
        with caplog.at_level(logging.DEBUG), pytest.raises(SourceUnreadable, match="its protocol"), loader.one_look():
            pass
        assert "s3cret" not in caplog.text
    finally:
        ended(server)


@pytest.mark.usefixtures("_keys")
def test_pages_of_a_bucket_have_an_end() -> None:
    server = Bucket(*empty_pages(9))
    try:
        client = S3Client("bucket", {"endpoint": f"http://{server.address}"}, lambda: 50.0 * len(server.asked))
        with pytest.raises(SourceUnreadable, match="within 300 s"):
            list(client.listed(""))
        assert len(server.asked) == 7
    finally:
        ended(server)


@pytest.mark.usefixtures("_keys")
def test_a_listing_that_ends_late_is_taken() -> None:
    last = LISTED.format("<IsTruncated>false</IsTruncated>", "<Size>3</Size><ETag>x</ETag>")
    server = Bucket(*empty_pages(6), last)
    try:
        client = S3Client("bucket", {"endpoint": f"http://{server.address}"}, lambda: 50.0 * len(server.asked))
        assert [name for name, _ in client.listed("")] == ["m/1/model.onnx"]
        assert len(server.asked) == 7
    finally:
        ended(server)


@pytest.mark.usefixtures("_keys")
def test_a_page_of_a_bucket_that_drips_is_given_up() -> None:
    """A byte now and then keeps every timeout of a single read away."""
    server, ticks = Raw(HEAD, b"<", b" " * 60), itertools.count(0, 70)
    try:
        client = S3Client("bucket", {"endpoint": server.base}, lambda: next(ticks))
        with pytest.raises(SourceUnreadable, match="an answer takes more than 60 s"):
            list(client.listed(""))
    finally:
        server.close()


@pytest.mark.usefixtures("_keys")
def test_headers_of_a_page_of_a_bucket_take_of_its_time() -> None:
    last = LISTED.format("<IsTruncated>false</IsTruncated>", "<Size>3</Size><ETag>x</ETag>").encode()
    now_s = [0.0]

    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        now_s[0] = 70.0
        yield b"Content-Length: %d\r\n\r\n" % len(last) + last

    server = Raw()
    server.pieces = pieces()
    try:
        client = S3Client("bucket", {"endpoint": server.base}, lambda: now_s[0])
        with pytest.raises(SourceUnreadable, match="an answer takes more than 60 s"):
            list(client.listed(""))
    finally:
        server.close()


DRIPS = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: x\r\nLast-Modified: Mon, 30 Nov 2026 12:00:00 GMT\r\n\r\n"


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize("make", [S3Client, google_client])
def test_a_small_file_of_a_bucket_that_drips_is_given_up(
    make: Callable[[str, Options], ObjectClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one thread that looks at repositories reads configurations. What has come is told before there is more."""
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    closing, ticks = threading.Event(), itertools.count(0, 70)
    server = Raw(DRIPS, b"x", stays=closing)
    try:
        client = make("bucket", {"endpoint": server.base})
        with pytest.raises(SourceUnreadable, match=r"'config\.pbtxt' cannot be read: 1 bytes came in 60 s"):
            read_whole(client.content, RemoteFile("m/config.pbtxt", 100, "x"), "config.pbtxt", lambda: next(ticks))
    finally:
        closing.set()
        server.close()


@pytest.mark.usefixtures("_keys")
def test_a_refusal_of_an_object_that_drips_is_given_up() -> None:
    server, ticks = Raw(b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\n", b"<", b" " * 60), itertools.count(0, 70)
    try:
        client = S3Client("bucket", {"endpoint": server.base}, lambda: next(ticks))
        with pytest.raises(SourceUnreadable, match="an answer takes more than 60 s"):
            list(client.content(RemoteFile("m/1/model.onnx", 100, "x"), "model.onnx", 0))
    finally:
        server.close()


@pytest.mark.usefixtures("_keys")
def test_a_client_of_amazons_without_its_private_parts_lists_all_the_same() -> None:
    last = LISTED.format("<IsTruncated>false</IsTruncated>", "<Size>3</Size><ETag>x</ETag>")
    server = Bucket(last)
    try:
        client = S3Client("bucket", {"endpoint": f"http://{server.address}"})
        # Without what it sends by: of its endpoint it has itself what it needs.
        client._client._endpoint = SimpleNamespace(make_request=client._client._endpoint.make_request)
        assert [name for name, _ in client.listed("")] == ["m/1/model.onnx"]
    finally:
        ended(server)


def test_a_page_of_other_stores_may_not_take_as_long_as_an_object() -> None:
    given: list[timedelta] = []

    def make(longest: timedelta) -> AzureStore:
        given.append(longest)
        host, port = silent.getsockname()
        return AzureStore(
            "abc",
            config={"account_name": "a", "endpoint": f"http://{host}:{port}/a", "skip_signature": True},
            client_options={"allow_http": True, "timeout": longest / 600},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
        )

    # Connections wait there, and nobody answers.
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SourceUnreadable):
        list(ObstoreClient(make, "az").listed(""))
    assert given == [timedelta(hours=6), timedelta(minutes=1)]


@pytest.mark.usefixtures("_keys")
def test_a_page_of_a_bucket_that_breaks_off_is_asked_for_again() -> None:
    last = LISTED.format("<IsTruncated>false</IsTruncated>", "<Size>3</Size><ETag>x</ETag>").encode()
    server = Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n<ListBucketResult>")
    server.later = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(last), last)
    try:
        client = S3Client("bucket", {"endpoint": server.base})
        assert [name for name, _ in client.listed("")] == ["m/1/model.onnx"]
    finally:
        server.close()
