"""Files of routes held against the store: what differs is told once, and where a rollout is, is no difference."""

from pathlib import Path

import yaml

from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.store.amendment import Amendment, promote
from gateway.routing.store.editor import Editor
from gateway.runtime.route_files import RouteFiles
from gateway.telemetry.event_types import EventType
from tests.routing.live import BY, control_of, store_of
from tests.valkey import Valkey


def canary(version: str = "2") -> RouteDocument:
    arms = {"stable": {"version": "1"}, "canary": {"version": version}}
    steps = [{"weight": "10%", "hold": "1h"}, {"weight": "50%"}]
    spec = {"arms": arms, "strategy": {"canary": {"steps": steps}}}
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": "fraud"}, "spec": spec})


async def test_what_differs_from_the_files_is_told_once(valkey: Valkey, tmp_path: Path) -> None:
    told: list[tuple[EventType, str, object]] = []
    directory = tmp_path / "routes"
    files = RouteFiles(
        directory,
        valkey.url,
        "default",
        lambda kind, _id, _at, model, data: told.append((kind, model, data["differs"])),
    )

    async def looked() -> list[tuple[EventType, str, object]]:
        told.clear()
        for _ in range(2):
            await files.step()
        return list(told)

    async with store_of(valkey.url) as store:
        control = control_of(store)
        assert await looked() == [(EventType.ROUTE_DRIFTED, "", [f"{directory} is no directory"])]
        directory.mkdir()
        (directory / "fraud.yaml").write_text(yaml.safe_dump(canary().to_value()))
        settled, drifted = await looked()
        assert (settled[:2], drifted[:2]) == ((EventType.ROUTE_SETTLED, ""), (EventType.ROUTE_DRIFTED, "fraud"))
        await control.apply(canary(), change=BY)
        assert await looked() == [(EventType.ROUTE_SETTLED, "fraud", [])]
        await Editor(control).amend("fraud", Amendment("promote", promote), change=BY)
        assert await looked() == []
        await control.apply(canary("3"), change=BY)
        assert await looked() == [(EventType.ROUTE_DRIFTED, "fraud", ["spec.arms.canary.version"])]
        (directory / "fraud.yaml").unlink()
        assert await looked() == [(EventType.ROUTE_DRIFTED, "fraud", ["no file has this route"])]
    await files._store.aclose()
