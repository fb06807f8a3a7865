"""Paths lead to what serves them, and to nothing else."""

import pytest

from gateway.rest.endpoint import Endpoint, EndpointMatch
from gateway.rest.http_call import HttpCall
from gateway.rest.http_refusal import HttpRefusal
from gateway.rest.path_table import PathTable


def endpoint(name: str) -> Endpoint:
    async def answer(call: HttpCall) -> None: ...

    return Endpoint(answer, name)


PATHS = [
    ("GET", "/"),
    ("GET", "/v2"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/models/{model}"),
    ("GET", "/v2/models/{model}/versions/{version}"),
    ("POST", "/v2/models/{model}/infer"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/models/{model}:predict"),
]
TABLE = PathTable({(method, path): endpoint(f"{method} {path}") for method, path in PATHS})


@pytest.mark.parametrize(
    ("method", "path", "served", "names"),
    [
        ("GET", "/", "GET /", ()),
        ("HEAD", "/v2", "GET /v2", ()),
        ("GET", "/v2/", "GET /v2", ()),
        ("GET", "/v2/models/stats", "GET /v2/models/stats", ()),
        ("GET", "/v2/models/m", "GET /v2/models/{model}", ("m",)),
        ("POST", "/v2/models/stats/infer", "POST /v2/models/{model}/infer", ("stats",)),
        ("GET", "/v2/models/a%20b%2Fc/versions/1", "GET /v2/models/{model}/versions/{version}", ("a b/c", "1")),
        ("POST", "/v1/models/m:predict", "POST /v1/models/{model}:predict", ("m",)),
        ("POST", "/v1/models/a:b:predict", "POST /v1/models/{model}:predict", ("a:b",)),
    ],
)
def test_what_serves_a_path(method: str, path: str, served: str, names: tuple[str, ...]) -> None:
    match = TABLE.find(method, path)
    assert isinstance(match, EndpointMatch)
    assert (match.endpoint.permission, match.names) == (served, names)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v3", 404, b""),
        ("GET", "/v2/models", 404, b""),
        ("GET", "/v2/models/", 404, b""),
        ("GET", "/v2//models/m", 404, b""),
        ("GET", "/v2/models/m/infer/more", 404, b""),
        ("GET", "/v2/models/m/infer", 405, b"POST"),
        ("POST", "/v2/models/m", 405, b"GET, HEAD"),
        ("DELETE", "/", 405, b"GET, HEAD"),
        ("GET", "/v1/models/m:predict", 405, b"POST"),
        ("GET", "/v2/models/%ff", 400, b""),
    ],
)
def test_what_is_not_served(method: str, path: str, status: int, allow: bytes) -> None:
    refusal = TABLE.find(method, path)
    assert isinstance(refusal, HttpRefusal)
    assert (refusal.status, dict(refusal.fields).get(b"allow", b"")) == (status, allow)
    assert refusal.text.isprintable()
    assert b"x-gateway-code" in dict(refusal.fields)


def test_the_same_path_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        PathTable({("GET", "/v2/{a}"): endpoint("a"), ("GET", "/v2/{b}"): endpoint("b")})
