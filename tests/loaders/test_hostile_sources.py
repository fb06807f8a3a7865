"""Registries that answer what they should not: where credentials go, what has no end, what takes others away."""

import base64
import itertools
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from loaders.errors import DigestMismatch, LoaderError, SourceChanged, SourceTooLarge, SourceUnreadable, UnsafeSource
from loaders.http_source import HttpSource
from loaders.loader import Loader
from loaders.remote_copy import RemoteFile
from loaders.s3_client import S3Client
from tests.loaders.raw_server import HEAD, Raw
from tests.loaders.registry_server import (
    TITLE,
    Answer,
    HubServer,
    MlflowServer,
    OciServer,
    RegistryServer,
    ended,
    json_answer,
    opened,
    sha256_of,
)

Respond = Callable[[str, dict[str, str], dict[str, str]], Answer]


class OtherHost(RegistryServer):
    """A server that was never given a credential."""

    answer: Answer = json_answer({"token": "t"})

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        return self.answer


@pytest.fixture
def other() -> Iterator[OtherHost]:
    server = OtherHost()
    yield server
    ended(server)


@pytest.fixture
def oci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OciServer]:
    server = OciServer()
    server.write("m/1/model.onnx", b"model 1")
    server.write("m/1/config.pbtxt", b'name: "m"')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auth = base64.b64encode(b"me:s3cret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {server.address: {"auth": auth}}}))
    yield server
    ended(server)


def of(server: OciServer, tmp_path: Path) -> Loader:
    return opened(f"oci+http://{server.address}/m", tmp_path)


def also(server: RegistryServer, part: str, answer: Answer) -> None:
    """Lets the server give this answer for paths that have the part."""
    own: Respond = server.respond
    server.respond = lambda path, query, headers: (  # type: ignore[method-assign]
        answer if part in path else own(path, query, headers)
    )


def test_the_next_page_is_asked_of_the_same_host(oci: OciServer, other: OtherHost, tmp_path: Path) -> None:
    """A link that leads elsewhere would take the token along, by another host or by `@` behind the first one."""
    oci.write("m/2/model.onnx", b"model 2")
    oci.password = "s3cret"
    own: Respond = oci.respond

    def elsewhere(path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        status, body, more = own(path, query, headers)
        place = more.get("Link", "").removeprefix("<")
        return status, body, {**more, **({"Link": f"<http://{other.address}{place}"} if place else {})}

    oci.respond = elsewhere  # type: ignore[method-assign]
    assert of(oci, tmp_path).versions("m").names == ("1", "2")
    also(oci, "/tags/", (200, b'{"tags": ["1"]}', {"Link": f'<@{other.address}/>; rel="next"'}))
    with pytest.raises(LoaderError):
        of(oci, tmp_path).versions("m")
    assert not other.asked


def test_a_login_is_sent_only_where_the_registry_itself_asks_for_it(
    oci: OciServer, other: OtherHost, tmp_path: Path
) -> None:
    """Blobs are redirected to other hosts, which must not choose who gets the password."""
    realm = f'Bearer realm="http://{other.address}/token",service="x"'
    other.answer = 401, b"", {"WWW-Authenticate": realm}
    also(oci, "/blobs/", (307, b"", {"Location": f"http://{other.address}/blob"}))
    with pytest.raises(SourceUnreadable, match="credentials lack"):
        of(oci, tmp_path).fetch("m", "1")
    assert set(other.asked) == {"/blob"}
    assert not any("authorization" in headers for headers in other.headers_seen)


def test_a_redirect_out_of_tls_brings_only_what_is_checked(
    other: OtherHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody on the way could answer in its place."""
    secure, authority = OtherHost(), trustme.CA()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        secure.answer = 307, b"", {"Location": f"http://{other.address}/blob"}
        other.answer = 200, b"model", {}
        source = HttpSource(f"https://localhost:{secure.server_address[1]}", "the registry", dict)
        checked = RemoteFile("", 5, "", sha256_of(b"model").removeprefix("sha256:"))
        assert b"".join(source.content("/x", checked, "a", 0)) == b"model"
        with pytest.raises(SourceUnreadable, match="redirects to an address without TLS"):
            b"".join(source.content("/x", RemoteFile("", 5, ""), "a", 0))
        with pytest.raises(SourceUnreadable, match="redirects to an address without TLS"):
            source.json("/x", "the repository")
    finally:
        ended(secure)


def test_an_address_that_is_signed_is_in_no_log(
    oci: OciServer, other: OtherHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Registries redirect to stores by addresses that let whoever has them read the file, for a while."""
    signed = f"http://{other.address}/blob?X-Amz-Signature=s1gned&X-Amz-Credential=c"
    other.answer = 307, b"", {"Location": "http://127.0.0.1:1/blob?X-Amz-Signature=s1gned"}
    also(oci, "/blobs/", (307, b"", {"Location": signed}))
    with caplog.at_level(logging.DEBUG), pytest.raises(SourceUnreadable) as raised:
        of(oci, tmp_path).fetch("m", "1")
    assert f"{other.address}/blob" in caplog.text
    assert "s1gned" not in caplog.text + str(raised.value)


def test_a_tag_that_is_no_artifact_takes_no_other_version_away(oci: OciServer, tmp_path: Path) -> None:
    """An index of images is not found by who asks for manifests; a tag may be removed after the list was made."""
    oci.write("m/index/model.onnx", b"")
    also(oci, "/manifests/index", (404, b"{}", {}))
    loader = of(oci, tmp_path)
    assert "1" in loader.versions("m").names
    assert loader.fetch("m", "1").model_file().read_bytes() == b"model 1"
    with pytest.raises(LoaderError):
        loader.fetch("m", "index")


@pytest.mark.parametrize("tags", [b'{"tags": []}', b'{"tags": null}'])
def test_pages_have_an_end(tags: bytes, oci: OciServer, tmp_path: Path) -> None:
    also(oci, "/tags/", (200, tags, {"Link": '</v2/m/tags/list>; rel="next"'}))
    with pytest.raises(SourceTooLarge, match="1000 pages"):
        of(oci, tmp_path).versions("m")


def test_directories_have_an_end(tmp_path: Path) -> None:
    server = MlflowServer()
    try:
        server.write("m/1/model.onnx", b"x")
        endless = json_answer({"files": [{"path": "a", "is_dir": True}]})
        also(server, "mlflow-artifacts/artifacts", endless)
        with pytest.raises(SourceTooLarge, match="below 32 others"):
            opened(f"mlflow+http://{server.address}", tmp_path).fetch("m", "1")
    finally:
        ended(server)


@pytest.mark.parametrize(
    "answer", [b"[]", b'"m"', b"null", b'{"tags": 5}', b'{"tags": {"a": 1}, "x": []}', b'{"tags": [[]]}']
)
def test_what_is_not_of_the_protocol_is_an_error_of_the_source(answer: bytes, oci: OciServer, tmp_path: Path) -> None:
    """Or else it would end the look at all other repositories."""
    also(oci, "/tags/", (200, answer, {}))
    try:
        with of(oci, tmp_path).one_look():
            pass
    except LoaderError:
        pass


@pytest.mark.parametrize(
    "layer",
    [
        5,
        {"annotations": 5},
        {"digest": "sha256:" + "0" * 64, "annotations": {TITLE: "model.onnx"}},
        {"digest": "sha256:" + "0" * 64, "size": "many", "annotations": {TITLE: "model.onnx"}},
        {"digest": "sha256:" + "0" * 64, "size": None, "annotations": {TITLE: "model.onnx"}},
        {"digest": "sha256:" + "0" * 64, "size": -1, "annotations": {TITLE: "model.onnx"}},
        {"digest": "sha256:" + "0" * 64, "size": 1, "annotations": {TITLE: "../model.onnx"}},
        {"digest": "sha256:" + "0" * 64, "size": 1, "annotations": {TITLE: "/etc/model.onnx"}},
        {"digest": "sha256:" + "0" * 64, "size": 1, "annotations": {TITLE: "a\\..\\model.onnx"}},
    ],
)
def test_layers_that_are_none_are_refused(layer: object, oci: OciServer, tmp_path: Path) -> None:
    body = json.dumps({"layers": [layer]}).encode()
    also(oci, "/manifests/", (200, body, {"Docker-Content-Digest": sha256_of(body)}))
    with pytest.raises((SourceUnreadable, UnsafeSource)):
        of(oci, tmp_path).fetch("m", "1")
    assert not [path for path in tmp_path.rglob("model.onnx*") if "store" not in path.parts]


def test_sizes_do_not_cancel_each_other(oci: OciServer, tmp_path: Path) -> None:
    layers = [
        {"digest": "sha256:" + "0" * 64, "size": size, "annotations": {TITLE: name}}
        for name, size in (("a", 1 << 50), ("b", -(1 << 50)))
    ]
    body = json.dumps({"layers": layers}).encode()
    also(oci, "/manifests/", (200, body, {"Docker-Content-Digest": sha256_of(body)}))
    with pytest.raises(UnsafeSource, match="less than no bytes"):
        of(oci, tmp_path).fetch("m", "1")


def test_a_file_beside_the_model_is_read_as_it_was_listed(oci: OciServer, tmp_path: Path) -> None:
    loader = of(oci, tmp_path)
    assert loader.read("m", "1/config.pbtxt", 100) == b'name: "m"'
    also(oci, "/blobs/", (200, b"name: 'm'", {}))  # as long, but not of the digest
    with pytest.raises(DigestMismatch):
        loader.read("m", "1/config.pbtxt", 100)
    also(oci, "/blobs/", (200, b"x" * (8 << 20), {}))
    with pytest.raises(SourceChanged, match="was listed with 9"):
        loader.read("m", "1/config.pbtxt", 100)


def test_pages_of_a_hub_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HubServer()
    try:
        monkeypatch.setenv("HF_ENDPOINT", f"http://{server.address}")
        server.write("bert/main/model.onnx", b"x")
        also(server, "/tree/", (200, b"[]", {"Link": '</api/models/tests/bert/tree/x>; rel="next"'}))
        with pytest.raises(SourceTooLarge, match="1000 pages"):
            opened("hf://tests/bert", tmp_path).fetch("bert", "main")
    finally:
        ended(server)


def test_an_answer_that_never_ends_is_given_up() -> None:
    """A byte now and then keeps every timeout of a single read away."""
    server, ticks = Raw(HEAD, b"{", b" " * 60), itertools.count(0, 70)
    try:
        source = HttpSource(server.base, "the registry", dict, clock=lambda: next(ticks))
        with pytest.raises(SourceUnreadable, match=r"answers for more than 60.0 s"):
            source.json("/x", "the model registry")
    finally:
        server.close()


@pytest.mark.parametrize("answer", [b"[" * 50_000 + b"]" * 50_000, b'"\xff"'], ids=["deep", "bytes"])
def test_an_answer_that_no_parser_takes_is_one_that_cannot_be_read(answer: bytes) -> None:
    server = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer), answer)
    try:
        with pytest.raises(SourceUnreadable, match="answers what is no JSON"):
            HttpSource(server.base, "the registry", dict).json("/x", "the model registry")
    finally:
        server.close()


def test_a_file_that_breaks_off_is_not_taken_for_a_shorter_one() -> None:
    server = Raw(HEAD, b"x" * 40)
    try:
        chunks = HttpSource(server.base, "the registry", dict).content("/x", RemoteFile("", 100, ""), "model.onnx", 0)
        assert next(chunks) == b"x" * 40, "what came is kept for the next try"
        with pytest.raises(SourceUnreadable):
            next(chunks)
    finally:
        server.close()


@pytest.mark.parametrize("offset", [0, 3])
def test_chunked_files_are_whole(offset: int) -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    server = Raw(body)
    try:
        source = HttpSource(server.base, "the registry", dict)
        assert b"".join(source.content("/x", RemoteFile("", 11, ""), "a", offset)) == b"hello world"[offset:]
    finally:
        server.close()


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
def test_a_client_of_amazons_tells_no_more_than_is_asked_for(level: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(level):
        S3Client("bucket", {"endpoint": "http://127.0.0.1:1"})
        assert logging.getLogger("botocore").level == max(level, logging.INFO)
