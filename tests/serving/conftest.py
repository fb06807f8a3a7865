"""What tests of several modules of the room start from."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.serving.prepared_store import PreparedStore
from gateway.serving.refusals import Refusals
from gateway.serving.response_cache import ResponseCache
from gateway.serving.run_quarantine import QuarantineFile
from gateway.serving.shared_run_state import SharedRunState
from loaders.filesystem import FilesystemLoader
from loaders.loader import LocalVersion
from loaders.store import ContentStore
from tests import models
from tests.serving.bench import Bench
from tests.serving.catalogs import Fetch
from tests.serving.ensemble_floor import Floor, fill
from tests.serving.stage import staged
from tests.serving.trial_processes import EARLIER, zygotes


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    loader = FilesystemLoader(tmp_path / "repository", ContentStore(tmp_path / "content"))

    def fetch(content: bytes, files: dict[str, bytes] | None = None) -> LocalVersion:
        models.write_version(tmp_path / "repository", "m", "1", content, files=files)
        return loader.fetch("m", "1")

    return fetch


@pytest.fixture
def prepared_store(tmp_path: Path) -> Iterator[PreparedStore]:
    store = PreparedStore(tmp_path / "prepared", max_bytes=1 << 30)
    store.make()
    yield store
    assert not (tmp_path / "prepared" / "staging").exists()
    assert not list((tmp_path / "prepared").glob("removed.*"))


@pytest.fixture(scope="module")
def earlier_zygotes() -> None:
    """Leaves out of `zygotes` those that tests of other modules started."""
    EARLIER.update(zygotes())


@pytest.fixture
async def benches() -> AsyncIterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.threads.shutdown(wait=True)
        bench.shared.watch.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    directory = tmp_path_factory.mktemp("ensembles")
    fill(directory / "models")
    QuarantineFile(directory).clear()
    shared = SharedRunState(cache=ResponseCache(1 << 20), refusals=Refusals(directory))
    async with staged(directory, threads=2, shared=shared) as stage:
        yield Floor(stage, directory / "models", shared)
