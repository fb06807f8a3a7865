"""Edits in the store: what a refused check stops, and what it must not stop."""

import pytest

from gateway.errors import FailedPrecondition, StoreUnavailable
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.amendment import Amendment, kill, pin
from gateway.routing.store.editor import Editor
from gateway.routing.store.route_control import RouteControl
from tests.routing.live import BY, Site, control_of, document, store_of
from tests.valkey import Valkey

KILL = Amendment("kill", lambda active: kill(active, "incident"))


async def nothing_ready(_document: RouteDocument) -> None:
    raise FailedPrecondition("no version is ready")


async def test_a_kill_is_committed_though_versions_are_not_ready(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        await control_of(store).apply(document(), change=BY)
        editor = Editor(RouteControl(store, Site(check_document=nothing_ready)))
        with pytest.raises(FailedPrecondition):
            await editor.amend("fraud", Amendment("pin", lambda active: pin(active, "b")), change=BY)
        done = await editor.amend("fraud", KILL, change=BY, check=False)
        assert (done.change.revision, done.moved_buckets) == (2, 100_000)
        assert [entry.operation for entry in await store.history("fraud")] == ["kill", "apply"]


async def test_an_edit_is_refused_while_the_store_is_away(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await control.apply(document(), change=BY)
        valkey.kill()
        with pytest.raises(StoreUnavailable):
            await Editor(control).amend("fraud", KILL, change=BY)
