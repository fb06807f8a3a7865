"""Aliases of a registry that move, followed by the control processes of two hosts over a real store."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from gateway.errors import PermissionDenied
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.store.amendment import Amendment, kill, label, unkill
from gateway.routing.store.change import Change
from gateway.routing.store.editor import Editor
from gateway.routing.store.review import Review
from gateway.routing.store.route_control import RouteControl
from gateway.runtime.alias_hand import ALIASES, LEAD, Aliases, aliases_operation, lead_operation
from gateway.runtime.alias_watch import AliasWatch
from gateway.runtime.peers import Peers, PeerServer, worker_socket
from gateway.serving.repository import ModelRepository
from gateway.telemetry.event_types import EventType
from loaders.schemes import LoaderSettings, canonical, open_loader
from loaders.store import ContentStore
from tests.loaders.registry_server import MlflowServer
from tests.routing.live import BY, control_of, store_of
from tests.valkey import Valkey

MODEL = "digits"


@pytest.fixture
def registry() -> Iterator[MlflowServer]:
    server = MlflowServer()
    for version in ("1", "2", "3"):
        server.write(f"{MODEL}/{version}/model.onnx", version.encode())
    server.aliases[MODEL, "champion"] = "1"
    yield server
    server.shutdown()
    server.server_close()


def document(approvals: int = 0) -> RouteDocument:
    champion = {"version": "1", "alias": "champion", "approvals": approvals}
    spec = {
        "arms": {"main": {"label": "champion"}},
        "labels": {"champion": champion},
        "strategy": {"pinned": {"arm": "main"}},
    }
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": MODEL}, "spec": spec})


@dataclass
class Host:
    """One host: a worker that looks at the registry when it is told to, and the watch of its control process."""

    repository: ModelRepository
    watch: AliasWatch
    told: list[tuple[EventType, object]] = field(default_factory=list)
    known: Aliases = field(default_factory=dict)

    def look(self) -> None:
        folders = self.repository.scan()
        self.known = {name: (folder.aliases, folder.seen_s) for name, folder in folders.items()}


@asynccontextmanager
async def host(url: str, registry: MlflowServer, control: RouteControl, directory: Path) -> AsyncIterator[Host]:
    settings = LoaderSettings(canonical(f"mlflow+http://{registry.address}"), ContentStore(directory / "store"))
    told: list[tuple[EventType, object]] = []
    peers = Peers(directory, own_slot=-1, slots=1)
    watch = AliasWatch(
        url, "default", peers, 1, lambda kind, _id, _at, _model, data: told.append((kind, data["reason"]))
    )
    one = Host(ModelRepository(open_loader(settings)), watch, told)
    operations = {ALIASES: aliases_operation(lambda: one.known), LEAD: lead_operation(control)}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(PeerServer(worker_socket(directory, 0), operations))
        stack.push_async_callback(watch._store.aclose)
        yield one


@dataclass
class Fleet:
    """Two hosts, and what an operator does."""

    registry: MlflowServer
    control: RouteControl
    hosts: tuple[Host, Host]

    async def settle(self, alias: str = "", *, looking: tuple[int, ...] = (0, 1)) -> None:
        """Moves the alias; hosts look, and follow at the same time until nothing is left to do."""
        if alias:
            self.registry.aliases[MODEL, "champion"] = alias
        for _ in range(3):
            for number in looking:
                self.hosts[number].look()
            await asyncio.gather(*(one.watch.step() for one in self.hosts))

    async def history(self) -> list[tuple[str, str, str]]:
        """The changes, oldest first: who, how, and which version is the champion since."""
        changes: list[tuple[str, str, str]] = []
        for one in reversed(await self.control.history(MODEL, 100)):
            assert one.route is not None
            changes.append((one.entry.actor, one.entry.operation, dict(one.route.document.labels)["champion"]))
        return changes


@asynccontextmanager
async def fleet(valkey: Valkey, registry: MlflowServer, directory: Path) -> AsyncIterator[Fleet]:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        async with (
            host(valkey.url, registry, control, directory / "a") as a,
            host(valkey.url, registry, control, directory / "b") as b,
        ):
            yield Fleet(registry, control, (a, b))


async def test_a_move_is_one_revision_and_a_rollback_is_not_undone(
    valkey: Valkey, registry: MlflowServer, tmp_path: Path
) -> None:
    async with fleet(valkey, registry, tmp_path) as here:
        await here.control.apply(document(), change=BY)
        await here.settle()
        assert await here.history() == [("tester", "apply", "1")]
        await here.settle("2")
        assert (await here.history())[1:] == [("aliases", "label", "2")]
        newest = (await here.control.history(MODEL, 1))[0].entry
        assert (newest.reason, newest.source) == ("alias 'champion' has moved from version '1' to '2'", "alias")
        assert (await here.control.get(MODEL)).spec == document(), "the file that was applied is not touched"
        await here.control.rollback(MODEL, change=BY)
        await here.settle()
        assert (await here.history())[2:] == [("tester", "rollback", "1")]
        await here.settle("3")
        await here.control.apply(document(), change=BY)  # the file once more changes nothing
        await here.settle()
        assert (await here.history())[3:] == [("aliases", "label", "3")]
        moved = Amendment("label", lambda known: label(known, {"champion": "1"}))
        await Editor(here.control).amend(MODEL, moved, change=BY)
        await here.settle()
        assert (await here.history())[4:] == [("tester", "label", "1")]
        await here.settle("1")
        await here.settle("3")
        assert (await here.history())[5:] == [("aliases", "label", "3")]
        assert not [*here.hosts[0].told, *here.hosts[1].told]


async def test_a_host_that_looks_late_does_not_lead_back(
    valkey: Valkey, registry: MlflowServer, tmp_path: Path
) -> None:
    async with fleet(valkey, registry, tmp_path) as here:
        await here.control.apply(document(), change=BY)
        await here.settle()
        await here.settle("2", looking=(0,))
        await here.settle("3", looking=(1,))
        assert (await here.history())[1:] == [("aliases", "label", "2"), ("aliases", "label", "3")]
        late = here.hosts[0].known[MODEL]
        assert late[0] == {"champion": "2"}
        assert late[1] < monotonic()


async def test_a_move_that_needs_approval_is_a_draft(valkey: Valkey, registry: MlflowServer, tmp_path: Path) -> None:
    async with fleet(valkey, registry, tmp_path) as here:
        await here.control.apply(document(approvals=1), change=BY)
        await here.settle()
        await here.settle("2")
        review = Review(here.control)
        (first,) = await review.drafts.list()
        assert (first.author, first.state, dict(first.document.labels)) == ("aliases", "open", {"champion": "2"})
        await here.settle("3")
        newer, older = await review.drafts.list()
        assert (older.id, older.state, newer.state) == (first.id, "rejected", "open")
        with pytest.raises(PermissionDenied):
            await review.approve(newer.id, Change(actor="aliases"), admit=_admit)
        await review.approve(newer.id, Change(actor="ann"), admit=_admit)
        await here.settle()
        assert (await here.history())[1:] == [("ann", "approve", "3")]
        assert len(await review.drafts.list()) == 2


async def _admit(_: RouteDocument) -> None:
    """No rollout is running."""


async def test_a_move_waits_for_the_kill_switch_and_tells_it_once(
    valkey: Valkey, registry: MlflowServer, tmp_path: Path
) -> None:
    async with fleet(valkey, registry, tmp_path) as here:
        await here.control.apply(document(), change=BY)
        await here.settle()
        editor = Editor(here.control)
        await editor.amend(MODEL, Amendment("kill", lambda known: kill(known, "incident")), change=BY)
        await here.settle("2")
        await here.settle()
        told = (
            EventType.ROUTE_UNLED,
            "alias 'champion' has moved to version '2', and the kill switch is on (incident)",
        )
        assert [one.told for one in here.hosts] == [[told], [told]]
        await editor.amend(MODEL, Amendment("unkill", unkill), change=BY)
        await here.settle()
        assert (await here.history())[3:] == [("aliases", "label", "2")]


async def test_a_registry_that_is_away_leads_nothing(valkey: Valkey, registry: MlflowServer, tmp_path: Path) -> None:
    async with fleet(valkey, registry, tmp_path) as here:
        await here.control.apply(document(), change=BY)
        await here.settle()
        del registry.aliases[MODEL, "champion"]
        await here.settle()
        assert [one.told for one in here.hosts] == [
            [(EventType.ROUTE_UNLED, "alias 'champion': the model's source has no such alias")]
        ] * 2
        await here.control.delete(MODEL, change=BY)
        await here.settle()
        store = here.control.store
        assert await store.link.call("EXISTS", store.keys.aliases) == 0
