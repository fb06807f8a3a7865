"""By REST a caller may do what it may over gRPC, and no more."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.access.permissions import RPCS
from gateway.access.principal import Role
from gateway.rest.rest_service import INFER_PATHS, OWN_PATHS, PREDICT_PATHS
from gateway.rest.triton_paths import RPC_PATHS, SERVICE
from tests.access.guarded import Guarded, token_of
from tests.rest.asking import ask, told
from tests.rest.serving import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROWS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


def every_path() -> Iterator[tuple[str, str, str]]:
    """Method, path and RPC of everything that is served."""
    for row in RPC_PATHS:
        yield row.method, row.path, row.rpc
    for own in OWN_PATHS:
        yield own.method, own.path, own.rpc
    for path in (*INFER_PATHS, *PREDICT_PATHS):
        yield "POST", path, "ModelInfer"


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token_of(name)}"} if name else {}


def place(path: str, model: str = "affine") -> str:
    names = {"model": model, "version": "1", "region": "r", "repository": "r"}
    for name, value in names.items():
        path = path.replace("{" + name + "}", value)
    return path


@pytest.mark.parametrize(("method", "path", "rpc"), tuple(every_path()), ids=str)
async def test_a_path_needs_the_role_of_its_rpc(port: Guarded, method: str, path: str, rpc: str) -> None:
    permission = RPCS[SERVICE + rpc]
    answer = await ask(port, method, place(path), {} if method == "POST" else None)
    assert answer.status == (200 if permission.is_open else 401)
    if permission.is_open:
        return
    assert answer.fields["www-authenticate"].startswith("Bearer")
    for name in ("infer", "reader"):
        if Role(name) not in permission.roles:
            answer = await ask(port, method, place(path), {} if method == "POST" else None, bearer(name))
            assert (answer.status, name in told(answer)["error"]) == (403, True)


@pytest.mark.parametrize(("method", "path", "rpc"), tuple(every_path()), ids=str)
async def test_whose_model_it_is_is_nobodys_business(port: Guarded, method: str, path: str, rpc: str) -> None:
    if "{model}" not in path or path.endswith(("/generate", "/generate_stream", ":explain")):
        return  # what is about no model, or is never done
    caller = next(name for name in ("infer", "reader", "operator") if Role(name) in RPCS[SERVICE + rpc].roles)
    body: object = {} if method == "POST" else None
    if path in INFER_PATHS:
        body = ROWS
    if path in PREDICT_PATHS:
        body = {"instances": [[1, 2, 3, 4]]}
    refused = [await ask(port, method, place(path, model), body, bearer(caller)) for model in ("other", "nobody")]
    assert [answer.status for answer in refused] == [404, 404]
    assert len({answer.body.replace(b"other", b"nobody") for answer in refused}) == 1


async def test_lists_show_what_the_caller_may_know(port: Guarded) -> None:
    models = told(await ask(port, "GET", "/v1/models", headers=bearer("reader")))["models"]
    index = told(await ask(port, "POST", "/v2/repository/index", headers=bearer("reader")))
    statistics = told(await ask(port, "GET", "/v2/models/stats", headers=bearer("reader")))["model_stats"]
    assert models == ["affine"]
    assert {one["name"] for one in index} == {one["name"] for one in statistics} == {"affine"}
    answer = await ask(port, "POST", place(INFER_PATHS[1]), ROWS, bearer("infer"))
    assert answer.status == 200


async def test_a_long_body_of_who_may_not_is_refused_before_it_has_come(port: Guarded) -> None:
    client = Client(*await asyncio.open_connection("127.0.0.1", port.rest_port))
    head = (
        f"POST {place(INFER_PATHS[0], 'other')} HTTP/1.1\r\nHost: a\r\nContent-Length: {1 << 20}\r\n"
        f"Authorization: {bearer('infer')['authorization']}\r\n\r\n"
    )
    answer = await client.ask(head.encode() + bytes(1000))
    client.writer.close()
    assert (answer.status, "'other' is not found" in told(answer)["error"]) == (404, True)
