"""At the operators' port a caller may do what it may over gRPC, and no more."""

from pathlib import Path

import pytest

from gateway.access.permissions import RPCS
from gateway.access.principal import Role
from gateway.rest.control_paths import CONTROL_PATHS, ControlPath
from tests.access.guarded import Guarded, token_of
from tests.api.asked import WRITE, asked
from tests.api.test_watch_by_rest import watching

pytestmark = pytest.mark.asyncio(loop_scope="session")


def bearer(name: str) -> dict[str, str]:
    return {**WRITE, "authorization": f"Bearer {token_of(name)}"}


async def test_nobody_is_let_in_without_a_token(tmp_path: Path, port: Guarded) -> None:
    async with asked(tmp_path, port.servicers.control, gatekeeper=port.gatekeeper) as api:
        for row in CONTROL_PATHS:
            path = row.path.replace("{model}", "affine").replace("{id}", "d").replace("{revision}", "1")
            status, headers, _ = await api.ask(row.method, path)
            assert (status, headers["x-gateway-code"]) == (401, "UNAUTHENTICATED"), row
            assert headers["www-authenticate"].startswith("Bearer")
        assert (await api.ask("GET", "/openapi.json", headers={}))[0] == 200


@pytest.mark.parametrize("row", CONTROL_PATHS, ids=lambda row: row.rpc)
async def test_a_caller_without_the_role_is_refused(tmp_path: Path, port: Guarded, row: ControlPath) -> None:
    roles = RPCS[row.permission].roles
    without = next(name for name in ("infer", "approver", "reader") if Role(name) not in roles)
    path = row.path.replace("{model}", "affine").replace("{id}", "d").replace("{revision}", "1")
    async with asked(tmp_path, port.servicers.control, gatekeeper=port.gatekeeper) as api:
        status, told, _ = await api.ask(row.method, path, headers=bearer(without))
        if Role.READER in roles and without == "approver":  # who approves may read
            assert status in (200, 400, 404)
        else:
            assert (status, told["x-gateway-code"]) == (403, "PERMISSION_DENIED")


async def test_models_of_others_are_not_there(tmp_path: Path, port: Guarded) -> None:
    async with asked(tmp_path, port.servicers.control, gatekeeper=port.gatekeeper) as api:
        _, _, told = await api.ask("GET", "/api/v1/models", headers=bearer("reader"))
        assert {version["model"] for version in told["versions"]} == {"affine"}
        assert (await api.ask("GET", "/api/v1/routes/other", headers=bearer("reader")))[0] == 404
        assert (await api.ask("GET", "/api/v1/quotas", headers=bearer("reader")))[0] == 403
        assert (await api.ask("GET", "/api/v1/routes", headers=bearer("other")))[0] == 200


async def test_who_watches_is_told_of_own_models_alone(tmp_path: Path, port: Guarded) -> None:
    async with asked(tmp_path, port.servicers.control, gatekeeper=port.gatekeeper) as api:
        own = bearer("reader")
        assert (await api.ask("GET", "/api/v1/watch?model=other", headers=own))[0] == 404
        async with watching(api, "?backlog=1000", own) as events:
            seen = await events.until("settled")
        assert {one.data["committed"]["model"] for one in seen if one.kind == "committed"} <= {"affine"}
