"""Operators' methods over HTTP do what they do over gRPC, and refuse what they refuse there."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.access.permissions import RPCS
from gateway.access.principal import Role
from gateway.api.control_service import check_handlers
from gateway.pb import control_pb2 as pb
from gateway.rest.control_paths import CONTROL_PATHS, ControlPath
from gateway.rest.message_json import plain
from gateway.routing.document.document import RouteDocument
from gateway.runtime.config_parser import parse
from gateway.runtime.control_api import closed_by
from tests.api.asked import WRITE, asked
from tests.api.operated import Operated
from tests.api.routes import ab

pytestmark = pytest.mark.asyncio(loop_scope="session")
WAIT = {"applied": True, "timeout_ms": 5000}


def written(document: RouteDocument) -> Any:
    return json.loads(document.to_json())


async def test_every_method_has_a_path() -> None:
    served = [row.rpc for row in CONTROL_PATHS]
    check_handlers(served)
    assert len(served) == len(set(served))
    assert all(row.permission in RPCS for row in CONTROL_PATHS)


@pytest.mark.parametrize("row", CONTROL_PATHS, ids=lambda row: row.rpc)
async def test_what_is_in_a_path_is_a_field(row: ControlPath) -> None:
    assert {*row.names, *(name for name, _ in row.fixed)} <= set(row.input.fields_by_name)
    assert row.method in ("GET", "POST", "DELETE")
    # A change is never made by a GET, and what is only read needs no body.
    reads = row.permission in RPCS and RPCS[row.permission].roles <= {Role.READER, Role.INFER}
    assert row.method != "GET" or reads


async def test_a_route_from_its_first_document_to_its_end(tmp_path: Path, op: Operated) -> None:
    async with asked(tmp_path, op.service) as api:
        body = {"document": written(ab()), "expected_revision": 0, "change": {"reason": "why"}, "wait": WAIT}
        status, _, applied = await api.ask("POST", "/api/v1/routes", body)
        assert (status, applied["change"]["laggards"]) == (200, [])
        revision = applied["change"]["revision"]

        status, _, route = await api.ask("GET", "/api/v1/routes/affine")
        assert (status, route) == (200, plain(await op.stub.GetRoute(pb.GetRouteRequest(model="affine"))))
        assert route["document"] == written(ab())

        weights = {"weights": {"a": "100%", "b": "0%"}, "change": {"reason": "all to a"}, "wait": WAIT}
        status, _, moved = await api.ask("POST", "/api/v1/routes/affine/weights", weights)
        assert (status, moved["moved_buckets"]) == (200, 500_000)
        status, _, back = await api.ask(
            "POST", "/api/v1/routes/affine/rollback", {"change": {"reason": "no"}, "wait": WAIT}
        )
        assert (status, back["restored_revision"]) == (200, revision)

        status, _, history = await api.ask("GET", "/api/v1/routes/affine/history?limit=2")
        assert [entry["operation"] for entry in history["entries"]] == ["rollback", "weights"]
        path = f"/api/v1/routes/affine/diff?from_revision={revision}&to_revision={revision + 1}"
        status, _, difference = await api.ask("GET", path)
        assert (status, difference["differences"][0]["before"]) == (200, "50%")

        status, _, explained = await api.ask("POST", "/api/v1/routes/affine/explain", {"key": "u1"})
        decision = explained["decision"]
        assert (status, decision["version"]) == (200, {"a": "1", "b": "2"}[decision["arm"]])
        status, _, _ = await api.ask("DELETE", "/api/v1/routes/affine", {"change": {"reason": "end"}, "wait": WAIT})
        assert status == 200
        assert (await api.ask("GET", "/api/v1/routes/affine"))[0] == 404
        status, _, rows = await api.ask("GET", "/api/v1/log?backlog=3")
        assert (status, rows) == (200, {"rows": []})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/api/v1/routes/nosuch", None, 404, "nosuch"),
        ("GET", "/api/v1/rollouts/nosuch", None, 404, "nosuch"),
        ("POST", "/api/v1/routes", {"document": {"model": "affine"}}, 400, "spec"),
        ("POST", "/api/v1/routes", {"documents": {}}, 400, "unknown field 'documents'"),
        ("POST", "/api/v1/routes", b"{", 400, "failed to parse"),
        ("POST", "/api/v1/routes?dry_run=true", {}, 400, "not in the query"),
        ("POST", "/api/v1/routes/a/pin", {"model": "b", "arm": "x"}, 400, "'b' and 'a' in the path"),
        ("GET", "/api/v1/routes/affine?revison=1", None, 400, "unknown field 'revison': revision"),
        ("GET", "/api/v1/routes/affine?revision=x", None, 400, "a whole number"),
        ("GET", "/api/v1/routes/affine?revision=1&revision=2", None, 400, "given twice"),
        ("GET", "/api/v1/routes/affine?revision=99999999999999999999", None, 400, "revision"),
        ("GET", "/api/v1/routes", b"x", 400, "no body"),
        ("PUT", "/api/v1/routes", {}, 405, "GET, HEAD, POST"),
        ("GET", "/api/v1/plan", None, 405, "POST"),
    ],
)
async def test_refusals(
    tmp_path: Path, op: Operated, method: str, path: str, body: object, status: int, says: str
) -> None:
    async with asked(tmp_path, op.service) as api:
        got, headers, told = await api.ask(method, path, body)
        assert (got, headers["content-type"]) == (status, "application/json")
        assert says in told["error"]
        assert (status != 405) or headers["allow"]


async def test_a_stale_revision_is_a_conflict(tmp_path: Path, op: Operated) -> None:
    async with asked(tmp_path, op.service) as api:
        body = {"document": written(ab()), "expected_revision": 7}
        status, headers, _ = await api.ask("POST", "/api/v1/routes", body)
        assert (status, headers["x-gateway-code"]) == (409, "ABORTED")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "text/plain", "x-gateway-client": "x"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 403),
        ({**WRITE, "origin": "http://elsewhere"}, 403),
        ({**WRITE, "origin": "null"}, 403),
        ({**WRITE, "origin": "http://["}, 403),
        ({**WRITE, "sec-fetch-site": "cross-site"}, 403),
        ({**WRITE, "sec-fetch-site": "same-site"}, 403),
        ({**WRITE, "sec-fetch-site": "same-origin"}, 200),
    ],
)
async def test_no_page_of_another_site_writes(
    tmp_path: Path, op: Operated, headers: dict[str, str], status: int
) -> None:
    async with asked(tmp_path, op.service) as api:
        body = {"document": written(ab()), "dry_run": True}
        assert (await api.ask("POST", "/api/v1/routes", body, headers))[0] == status
        assert (await api.ask("GET", "/api/v1/routes/affine"))[0] == 404


async def test_a_name_that_was_pointed_at_this_host_reads_nothing(tmp_path: Path, op: Operated) -> None:
    async with asked(tmp_path, op.service) as api:
        for path in ("/api/v1/routes", "/api/v1/log?backlog=1"):
            assert (await api.ask("GET", path, headers={"host": "evil.example"}))[0] == 421
            assert (await api.ask("GET", path, headers={"host": "["}))[0] == 400


async def test_where_callers_are_kept_out_by_the_address_this_one_is_closed(tmp_path: Path, op: Operated) -> None:
    assert not closed_by(parse({"data-dir": tmp_path}, {}, {}))
    closed = closed_by(parse({"data-dir": tmp_path, "control-port": 9009}, {}, {}))
    async with asked(tmp_path, op.service, closed=closed) as api:
        status, _, told = await api.ask("GET", "/api/v1/routes")
        assert status == 403
        assert "--control-port" in told["error"]


async def test_a_body_that_is_too_large_is_refused_and_the_reason_is_read(tmp_path: Path, op: Operated) -> None:
    async with asked(tmp_path, op.service) as api:
        status, _, _ = await api.ask("POST", "/api/v1/plan", b" " * (3 << 20))
        assert status == 413


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_document_describes_what_is_served(tmp_path: Path, op: Operated) -> None:
    async with asked(tmp_path, op.service) as api:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{api.port}/openapi.json"),
            *("--max-examples", "15", "--seed", "1", "--no-color", "--phases", "examples,coverage,fuzzing"),
            *("--generation-database", "none", "--header", "x-gateway-client: schemathesis"),
            # What fits the schema may still name no version, or a document that is none.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--exclude-path", "/api/v1/watch"),  # it never ends
        ]
        child = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await child.communicate())[0].decode()
        assert child.returncode == 0, said
