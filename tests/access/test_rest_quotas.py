"""Quotas and revocation over REST: as over gRPC, on connections that are kept and on one for each request."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.access.directory import Directory
from gateway.access.roles_file import parse_roles
from gateway.access.token_file import parse_tokens
from gateway.telemetry.sums import branch
from tests.access.guarded import Guarded, directory, token_of
from tests.access.test_quota_calls import limited, limits
from tests.api.operated import Operated
from tests.rest.asking import ask, path_of, told
from tests.rest.serving import Client
from tests.serving.stage import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1] * 4}]}).encode()
PATH = path_of("affine", "1")


def head(name: str, size: int, path: str = PATH) -> bytes:
    """The head of a request of that length by a caller."""
    lines = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\nAuthorization: Bearer {token_of(name)}\r\n\r\n"
    )
    return lines.encode()


def request(name: str, path: str = PATH) -> bytes:
    return head(name, len(BODY), path) + BODY


@asynccontextmanager
async def connected(port: Guarded) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port.rest_port))
    try:
        yield client
    finally:
        client.writer.close()


async def test_a_caller_over_the_quota_is_refused_and_its_connection_goes_on(worker: Operated, tmp_path: Path) -> None:
    document = limits(per="identity", **{"requests-per-second": 0.5, "burst": 2})
    async with limited(worker, "ngh2", tmp_path, document) as (port, quotas), connected(port) as client:
        answers = [await client.ask(request("infer")) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        assert "quota 'q' of identity 'infer' is used up: 0.5 requests per second" in told(answers[2])["error"]
        assert answers[2].fields["x-gateway-code"] == "RESOURCE_EXHAUSTED"
        assert 2 <= int(answers[2].fields["retry-after"]) <= 3
        assert (await client.ask(request("admin"))).status == 200  # another caller behind the same proxy
        by_itself = await ask(port, "POST", PATH, BODY, {"authorization": f"Bearer {token_of('infer')}"})
        assert by_itself.status == 429
        size = len(BODY)
        assert quotas.sums() == {"q": {"other": {"admitted": 3, "bytes": 3 * size, "refused": {"requests": 3}}}}


async def test_the_refusal_comes_before_the_body(worker: Operated, tmp_path: Path) -> None:
    async with limited(worker, "ngh2", tmp_path, limits(**{"requests-per-second": 0.001})) as (port, quotas):
        async with connected(port) as client:
            assert (await client.ask(request("infer"))).status == 200
            assert (await client.ask(head("infer", 1 << 20))).status == 429
        assert quotas.in_use() == {"q": {"": 0}}


async def test_a_request_that_ends_in_any_way_gives_its_place_back(worker: Operated, tmp_path: Path) -> None:
    async with limited(worker, "ngh2", tmp_path, limits(concurrency=1)) as (port, quotas), connected(port) as client:
        for _ in range(3):
            assert (await client.ask(request("infer"))).status == 200
        assert (await client.ask(head("infer", 2) + b"{}")).status == 400
        assert (await client.ask(request("infer", path_of("nothing")))).status == 404
        async with connected(port) as other:
            other.send(head("infer", len(BODY)) + BODY[:20])  # and it leaves
            await until(lambda: quotas.in_use() == {"q": {"": 1}})
            assert (await client.ask(request("infer"))).status == 429
        await until(lambda: quotas.in_use() == {"q": {"": 0}})
        assert (await client.ask(request("infer"))).status == 200


async def test_a_models_quota_of_bytes_counts_by_the_length_that_the_head_tells(
    worker: Operated, tmp_path: Path
) -> None:
    document = limits(models=["aff*"], **{"bytes-per-second": 1000})
    async with (
        limited(worker, "ngh2", tmp_path, document) as (port, quotas),
        connected(port) as first,
        connected(port) as second,
    ):
        first.send(head("infer", 1 << 20))  # fills the bucket, and a thousand times more
        await until(lambda: branch(quotas.sums(), "q").get("", {}) != {})
        answer = await second.ask(head("infer", 1 << 20))
        assert answer.status == 429
        assert "bytes per second" in told(answer)["error"]
        assert int(answer.fields["retry-after"]) > 1000


async def test_a_kept_connection_is_let_in_no_more_once_its_token_is_revoked(port: Guarded) -> None:
    async with connected(port) as client:
        assert (await client.ask(request("infer"))).status == 200
        port.gatekeeper.replace(Directory(parse_tokens(""), parse_roles("{}")))
        try:
            refused = await client.ask(request("infer"))
            assert (refused.status, refused.fields["www-authenticate"][:6]) == (401, "Bearer")
        finally:
            port.gatekeeper.replace(directory())
        assert (await client.ask(request("infer"))).status == 200
