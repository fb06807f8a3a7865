"""Sources that hand out their files slowly, or never: what they hold up is their own, and nobody waits for it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition, Unavailable
from gateway.serving.catalog import Catalog
from gateway.serving.fetch_lanes import FetchLanes
from gateway.serving.intents import IntentStore
from gateway.serving.lifecycle import Pipeline
from gateway.serving.probe import Prober
from gateway.serving.repository import ModelRepository
from gateway.serving.repository_reader import RepositoryReader
from gateway.serving.version import VersionState
from loaders.errors import SourceNotFound, SourceUnreadable
from loaders.repository_union import RepositoryUnion
from loaders.schemes import LoaderSettings, canonical, open_loader
from loaders.store import ContentStore
from tests import models
from tests.loaders.registry_server import Answer, MlflowServer
from tests.machine_load import as_loaded


class Withholding(MlflowServer):
    """A registry that lists everything at once, and hands out no file of `withheld` until `goes_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.withheld, self.withholds = ".onnx", threading.Event()

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """Returns what MLflow answers, of those files later."""
        if path.endswith(self.withheld):
            self.withholds.set()
            self.goes_on.wait(60)
        return super().respond(path, query, headers)


class Mute(Withholding):
    """A registry that answers nothing until `goes_on`."""

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """Returns what MLflow answers, later."""
        self.goes_on.wait(60)
        return super().respond(path, query, headers)


@asynccontextmanager
async def catalog_of(directory: Path, repositories: str) -> AsyncIterator[Catalog]:
    store = ContentStore(directory / "store")
    loader = open_loader(LoaderSettings(canonical(repositories), store))
    pipeline = Pipeline(
        loader, Prober(directory / "probes", idle_s=5), intra_threads=1, loads_at_once=1, fetch_patience_s=0.05
    )
    catalog = Catalog(ModelRepository(loader), pipeline, IntentStore(directory / "state"), store=store)
    try:
        yield catalog
    finally:
        await catalog.close()


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Has the system refuse every new thread: none finds room for such a stack."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


def available(catalog: Catalog) -> set[str]:
    return {status.model for status in catalog.states() if status.state is VersionState.AVAILABLE}


async def until_available(catalog: Catalog, names: set[str]) -> None:
    changed = asyncio.Event()
    stop = catalog.subscribe(lambda version: changed.set())
    try:
        async with asyncio.timeout(as_loaded(30)):
            while not names <= available(catalog):
                await changed.wait()
                changed.clear()
    finally:
        stop()


async def test_a_source_that_withholds_its_files_holds_up_no_other(tmp_path: Path) -> None:
    """Two downloads that hung took both permits: nothing else was loaded, and no worker began to serve."""
    server, content = Withholding(), models.affine()
    server.goes_on.set()
    try:
        server.write("here/1/model.onnx", content)
        async with catalog_of(tmp_path, f"mlflow+http://{server.address}") as before:
            await before.poll()  # the content store has it
        server.goes_on.clear()
        for model in ("a", "b", "z"):
            server.write(f"{model}/1/model.onnx", content)
        models.write_version(tmp_path / "models", "local", "1", content)
        async with catalog_of(tmp_path, f"mlflow+http://{server.address},{tmp_path / 'models'}") as catalog:
            async with asyncio.timeout(as_loaded(30)):
                await catalog.start(0.0)
            await until_available(catalog, {"here", "local"})
            assert available(catalog) == {"here", "local"}
            assert not catalog.ready(), "what was there at the start is still to come"
            server.goes_on.set()
            await until_available(catalog, {"a", "b", "here", "local", "z"})
            assert catalog.ready()
    finally:
        server.goes_on.set()
        server.shutdown()
        server.server_close()


async def test_a_start_does_not_wait_for_what_lies_in_place_of_routed_content(tmp_path: Path) -> None:
    """What a route names serves from its copy; that its files were changed takes a reading of them."""
    server = Withholding()
    server.goes_on.set()
    uri = f"mlflow+http://{server.address}"
    try:
        server.write("m/1/model.onnx", models.affine())
        async with catalog_of(tmp_path, uri) as before:
            await before.poll()
            await before.require("m", ["1"])
        server.goes_on.clear()
        server.write("m/1/model.onnx", models.affine(9.0))
        async with catalog_of(tmp_path, uri) as catalog:
            async with asyncio.timeout(as_loaded(30)):
                await catalog.start(60.0)
            assert (available(catalog), catalog.ready()) == ({"m"}, True)
            server.write("m/1/model.onnx", models.affine(8.0))
            with suppress(TimeoutError):  # it waits for the reading as well, once it has looked
                await asyncio.wait_for(catalog.poll(), as_loaded(0.2))
            server.goes_on.set()
            with pytest.raises(FailedPrecondition, match="a version that a route names is immutable"):
                await catalog.load("m")
            with pytest.raises(TimeoutError):  # no load that ended was forgotten, which would end the worker
                await asyncio.wait_for(catalog.run(60.0), 0.1)
    finally:
        server.goes_on.set()
        server.shutdown()
        server.server_close()


async def test_labels_that_do_not_come_hold_up_no_load_of_another_repository(tmp_path: Path) -> None:
    """They were read on the threads on which all versions are opened."""
    server = Withholding()
    server.withheld = "labels.txt"
    config = 'version_policy { specific { versions: 1 } } output { name: "y" label_filename: "2/labels.txt" }'
    try:
        for model in ("far", "further"):
            server.write(f"{model}/1/model.onnx", models.affine())
            server.write(f"{model}/2/labels.txt", b"a\nb")  # no file of the version itself
            server.tags[model] = {"config.pbtxt": config}
        (tmp_path / "models").mkdir()
        async with catalog_of(tmp_path, f"mlflow+http://{server.address},{tmp_path / 'models'}") as catalog:
            async with asyncio.timeout(as_loaded(20)):
                await catalog.start(0.0)
                assert await asyncio.to_thread(server.withholds.wait, as_loaded(20))
                models.write_version(tmp_path / "models", "local", "1", models.affine())
                await catalog.poll()
            assert available(catalog) == {"local"}
            server.goes_on.set()
            await until_available(catalog, {"far", "further", "local"})
            assert catalog.version("far", "1").labels == {"y": ("a", "b")}
    finally:
        server.goes_on.set()
        server.shutdown()
        server.server_close()


async def test_a_stop_does_not_wait_for_a_look(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    loader = open_loader(LoaderSettings(str(tmp_path / "models"), ContentStore(tmp_path / "store")))
    reader = RepositoryReader(ModelRepository(loader), IntentStore(tmp_path / "state"), None)
    try:
        assert await reader.on_thread(lambda: threading.current_thread().daemon)
    finally:
        reader.close()


def test_a_repository_that_does_not_answer_holds_up_no_look_at_the_others(tmp_path: Path) -> None:
    server, store = Mute(), ContentStore(tmp_path / "store")
    try:
        server.write("far/1/model.onnx", b"model")
        models.write_version(tmp_path / "models", "near", "1", b"model")
        both = {
            uri: open_loader(LoaderSettings(uri, store))
            for uri in (f"mlflow+http://{server.address}", str(tmp_path / "models"))
        }
        known = both[str(tmp_path / "models")].fetch("near", "1")
        first_s = as_loaded(0.3)  # of the one that answers, too
        union = RepositoryUnion(both, store, first_s=first_s)
        for _ in range(3):
            with union.one_look():
                listing = union.models()
            assert listing.names == ("near",)
            (reason,) = listing.unreadable.values()
            assert f"has not answered for {first_s:g} s" in reason
            assert union.fetch("far", "1", digest=known.digest) == known
            assert union.origin("near") == str(tmp_path / "models")
            for model in ("near", "new"):  # one that is listed, and one that nobody has seen yet
                with pytest.raises(SourceUnreadable if model == "new" else SourceNotFound):
                    union.read(model, "labels.txt", 10)
        assert server.asked == ["/api/2.0/mlflow/registered-models/search"], "nobody asks it anything meanwhile"
        server.goes_on.set()
        for thread in [thread for thread in threading.enumerate() if thread.name == "repository ping"]:
            thread.join(20)
        with union.one_look():
            assert union.models().names == ("far", "near")
    finally:
        server.goes_on.set()
        server.shutdown()
        server.server_close()


class Unwilling(MlflowServer):
    """A registry that lists everything, and hands out no labels."""

    def respond(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """Returns what MLflow answers, of labels a refusal."""
        return (403, b"", {}) if path.endswith("labels.txt") else super().respond(path, query, headers)


@pytest.mark.parametrize(("quick_s", "asked"), [(0.0, 1), (60.0, 3)])
def test_who_hands_out_nothing_after_long_is_asked_once_in_a_look(tmp_path: Path, quick_s: float, asked: int) -> None:
    server, store = Unwilling(), ContentStore(tmp_path / "store")
    try:
        for model in ("a", "b", "c"):
            server.write(f"{model}/1/labels.txt", b"label")
        models.write_version(tmp_path / "models", "near", "1", b"model")
        uris = (f"mlflow+http://{server.address}", str(tmp_path / "models"))
        union = RepositoryUnion(
            {uri: open_loader(LoaderSettings(uri, store)) for uri in uris}, store, first_s=60, quick_s=quick_s
        )
        for look in (1, 2):
            with union.one_look():
                assert union.models().names == ("a", "b", "c", "near"), "the next look asks again"
                for model in ("a", "b", "c"):
                    with pytest.raises(SourceUnreadable, match="labels"):
                        union.read(model, "1/labels.txt", 10)
                assert union.read("near", "1/model.onnx", 10) == b"model"
            assert sum(path.endswith("labels.txt") for path in server.asked) == look * asked
    finally:
        server.shutdown()
        server.server_close()


async def test_what_takes_long_makes_room_within_a_lane() -> None:
    lanes, goes_on, late = FetchLanes(1, 0.02), threading.Event(), asyncio.Event()
    far, near, other = "oci://a", "/models", "oci://c"
    try:
        slow = asyncio.create_task(lanes.run(far, lambda: goes_on.wait(30), late.set))
        assert await lanes.run(near, lambda: 1) == 1
        assert await lanes.run(far, lambda: 2) == 2
        assert late.is_set()
        assert await lanes.run(other, lambda: threading.current_thread().daemon), "a stop does not wait for it"
        with pytest.raises(ZeroDivisionError):
            await lanes.run(other, lambda: 1 // 0)
        others = [asyncio.create_task(lanes.run(far, lambda: goes_on.wait(30))) for _ in range(20)]
        async with asyncio.timeout(as_loaded(20)):  # what the store has waits for none of these
            assert await lanes.run(far, lambda: 3, apart=True) == 3
        goes_on.set()
        assert await slow
        assert all(await asyncio.gather(*others))
    finally:
        goes_on.set()


async def test_no_more_is_read_at_once_of_this_machine_however_long_it_takes() -> None:
    """Twenty large models of a local repository were copied and hashed by sixteen threads at a restart."""
    lanes, goes_on = FetchLanes(1, 0.01), threading.Event()
    try:
        first = asyncio.create_task(lanes.run("/models", lambda: goes_on.wait(30)))
        second = asyncio.create_task(lanes.run("/models", goes_on.is_set))
        await asyncio.wait({second}, timeout=0.1)
        goes_on.set()
        assert await first
        assert await second, "it began when the first had ended"
    finally:
        goes_on.set()


async def test_a_fetch_fails_where_the_system_starts_no_more_threads() -> None:
    """A RuntimeError went past all that handle the failure of a load, and ended the worker."""
    lanes = FetchLanes(1, 60.0)
    with no_more_threads(), pytest.raises(Unavailable, match="starts no more threads"):
        await lanes.run("a", int)
    assert await lanes.run("a", int) == 0, "the permit is free again"


def test_repositories_that_no_thread_could_ask_are_silent_and_asked_again(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "store")
    both = {str(tmp_path / name): open_loader(LoaderSettings(str(tmp_path / name), store)) for name in ("a", "b")}
    for name in ("a", "b"):
        (tmp_path / name / f"in_{name}" / "1").mkdir(parents=True)
    union = RepositoryUnion(both, store, first_s=as_loaded(10))
    with no_more_threads(), pytest.raises(SourceUnreadable, match="no more threads"), union.one_look():
        pass
    with pytest.raises(SourceUnreadable), union.one_look():
        pass  # they are asked from here on
    for thread in [thread for thread in threading.enumerate() if thread.name == "repository ping"]:
        thread.join(20)
    with union.one_look():
        assert union.models().names == ("in_a", "in_b")
