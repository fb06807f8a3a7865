"""TensorFlow Serving's methods by callers whom an issuer vouches for, on both transports."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from gateway.access.directory import Directory
from gateway.access.json_web_token import parse_keys
from gateway.access.permissions import RPCS
from gateway.access.principal import Role
from gateway.access.roles_file import parse_roles
from gateway.access.token_file import parse_tokens
from tests.access.guarded import Guarded, directory, tokens_file
from tests.access.issuer import EXPECTED, NOW_S, Issuer
from tests.access.test_every_method import may, request_for
from tests.api.operated import Operated

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATHS = sorted(path for path in RPCS if path.startswith("/tensorflow.serving."))
ROLES = """
identities:
  alice: {by: [jwt], grants: [{role: infer, models: [affine]}]}
  bob: {by: [jwt], grants: [{role: infer, models: ["other*"]}]}
  carol: {by: [jwt], grants: [{role: approver}]}
"""
DENIED = (grpc.StatusCode.PERMISSION_DENIED,)
LET_IN = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED


@contextmanager
def issued(port: Guarded) -> Iterator[Issuer]:
    """The port takes this issuer's tokens."""
    issuer = Issuer()
    issuer.add("a")
    keys = parse_keys(issuer.document())
    port.gatekeeper.replace(Directory(parse_tokens(tokens_file()), parse_roles(ROLES), keys, EXPECTED))
    try:
        yield issuer
    finally:
        port.gatekeeper.replace(directory())


async def status(port: Guarded, path: str, token: str, model: str) -> grpc.StatusCode:
    call = port.call(path, request_streaming=False, response_streaming=False)
    try:
        await call(request_for(path, model, ""), metadata=(("authorization", f"Bearer {token}"),), timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_what_a_token_of_the_issuer_may(port: Guarded, worker: Operated) -> None:
    assert len(PATHS) == 6
    with issued(port) as issuer:
        for path in PATHS:
            names_model = not path.endswith("/MultiInference")
            unknown = (grpc.StatusCode.NOT_FOUND,) if names_model else LET_IN
            for subject, model, codes in (
                ("alice", "affine", LET_IN),
                ("alice", "other", unknown),
                ("bob", "affine", unknown),
                ("carol", "affine", LET_IN if may(Role.APPROVER, RPCS[path]) else DENIED),
                ("mallory", "affine", DENIED),  # known to the issuer, without a role
            ):
                assert await status(port, path, issuer.sign("a", sub=subject), model) in codes, (path, subject, model)
            old = issuer.sign("a", sub="alice", exp=NOW_S - 600)
            assert await status(port, path, old, "affine") is grpc.StatusCode.UNAUTHENTICATED
            foreign = Issuer()
            foreign.add("a")
            forged = foreign.sign("a", sub="alice")
            assert await status(port, path, forged, "affine") is grpc.StatusCode.UNAUTHENTICATED
